package standby

import (
	"fmt"
	"strings"
)

// getopt reads a command line as the getopt and getopt_long of glibc do, with
// their messages: the tools of PostgreSQL use them, and scripts rely on what
// they accept. Operands may stand between options; "--" ends the options.
type getopt struct {
	called string // argv[0], whole: glibc does not shorten it
	short  string // letters; one with a colon after it takes an argument
	long   []longOption
}

// longOption is another spelling of a letter in short. Any unambiguous
// beginning of its name will do.
type longOption struct {
	name   string
	letter byte
}

// parse gives the options to set, in their order, and returns the operands.
// The first error ends it: one of set, or one with glibc's text.
func (g getopt) parse(args []string, set func(letter byte, value string) error) (operands []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return append(operands, args...), nil
		case len(arg) < 2 || arg[0] != '-':
			operands = append(operands, arg)
		case strings.HasPrefix(arg, "--") && g.long != nil:
			args, err = g.parseLong(arg[2:], args, set)
		default:
			args, err = g.parseShort(arg[1:], args, set)
		}
		if err != nil {
			return nil, err
		}
	}
	return operands, nil
}

// parseShort reads a cluster of letters. It returns the arguments that follow,
// less one if the last letter took it.
func (g getopt) parseShort(letters string, rest []string, set func(byte, string) error) ([]string, error) {
	for i := range len(letters) {
		letter := letters[i]
		switch {
		case !g.knows(letter):
			return nil, g.complain("invalid option -- '%s'", letters[i:i+1])
		case !g.takesArgument(letter):
			if err := set(letter, ""); err != nil {
				return nil, err
			}
			continue
		case i+1 < len(letters):
			return rest, set(letter, letters[i+1:])
		case len(rest) == 0:
			return nil, g.complain("option requires an argument -- '%c'", letter)
		}
		return rest[1:], set(letter, rest[0])
	}
	return rest, nil
}

// parseLong reads NAME or NAME=VALUE.
func (g getopt) parseLong(arg string, rest []string, set func(byte, string) error) ([]string, error) {
	name, value, given := strings.Cut(arg, "=")
	found := g.complete(name)
	switch {
	case len(found) == 0:
		return nil, g.complain("unrecognized option '--%s'", arg)
	case len(found) > 1:
		return nil, g.complain("option '--%s' is ambiguous; possibilities:%s", arg, listed(found))
	case g.takesArgument(found[0].letter):
		if !given && len(rest) == 0 {
			return nil, g.complain("option '--%s' requires an argument", found[0].name)
		}
		if !given {
			value, rest = rest[0], rest[1:]
		}
	case given:
		return nil, g.complain("option '--%s' doesn't allow an argument", found[0].name)
	}
	return rest, set(found[0].letter, value)
}

// complete returns the options that name may stand for: the one so named, or
// all that begin so.
func (g getopt) complete(name string) (found []longOption) {
	for _, o := range g.long {
		if o.name == name {
			return []longOption{o}
		}
		if strings.HasPrefix(o.name, name) {
			found = append(found, o)
		}
	}
	return found
}

func listed(options []longOption) string {
	var b strings.Builder
	for _, o := range options {
		fmt.Fprintf(&b, " '--%s'", o.name)
	}
	return b.String()
}

func (g getopt) knows(letter byte) bool {
	return letter != ':' && letter != ';' && strings.IndexByte(g.short, letter) >= 0
}

func (g getopt) takesArgument(letter byte) bool {
	return strings.HasPrefix(g.short[strings.IndexByte(g.short, letter)+1:], ":")
}

func (g getopt) complain(format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{g.called}, args...)...)
}
