package multicall

import (
	"errors"
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// program is what a setting names.
type program struct {
	// words are the program and its arguments, if no shell is needed.
	words []string
	// script is what a shell has to read otherwise.
	script string
}

// IsZero tells whether no command is set.
func (p program) IsZero() bool { return len(p.words) == 0 && p.script == "" }

// parseNotify reads a command. One that is more than a program with arguments
// is for a shell.
func parseNotify(v string) (program, error) {
	if strings.TrimSpace(v) == "" {
		return program{}, nil
	}
	if words, ok := plainWords(v); ok && words[0] != "" {
		return program{words: words}, nil
	}
	if _, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(v), ""); err != nil {
		return program{}, fmt.Errorf("%q is no command: %w", v, shellError(err))
	}
	return program{script: v}, nil
}

// shellError is what the shell's grammar says, without the text's place.
func shellError(err error) error {
	var p syntax.ParseError
	if errors.As(err, &p) {
		return errors.New(p.Text)
	}
	return err
}

// simpleCommand reads a script that is one simple command, with nothing before,
// behind or beside it.
func simpleCommand(script string) (*syntax.Stmt, *syntax.CallExpr, bool) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX), syntax.KeepComments(true)).Parse(strings.NewReader(script), "")
	if err != nil || len(file.Stmts) != 1 || len(file.Last) > 0 {
		return nil, nil, false
	}
	s := file.Stmts[0]
	call, simple := s.Cmd.(*syntax.CallExpr)
	return s, call, simple && len(call.Args) > 0 && !s.Background && len(s.Comments) == 0
}

// plainWords splits a simple command into its words, as sh would; false if
// there is more to it.
func plainWords(v string) ([]string, bool) {
	s, call, simple := simpleCommand(v)
	if !simple || s.Negated || len(s.Redirs) > 0 || len(call.Assigns) > 0 {
		return nil, false
	}
	words, err := readWords(call.Args, plainWord)
	return words, err == nil
}

// readWords reads each word, or none.
func readWords(words []*syntax.Word, read func(*syntax.Word) (string, error)) ([]string, error) {
	var all []string
	for _, w := range words {
		text, err := read(w)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

// plainWord is a word without its quotes; an error if sh would replace
// something in it.
func plainWord(w *syntax.Word) (string, error) {
	for i, part := range w.Parts {
		lit, ok := part.(*syntax.Lit)
		if ok && (strings.ContainsAny(lit.Value, "*?[{\n") || i == 0 && strings.HasPrefix(lit.Value, "~")) {
			return "", errOpaque
		}
	}
	return unquoted(w)
}
