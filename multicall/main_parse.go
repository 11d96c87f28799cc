package multicall

import (
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
			parsed, err = nil, errDone
		default:
			panic(v)
		}
	}()
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
	return kong.New(grammar, append([]kong.Option{
		kong.Name(c.name),
		kong.Description(description),
		kong.Writers(c.stdout, c.stderr),
		kong.Exit(func(status int) { panic(kongExit(status)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		settingVars(),
		kong.Vars{"version": thisBuild().String()},
	}, options...)...)
}

func (c *call) usageError(err error) error {
	text := strings.TrimSuffix(err.Error(), ".")
	return hint(usagef("%s", text), "try %s --help", c.name)
}
