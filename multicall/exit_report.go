package multicall

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"pitr/archive"
)

// hint adds advice to err: a sentence that is shown on a line of its own. Any
// other error with a method Hint() string is shown the same way.
func hint(err error, format string, args ...any) error { return archive.WithHint(err, format, args...) }

// hintsOf gathers the advice in the whole tree of err, each sentence once.
func hintsOf(err error) []string {
	var hints []string
	walk(err, func(e error) {
		h, ok := e.(interface{ Hint() string })
		if ok && h.Hint() != "" && !slices.Contains(hints, h.Hint()) {
			hints = append(hints, h.Hint())
		}
	})
	return hints
}

// walk visits err and everything it wraps.
func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			walk(inner, visit)
		}
	}
}

// report prints err and its hints, each line under the applet's name. It is the
// only place that does. That stderr may be gone changes nothing.
func report(w io.Writer, name string, err error) {
	var said told
	if err == nil || errors.As(err, &said) {
		return
	}
	var b strings.Builder
	for _, e := range problemsIn(err) {
		for line := range strings.Lines(e.Error()) {
			fmt.Fprintf(&b, "%s: %s\n", name, visible(strings.TrimRight(line, "\n")))
		}
		for _, h := range hintsOf(e) {
			fmt.Fprintf(&b, "HINT: %s\n", visible(h))
		}
	}
	var p *panicked
	if errors.As(err, &p) {
		b.Write(p.stack)
	}
	_, _ = io.WriteString(w, b.String())
}

// visible is a line with its control characters written out: names of files and
// words of another host may hold what a terminal takes for orders, and a line
// break would begin a line that nobody said.
func visible(line string) string {
	hidden := func(r rune) bool { return !unicode.IsPrint(r) }
	if !strings.ContainsFunc(line, hidden) {
		return line
	}
	var b strings.Builder
	for _, r := range line {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// problemsIn splits what errors.Join put together, so that each problem stands
// with its own hints. Of a bad configuration it has the first few.
func problemsIn(err error) []error {
	if s, ok := err.(statusError); ok {
		return problemsIn(s.error)
	}
	var c *ConfigError
	joined, ok := err.(interface{ Unwrap() []error })
	if _, itself := err.(*ConfigError); !itself && ok && err.Error() == textOf(joined.Unwrap()) {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, problemsIn(e)...)
		}
		return all
	}
	if errors.As(err, &c) && err.Error() == c.Error() {
		return c.first(3)
	}
	return []error{err}
}

func textOf(errs []error) string {
	var lines []string
	for _, e := range errs {
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}
