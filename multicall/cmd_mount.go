package multicall

import (
	"context"
	"os"
)

// mountCmd is `pitr mount`.
type mountCmd struct {
	mountFlags
	Foreground bool     `help:"Stay, and tell a service manager by sd_notify when it is mounted and when it ends."`
	Background bool     `hidden:"" help:"This is the child that goes into the background: standard error is a pipe to who waits for it."`
	Words      []string `arg:"" optional:"" name:"source dir" help:"[SOURCE] DIR: what to mount, a configuration file or an archive's URL, as -C takes them too; and the empty directory for it."`
}

// Run mounts the archives, and goes into the background when they can be read.
func (m *mountCmd) Run(ctx context.Context, c *call, flags *settingFlags) error {
	var word string
	switch len(m.Words) {
	case 1:
		if flags.ConfigFile == nil {
			word = getenv(c.environ, configVariable) // made absolute, as the child works elsewhere
		}
	case 2:
		word = m.Words[0]
	default:
		return hint(usagef("a directory is needed, and perhaps a source before it; there is %s", count(len(m.Words), "word")), "pitr mount [SOURCE] DIR")
	}
	source, err := sourceOf(word, *flags)
	if err != nil {
		return err
	}
	one := mounting{call: c, flags: m.mountFlags, source: source, dir: m.Words[len(m.Words)-1]}
	switch {
	case m.Background:
		return one.serveBehind(ctx)
	case m.Foreground, os.Getpid() == 1: // what process 1 leaves behind dies with it
		return one.serve(ctx, one.notifies())
	}
	return one.detach(ctx)
}
