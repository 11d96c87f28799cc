package multicall

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// adminCLI is the command line of `pitr`. A new command is a field with a type
// of its own, whose method Run asks for a *session, or, if it can do without a
// good configuration, for context.Context, *call and *settingFlags.
type adminCLI struct {
	settingFlags
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`

	Init    initCmd    `cmd:"" help:"Make the configured directory the archive of a cluster."`
	Check   checkCmd   `cmd:"" help:"Look at everything that archiving depends on; exits 0, 1 (warning) or 2 (critical)."`
	Status  statusCmd  `cmd:"" help:"Tell how far archiving is; exits 0, 1 (warning) or 2 (critical)."`
	WAL     walCmd     `cmd:"" name:"wal" help:"Store, get, list, verify, prune files of WAL."`
	Mount   mountCmd   `cmd:"" help:"Show the archives as a read-only directory."`
	Umount  umountCmd  `cmd:"" help:"End such a mount; who uses it is named."`
	Agent   agentCmd   `cmd:"" help:"The process that ships for archive_command."`
	Config  configCmd  `cmd:"" help:"Look at the configuration."`
	Install installCmd `cmd:"" help:"Link every name of this binary into a directory."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// runPitr is the admin tool.
func runPitr(ctx context.Context, c *call) error {
	err := c.admin(ctx)
	if err != nil && !errors.Is(err, errDone) && restoresFor(c.args) {
		// restore_command = 'pitr wal get %f %p': its statuses are for people.
		return withStatus(errors.Join(err, hint(errors.New("this command's exit statuses are for people"), "restore_command is the one for PostgreSQL")), 255)
	}
	if !errors.Is(err, ErrUsage) {
		return err
	}
	if a, ok := meant(append([]string{filepath.Base(c.called)}, c.args...)); ok {
		return withStatus(err, statusOf(ErrUsage, a.column))
	}
	return err
}

func (c *call) admin(ctx context.Context) error {
	if err := c.knownWord(); err != nil {
		return err
	}
	var cli adminCLI
	parsed, err := c.parse(&cli, adminDescription())
	if err != nil {
		return err
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	if err := parsed.BindToProvider(func() (*session, error) { return c.session(ctx, &cli.settingFlags) }); err != nil {
		return err
	}
	return parsed.Run(c, &cli.settingFlags)
}

func adminDescription() string {
	return "Continuous archiving and point-in-time recovery for PostgreSQL.\n\n" +
		"pitr NAME ... is one of its other names: " + strings.Join(appletNames()[1:], ", ") + "."
}

// knownWord lists what there is when the first word is nothing of it.
func (c *call) knownWord() error {
	known := append(adminCommands(), appletNames()[1:]...)
	all := "known are: " + strings.Join(known, ", ")
	switch {
	case len(c.args) == 0:
		return hint(usagef("no command given"), "%s", all)
	case c.args[0] == "help":
		return hint(usagef("help is not a command"), "try pitr --help, or pitr COMMAND --help")
	case strings.HasPrefix(c.args[0], "-"), slices.Contains(known, c.args[0]):
		return nil
	}
	err := hint(usagef("%q is neither a command nor a name of pitr", c.args[0]), "%s", all)
	if near := nearest(c.args[0], known); near != "" {
		return hint(err, "did you mean %q?", near)
	}
	return err
}

// adminCommands are the names of adminCLI's commands.
func adminCommands() []string {
	var names []string
	t := reflect.TypeFor[adminCLI]()
	for i := range t.NumField() {
		if _, ok := t.Field(i).Tag.Lookup("cmd"); ok {
			names = append(names, strings.ToLower(t.Field(i).Name))
		}
	}
	return names
}
