package multicall

import (
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// kongExit is what kong wants the process to end with, thrown as a panic: its
// parser goes on after a call of Exit that returns.
type kongExit int

// parse reads the applet's arguments into grammar, a pointer to kong's kind of
// struct. Help and version are printed and answered with errDone; every other
// error matches ErrUsage.
func (c *call) parse(grammar any, description string, options ...kong.Option) (parsed *kong.Context, err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case kongExit:
			parsed, err = nil, c.helpAlone()
		default:
			panic(v)
		}
	}()
	if err := once(c.args); err != nil {
		return nil, err
	}
	k, err := c.newKong(grammar, description, options...)
	if err != nil {
		return nil, err
	}
	parsed, err = k.Parse(c.args)
	if lost := c.stdout.failure(); lost != nil {
		return nil, lost // help that could not be printed
	}
	if err != nil {
		return nil, c.usageError(err)
	}
	return parsed, nil
}

func (c *call) newKong(grammar any, description string, options ...kong.Option) (*kong.Kong, error) {
	k, err := kong.New(grammar, append([]kong.Option{
		kong.Name(c.name),
		kong.Description(description),
		kong.Writers(c.stdout, c.stderr),
		kong.Exit(func(status int) { panic(kongExit(status)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.Vars{"version": thisBuild().String()},
	}, options...)...)
	if err == nil {
		describe(k.Model.Flags)
	}
	return k, err
}

func (c *call) usageError(err error) error {
	text := err.Error()
	if !strings.HasSuffix(text, "...") {
		text = strings.TrimSuffix(text, ".")
	}
	return hint(usagef("%s", text), "try %s --help", strings.Join(append([]string{c.name}, c.commandWords()...), " "))
}

// commandWords are the words of the command line that choose a command.
func (c *call) commandWords() []string {
	known := reflect.TypeFor[adminCLI]()
	var words []string
	for _, w := range c.args {
		next, ok := subcommand(known, w)
		if c.name != "pitr" || !ok {
			break
		}
		words, known = append(words, w), next
	}
	return words
}

// subcommand finds the type of a command within that of a grammar.
func subcommand(grammar reflect.Type, word string) (reflect.Type, bool) {
	for i := range grammar.NumField() {
		f := grammar.Field(i)
		if _, ok := f.Tag.Lookup("cmd"); ok && strings.ToLower(f.Name) == word {
			return f.Type, true
		}
	}
	return nil, false
}

// helpAlone is errDone if nothing was asked for but help or the version. With
// anything else on the command line, success would mean that it was done:
// PostgreSQL would recycle a segment that was never stored.
func (c *call) helpAlone() error {
	if len(c.args) == len(c.commandWords())+1 {
		return errDone
	}
	return hint(usagef("--help and --version stand alone"), "nothing was done")
}

// once refuses a setting that is given twice: the last one would win, and what
// was meant by the first would not happen.
func once(args []string) error {
	seen := map[string]bool{}
	for _, arg := range args {
		if arg == "--" {
			return nil
		}
		name, _, _ := strings.Cut(arg, "=")
		if name == "-C" || strings.HasPrefix(arg, "-C") {
			name = "--config"
		}
		if !isSettingFlag(name) {
			continue
		}
		if seen[name] {
			return hint(usagef("%s is given twice", name), "several archives are one value: --archive=URL,URL")
		}
		seen[name] = true
	}
	return nil
}

func isSettingFlag(name string) bool {
	return name == "--config" || slices.ContainsFunc(settings(), func(s setting) bool { return s.flagName() == name })
}
