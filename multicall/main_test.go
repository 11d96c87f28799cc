package multicall

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary the real one under each of its names, and
// some applets that behave badly.
func TestMain(m *testing.M) {
	// The race detector would have every child sleep for a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	commands := map[string]func(){}
	for _, a := range applets() {
		// Never the file of the machine that the tests run on.
		commands[a.name] = func() { os.Exit(mainWith(os.Args, elsewhere())) }
	}
	commands[notifierName] = commands["pitr"]
	commands["pitr-0.1"] = commands["pitr"]
	for name, run := range badApplets() {
		commands[name] = func() { os.Exit(runBad(name, run)) }
	}
	if commands[filepath.Base(os.Args[0])] == nil {
		catchIgnored()
		// Whoever runs the tests may have settings for pitr. No child may see
		// them, so there are always some that would spoil everything.
		os.Setenv("PITR_CONFIG", "/nonexistent")
		os.Setenv("PITR_STATE", "offline")
	}
	testscript.Main(m, commands)
}

// elsewhere is a machine whose user is not root, with slaves that are
// directories: sftp://host/r_archivedir is $HOME/slaves/host. One whose name
// begins with "away" is not there, and cannot be made.
func elsewhere() surroundings {
	home := os.Getenv("HOME")
	uid := 1000
	if os.Getenv("TEST_ROOT") != "" {
		uid = 0
	}
	return surroundings{
		defaultFile: filepath.Join(home, "etc", "pitr.ini"), uid: uid,
		slaveURL: func(c Config, slave string) *url.URL {
			if strings.HasPrefix(slave, "away") {
				return &url.URL{Scheme: "file", Path: filepath.Join(home, "slaves", "none", slave)}
			}
			return &url.URL{Scheme: "file", Path: filepath.Join(home, "slaves", slave)}
		},
	}
}

// cleanUp is how long the clean-up of tidy takes.
const cleanUp = 100 * time.Millisecond

// badApplets are called as NAME COLUMN ARG..., where COLUMN is an applet that
// they pretend to be.
func badApplets() map[string]func(context.Context, *call) error {
	return map[string]func(context.Context, *call) error{
		"tidy": func(ctx context.Context, c *call) error {
			fmt.Fprintln(c.stdout, "ready")
			<-ctx.Done()
			fmt.Fprintln(c.stdout, "signalled")
			time.Sleep(cleanUp)
			fmt.Fprintln(c.stdout, "cleaned up")
			return context.Cause(ctx)
		},
		"stuck": func(ctx context.Context, c *call) error {
			fmt.Fprintln(c.stdout, "ready")
			<-ctx.Done()
			fmt.Fprintln(c.stdout, "signalled")
			select {}
		},
		"finisher": func(ctx context.Context, c *call) error {
			fmt.Fprintln(c.stdout, "ready")
			<-ctx.Done()
			return nil
		},
		"scribbles": func(_ context.Context, c *call) error {
			f, err := os.OpenFile(c.args[0], os.O_RDWR, 0)
			if err != nil {
				return err
			}
			c.log.Warn("a line that no file may hold")
			fmt.Fprintln(c.stdout, "nor this one")
			return f.Close()
		},
		"prints": func(_ context.Context, c *call) error {
			fmt.Fprintln(c.stdout, "a line that it does not look after")
			return nil
		},
		"panics": func(context.Context, *call) error { panic("what a day") },
		"panicselsewhere": func(context.Context, *call) error {
			go panic("what a day")
			select {}
		},
		"talks": func(_ context.Context, c *call) error {
			for range 10000 {
				c.log.Info("a line that nobody reads, of some length, to fill the pipe")
			}
			return nil
		},
	}
}

func runBad(name string, run func(context.Context, *call) error) int {
	a, _ := findApplet(os.Args[1])
	a.run = run
	c := &call{name: name, called: name, args: os.Args[2:]}
	return c.start(a)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", os.Getenv("GORACE"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": cmdStatus},
	})
}

// cmdStatus is `status N PROGRAM ARG...`: the program ends with N.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%s: got status %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

func TestDispatch(t *testing.T) {
	tests := []struct {
		args   []string
		applet string
		called string
		rest   string
	}{
		{nil, "pitr", "pitr", ""},
		{[]string{""}, "pitr", "", ""}, // what Linux makes of no arguments at all
		{[]string{"pitr"}, "pitr", "pitr", ""},
		{[]string{"/usr/bin/archive_command", "pg_wal/A"}, "archive_command", "/usr/bin/archive_command", "pg_wal/A"},
		{[]string{"./pitr", "archive_command", "pg_wal/A"}, "archive_command", "archive_command", "pg_wal/A"},
		{[]string{"pitr-0.1", "restore_command", "A", "B"}, "restore_command", "restore_command", "A B"},
		{[]string{"/tmp/x", "wal", "list"}, "pitr", "/tmp/x", "wal list"},
		{[]string{"archive_command", "restore_command"}, "archive_command", "archive_command", "restore_command"},
		{[]string{"pitr", "pitr", "wal"}, "pitr", "pitr", "wal"},
	}
	for _, tt := range tests {
		a, c := dispatch(tt.args)
		if a.name != tt.applet || c.name != tt.applet || c.called != tt.called || strings.Join(c.args, " ") != tt.rest {
			t.Errorf("%q: got %s called %s with %q, want %s called %s with %q", tt.args, a.name, c.called, c.args, tt.applet, tt.called, tt.rest)
		}
	}
}

func TestMisspelledRestoreCommandNeverEndsRecovery(t *testing.T) {
	tests := []struct {
		args []string
		want int
	}{
		{[]string{"pitr", "restore_comand", "F", "P"}, 255},
		{[]string{"pitr", "-C", "/x", "restore_command", "F", "P"}, 255},
		{[]string{"restore_command-0.1", "F", "P"}, 255},
		{[]string{"restore_command.old"}, 255},
		{[]string{"/tmp/pgrestore", "000000010000000000000001", "pg_wal/RECOVERYXLOG"}, 255},
		{[]string{"pitr", "get", "00000002.history", "pg_wal/RECOVERYHISTORY"}, 255},
		{[]string{"pitr", "archive-command", "P"}, 2},
		{[]string{"pitr", "frobnicate"}, 2},
		{[]string{"pitr"}, 2},
		{[]string{"pitr", "--frobnicate"}, 2},
	}
	for _, tt := range tests {
		a, c := dispatch(tt.args)
		c.stdout, c.stderr = &output{w: t.Output()}, t.Output()
		err := a.run(t.Context(), c)
		if got := statusOf(err, a.column); got != tt.want {
			t.Errorf("%q: got status %d (%v), want %d", tt.args, got, err, tt.want)
		}
	}
}

func TestUnknownWordListsTheKnownOnes(t *testing.T) {
	err := (&call{name: "pitr", args: []string{"frobnicate"}}).knownWord()
	all := strings.Join(hintsOf(err), "\n")
	for _, want := range []string{"wal", "config", "install", "archive_command", "pg_standby"} {
		if !strings.Contains(all, want) {
			t.Errorf("got hints %q, want %s among them", all, want)
		}
	}
}

// The list of commands that an unknown word gets is read from the structure.
func TestAdminCommandsAreThoseOfTheParser(t *testing.T) {
	c := &call{name: "pitr"}
	k, err := c.newKong(&adminCLI{}, "")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range k.Model.Children {
		want = append(want, n.Name)
	}
	if got := adminCommands(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, want %q", got, want)
	}
}
