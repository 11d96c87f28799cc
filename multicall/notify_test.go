package multicall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pitr/archive/ship"
	"pitr/archive/wal"
)

// startAlert starts the supervisor of an alert, which writes into dir.
func startAlert(t *testing.T, dir string, words []string, patience time.Duration) {
	t.Helper()
	a := alert{Words: words, Report: filepath.Join(dir, failedAlert), Patience: patience, Event: "warning"}
	if err := a.start([]string{"PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE"), "PITR_EVENT=warning"}); err != nil {
		t.Fatal(err)
	}
}

// await waits until a file is there, and returns what is in it.
func await(t *testing.T, name string) string {
	t.Helper()
	for deadline := time.Now().Add(lifetime); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
			return string(text)
		}
	}
	t.Fatalf("%s never came", name)
	return ""
}

// awaitEnd waits until no process has the directory on its command line or in
// its environment.
func awaitEnd(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(lifetime); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if len(processesOf(dir)) == 0 {
			return
		}
	}
	t.Fatalf("still running: %q", processesOf(dir))
}

func processesOf(dir string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(p, "environ"))
		stat, _ := os.ReadFile(filepath.Join(p, "stat"))
		ended := strings.Contains(string(stat), ") Z ")
		if pid, _ := strconv.Atoi(filepath.Base(p)); pid != os.Getpid() && !ended && strings.Contains(string(line)+string(environ), dir) {
			found = append(found, string(line))
		}
	}
	return found
}

