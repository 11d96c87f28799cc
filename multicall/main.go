// Package multicall is the outside of pitr: the only reader of command line,
// environment and configuration, and the only one that decides exit statuses.
//
// One binary has many names. The table in applets chooses by the name it was
// called by, else by the first argument. Each applet builds only its own
// command line: PostgreSQL calls the hot ones for every segment.
//
// What an applet returns becomes lines on stderr (report) and a status
// (statusOf, which is docs/exit-codes.md). It promises that no library decides
// either: not kong, not a panic, not a signal.
package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// applet is a name under which the binary can be called.
type applet struct {
	name    string
	summary string
	column  column
	// failover are signals that end a recovery instead of the applet, with
	// failoverCause as the cause of its context.
	failover      []os.Signal
	failoverCause error
	run           func(context.Context, *call) error
}

// call is one run of an applet.
type call struct {
	name    string   // the applet's
	called  string   // argv[0], or the applet's name where the first argument chose it
	args    []string // what follows the applet's name
	environ []string
	surroundings
	stdout      *output
	stderr      io.Writer
	log         *slog.Logger
	level       *slog.LevelVar
	connections connections
	began       time.Time
	// asked is the agent that was asked already.
	asked agentPlace
	// answered is what the fetcher there said, if it was no file, and no proof.
	answered error
}

// Main runs the applet that args name, args[0] included, and returns the exit
// status. It handles signals, so it is called once, by main.
func Main(args []string) int {
	return mainWith(args, surroundings{defaultFile: defaultConfigFile, uid: os.Geteuid(), slaveURL: Config.slaveURL})
}

// surroundings are what a call finds on its machine, and tests have otherwise.
type surroundings struct {
	// defaultFile is read if neither -C nor $PITR_CONFIG names a file.
	defaultFile string
	uid         int
	// slaveURL is where the archive of a slave lies.
	slaveURL func(Config, string) *url.URL
}

func mainWith(args []string, around surroundings) int {
	if len(args) > 0 && filepath.Base(args[0]) == notifierName {
		return runNotifier(os.Environ())
	}
	a, c := dispatch(args)
	c.surroundings = around
	return c.start(a)
}

func (c *call) start(a applet) int {
	c.began = time.Now()
	c.environ, c.stdout, c.stderr = os.Environ(), &output{w: os.Stdout}, os.Stderr
	c.level = new(slog.LevelVar)
	c.log = slog.New(newLineHandler(c.stderr, c.name, c.level))
	crashBySignal(a)
	ignoreBrokenPipes(a)
	err := supervise(a, c)
	if errors.Is(err, errDone) {
		err = nil
	}
	if err == nil {
		err = c.stdout.failure()
	}
	within(grace, c.connections.close)
	within(grace, func() { report(c.stderr, c.name, err) })
	return statusOf(err, a.column)
}

// dispatch chooses the applet. A name that is none is the admin tool's: the
// binary may have been renamed.
func dispatch(args []string) (applet, *call) {
	called := "pitr"
	if len(args) > 0 {
		called, args = args[0], args[1:]
	}
	a, ok := findApplet(filepath.Base(called))
	if !ok {
		a = adminApplet()
	}
	if a.column == colPitr && len(args) > 0 {
		if named, ok := findApplet(args[0]); ok {
			a, called, args = named, args[0], args[1:]
		}
	}
	return a, &call{name: a.name, called: called, args: args}
}

func findApplet(name string) (applet, bool) {
	for _, a := range applets() {
		if a.name == name {
			return a, true
		}
	}
	return applet{}, false
}

// loadConfig puts the configuration together from the flags, the environment
// and the file, and turns the log to what `debug` says.
func (c *call) loadConfig(flags *settingFlags) (Config, error) {
	cfg, err := loadConfig(configSources{flags, c.environ, c.defaultFile, "."})
	cfg.connections = &c.connections
	if cfg.Debug {
		c.level.Set(slog.LevelDebug)
	}
	return cfg, err
}

// printJSON prints v, indented, on stdout.
func (c *call) printJSON(v any) error { return printJSON(c.stdout, v) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// output is stdout. It remembers its first error, so that a command need not
// look at each one: output that was lost is a failure.
type output struct {
	w   io.Writer
	err error
}

// Write writes through until the first error.
func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

func (o *output) failure() error {
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("standard output: %w", o.err)
}