// recorder is a program that writes down its arguments, each in a line of its
// own between brackets, and its environment.
func argumentRecorder(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "recorder")
	script := fmt.Sprintf("#!/bin/sh\nd=%s\nfor a; do printf '[%%s]\\n' \"$a\"; done > $d/args.tmp\nenv > $d/env\npwd > $d/pwd\nls -l /proc/self/fd > $d/fds\nmv $d/args.tmp $d/args\n", dir)
	if err := os.WriteFile(name, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

const nasty = "a 'b' \"c\" $(touch /tmp/x) `id` ; rm -rf * & | > \\ \n next %s é"

func TestAlertGetsItsMessageAsOneArgument(t *testing.T) {
	for _, message := range []string{nasty, "-n --help\n'\"$(touch /tmp/x)\"'\n\n`id`", "\"", "'", "\\", "$1", "!!", "; exit 3"} {
		wantOneArgument(t, message)
	}
}

func wantOneArgument(t *testing.T, message string) {
	t.Helper()
	for what, text := range map[string]string{
		"words":                 "%s CRITICAL 'two words'",
		"a shell's words":       "%s CRITICAL 'two words' 2>/dev/null",
		"one that looks itself": "true && %s CRITICAL 'two words' \"$1\"",
	} {
		dir := t.TempDir()
		p, err := parseNotify(fmt.Sprintf(text, argumentRecorder(t, dir)))
		if err != nil {
			t.Fatal(err)
		}
		startAlert(t, dir, p.command(message), time.Minute)
		if got, want := await(t, filepath.Join(dir, "args")), "[CRITICAL]\n[two words]\n["+message+"]\n"; got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		awaitEnd(t, dir)
		if _, err := os.Stat(filepath.Join(dir, failedAlert)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it is said to have failed", what)
		}
		if env := await(t, filepath.Join(dir, "env")); !strings.Contains(env, "PITR_EVENT=warning\n") || strings.Contains(env, notifierVariable) {
			t.Errorf("%s: got environment %q", what, env)
		}
		if got := await(t, filepath.Join(dir, "pwd")); got != "/\n" {
			t.Errorf("%s: it runs in %q", what, got)
		}
	}
}

func TestScriptThatHasNoUseForTheMessageStaysAsItIs(t *testing.T) {
	for _, script := range []string{"date >> /x; true", "date | mail root", "a &", "a; ", "a # x", "a \"$1\" >x", "a $PITR_EVENT_MESSAGE >x", "(a >x)", "a <<E\nb\nE", "x=1", "a >x\n", "eval a >x"} {
		p := program{script: script}
		if got := p.command("m"); got[2] != script || got[4] != "m" {
			t.Errorf("%q: got %q", script, got)
		}
	}
	for _, script := range []string{"a >x", "a $HOME", "a ~/b 2>&1", "X=1 a"} {
		p := program{script: script}
		if got := p.command("m"); got[2] != script+` "$1"` {
			t.Errorf("%q: got %q", script, got)
		}
	}
}

// Whatever a hanging command has started, in its own group, in the background or
// in another session, is ended, and the supervisor too.
func TestHangingAlertIsCutOff(t *testing.T) {
	dir := t.TempDir()
	script := fmt.Sprintf("echo $$ > %s/began; trap '' TERM HUP INT; sleep 1000 & (setsid sh -c 'sleep 1000; : %s' &) ; sleep 1000; : %s", dir, dir, dir)
	startAlert(t, dir, []string{"/bin/sh", "-c", script, dir}, 500*time.Millisecond)
	await(t, filepath.Join(dir, "began"))
	if got := readFailedAlert([]byte(await(t, filepath.Join(dir, failedAlert)))); !strings.Contains(got, "cut off after 500ms") {
		t.Errorf("got %q", got)
	}
	awaitEnd(t, dir)
}

func TestAlertThatEndsLeavesNothingRunning(t *testing.T) {
	dir := t.TempDir()
	startAlert(t, dir, []string{"/bin/sh", "-c", "(setsid sleep 1000 " + dir + " &) ; sh -c 'sleep 1000' " + dir + " & exit 0", dir}, 500*time.Millisecond)
	if got := readFailedAlert([]byte(await(t, filepath.Join(dir, failedAlert)))); !strings.Contains(got, "left running") {
		t.Errorf("got %q", got)
	}
	awaitEnd(t, dir)
}

func TestFailedAlertIsNotedUntilOneSucceeds(t *testing.T) {
	for what, c := range map[string]struct {
		words []string
		want  string
	}{
		"missing":  {[]string{"/nonexistent/notify", "m"}, "no such file"},
		"status":   {[]string{"/bin/sh", "-c", "exit 3"}, "exit status 3"},
		"a signal": {[]string{"/bin/sh", "-c", "kill -9 $$"}, "killed by signal 9"},
	} {
		dir := t.TempDir()
		startAlert(t, dir, append(c.words, dir), time.Minute)
		if got := readFailedAlert([]byte(await(t, filepath.Join(dir, failedAlert)))); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
		awaitEnd(t, dir)
		startAlert(t, dir, []string{"/bin/sh", "-c", "exit 0", dir}, time.Minute)
		awaitEnd(t, dir)
		if _, err := os.Stat(filepath.Join(dir, failedAlert)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the note stays after a success", what)
		}
	}
}

// The supervisor ends with 0, whatever comes: the postmaster may be its parent.
func TestNotifierEndsWithZero(t *testing.T) {
	for what, env := range map[string]string{
		"nothing to do": "",
		"nonsense":      "{",
		"a failure":     `{"words":["/bin/false"],"patience":1000000000}`,
		"no program":    `{"words":[""],"patience":1000000000}`,
	} {
		cmd := command(t, notifierName)
		cmd.Env = append(cmd.Env, notifierVariable+"="+env)
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		dir := t.TempDir()
		cmd := command(t, notifierName)
		cmd.Env = append(cmd.Env, fmt.Sprintf(`%s={"words":["/bin/sh","-c","echo > %s/began; sleep 1000; : %s"],"report":"%s/.notify","patience":60000000000}`, notifierVariable, dir, dir, dir))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, filepath.Join(dir, "began"))
		_ = cmd.Process.Signal(sig)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		awaitEnd(t, dir)
	}
}

// The command inherits nothing: not PostgreSQL's log, nor what it left open.
func TestAlertInheritsNothing(t *testing.T) {
	dir := t.TempDir()
	held, err := os.Create(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	leaked, err := syscall.Dup(int(held.Fd())) // without the mark, as others leave it
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leaked)
	startAlert(t, dir, []string{argumentRecorder(t, dir), "m"}, time.Minute)
	await(t, filepath.Join(dir, "args"))
	if fds := await(t, filepath.Join(dir, "fds")); strings.Contains(fds, "held") || strings.Count(fds, "/dev/null") < 2 {
		t.Errorf("got %s", fds)
	}
	awaitEnd(t, dir)
}

func TestAlertsAreGivenForChangesOnly(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{LArchiveDir: dir}
	for state, p := range map[string]*program{"ok": &cfg.NotifyOK, "warning": &cfg.NotifyWarning, "critical": &cfg.NotifyCritical} {
		p.words = []string{"/bin/sh", "-c", fmt.Sprintf(`printf '%%s|%%s|%%s\n' "$PITR_EVENT" "$PITR_EVENT_DESTINATION" "$1" > %s/%s.tmp; mv %s/%s.tmp %s/%s`, dir, state, dir, state, dir, state), "sh"}
	}
	c := &call{environ: []string{"PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE"), "PITR_CONFIG=/x"}}
	name := wal.SegmentName(1, 7, 1<<20)
	for _, tt := range []struct {
		r    ship.Result
		want string // the event, or none
		text string
	}{
		{ship.Result{Outcome: ship.Delivered, After: ship.OK}, "", ""},
		{ship.Result{Outcome: ship.Delivered, Before: ship.OK, After: ship.OK}, "", ""},
		{ship.Result{Outcome: ship.Queued, Reason: errors.New("it is\n away"), Before: ship.OK, After: ship.Behind}, "warning", "waits in its queue: it is away"},
		{ship.Result{Outcome: ship.Queued, Reason: errors.New("away"), Before: ship.Behind, After: ship.Behind}, "", ""},
		{ship.Result{Outcome: ship.Lost, Err: errors.New("full"), Before: ship.Behind, After: ship.Failed}, "critical", "is neither there nor in its queue: full"},
		{ship.Result{Outcome: ship.Lost, Err: errors.New("full"), Before: ship.Failed, After: ship.Failed}, "", ""},
		{ship.Result{Outcome: ship.Queued, HalfFull: true, Before: ship.Behind, After: ship.Behind}, "warning", "with 000000010000000000000007 its queue holds more than half of queue_max"},
		{ship.Result{Outcome: ship.Delivered, Before: ship.Failed, After: ship.OK}, "ok", "it has everything again, up to 000000010000000000000007"},
	} {
		tt.r.Destination, tt.r.File = "one", name
		c.notify(cfg, []ship.Result{tt.r})
		if tt.want != "" {
			got := await(t, filepath.Join(dir, tt.want))
			if !strings.HasPrefix(got, tt.want+"|one|pitr: slave one: ") || !strings.HasSuffix(got, tt.text+"\n") {
				t.Errorf("%+v: got %q", tt.r, got)
			}
		}
		awaitEnd(t, dir)
		for _, event := range []string{"ok", "warning", "critical"} {
			_, err := os.Stat(filepath.Join(dir, event))
			if (err == nil) != (event == tt.want) {
				t.Errorf("%+v: alert %s was given: %v", tt.r, event, err == nil)
			}
			_ = os.Remove(filepath.Join(dir, event))
		}
	}
}

func TestSlaveURLs(t *testing.T) {
	c := Config{RArchiveDir: "/var/lib/postgresql/archive"}
	for slave, want := range map[string]string{
		"standby1":    "sftp://standby1/var/lib/postgresql/archive",
		"192.0.2.7":   "sftp://192.0.2.7/var/lib/postgresql/archive",
		"2001:db8::7": "sftp://[2001:db8::7]/var/lib/postgresql/archive",
	} {
		for user, as := range map[string]string{"": "", "postgres": "postgres@"} {
			c.User = user
			u := c.slaveURL(slave)
			if got := u.String(); got != strings.Replace(want, "//", "//"+as, 1) {
				t.Errorf("got %s, want %s", got, want)
			}
			if again, err := parseArchive(u.String()); err != nil || again.String() != u.String() {
				t.Errorf("%s: it reads back as %v, %v", u, again, err)
			}
		}
	}
}

func TestCompressionIsAskedFor(t *testing.T) {
	for flag, want := range map[string]bool{"-z": true, "-avz": true, "--compress": true, "--compress-level=3": true, "-a": false, "--size-only": false} {
		if asksForCompression(flag) != want {
			t.Errorf("%s: want %v", flag, want)
		}
	}
	if got := pythonList([]string{"a", "b"}); got != "['a', 'b']" || !slices.Contains(unusedKeys, "rsync_bin") {
		t.Errorf("got %s", got)
	}
}

// What a Drainer says may be of no file.
func TestWhatHappenedWithoutAFile(t *testing.T) {
	for want, r := range map[string]ship.Result{
		"it has everything again":                       {Outcome: ship.Delivered, After: ship.OK},
		"what waits in its queue does not go out: away": {Outcome: ship.Queued, After: ship.Behind, Reason: errors.New("away")},
	} {
		if got := whatHappened(r); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
