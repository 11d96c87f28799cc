package multicall

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func signalsOf(name string) map[syscall.Signal]int {
	all := map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGQUIT: 131, syscall.SIGINT: 130, syscall.SIGHUP: 129}
	switch name {
	case "pg_standby":
		delete(all, syscall.SIGINT)
	case mountHelperName:
		all[syscall.SIGINT] = 8 // mount(8): user interrupt
	}
	return all
}

func TestSignalEndsAfterCleaningUp(t *testing.T) {
	for _, a := range applets() {
		for sig, want := range signalsOf(a.name) {
			t.Run(a.name+" "+signalName(sig), func(t *testing.T) {
				t.Parallel()
				c := startChild(t, command(t, "tidy", a.name))
				c.signal(sig)
				status, stdout, _ := c.end(t)
				if status != want || stdout != "signalled\ncleaned up\n" {
					t.Errorf("got %d, %q, want %d and a clean-up", status, stdout, want)
				}
				if got, want := c.stderr.String(), "tidy: ended by "+signalName(sig)+"\n"; got != want {
					t.Errorf("got stderr %q, want %q", got, want)
				}
			})
		}
	}
}

func TestSignalEndsWhatCannotCleanUp(t *testing.T) {
	t.Parallel()
	c := startChild(t, command(t, "stuck", "restore_command"))
	c.signal(syscall.SIGTERM)
	status, _, took := c.end(t)
	if status != 143 || took < grace || took > 10*grace {
		t.Errorf("got %d after %v, want 143 after %v", status, took, grace)
	}
}

// rounds is how often a test tries to be in time on a busy machine.
const rounds = 20

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	for range rounds {
		c := startChild(t, command(t, "stuck", "restore_command"))
		c.signal(syscall.SIGTERM)
		c.wantLine(t, "signalled")
		c.signal(syscall.SIGQUIT)
		inTime := time.Since(c.signalled) < grace/2
		status, _, took := c.end(t)
		switch {
		case status == 131: // it is 143 after the grace if the second one is not heard
			return
		case inTime:
			t.Fatalf("got %d after %v, want 131 at once", status, took)
		}
	}
	t.Fatalf("this machine is too busy to signal twice within %v", grace/2)
}

// systemd and the postmaster may both pass the same SIGTERM on.
func TestSameSignalTwiceLeavesTimeToCleanUp(t *testing.T) {
	t.Parallel()
	for range rounds {
		c := startChild(t, command(t, "tidy", "archive_command"))
		c.signal(syscall.SIGTERM)
		c.wantLine(t, "signalled") // two signals that wait are one
		c.signal(syscall.SIGTERM)
		duringCleanUp := time.Since(c.signalled) < cleanUp/2
		status, stdout, took := c.end(t)
		switch tidied := status == 143 && stdout == "cleaned up\n"; {
		case tidied && duringCleanUp:
			return
		case !tidied && took < echo: // later, the second one counts as another one
			t.Fatalf("got %d, %q after %v, want 143 and a clean-up", status, stdout, took)
		}
	}
	t.Fatalf("this machine is too busy to signal twice within %v", cleanUp/2)
}

func TestWindDownTakesTheSameSignalForOneOnlyForAWhile(t *testing.T) {
	tests := []struct {
		second syscall.Signal
		after  time.Duration
		ends   bool
	}{
		{syscall.SIGTERM, echo - 1, false},
		{syscall.SIGTERM, echo, true},
		{syscall.SIGQUIT, 0, true},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			began, done, signals := time.Now(), make(chan error), make(chan os.Signal, 1)
			time.AfterFunc(tt.after, func() { signals <- tt.second })
			err := windDown(applet{}, syscall.SIGTERM, done, signals)
			took := time.Since(began)
			if tt.ends && (err != interrupted(tt.second) || took != tt.after) {
				t.Errorf("%v after %v: got %v after %v, want the end at once", tt.second, tt.after, err, took)
			}
			if !tt.ends && (!errors.Is(err, interrupted(syscall.SIGTERM)) || took != grace) {
				t.Errorf("%v after %v: got %v after %v, want the end after %v", tt.second, tt.after, err, took, grace)
			}
		})
	}
}

func TestSuccessAfterASignalIsSuccess(t *testing.T) {
	t.Parallel()
	c := startChild(t, command(t, "finisher", "archive_command"))
	c.signal(syscall.SIGTERM)
	if status, _, _ := c.end(t); status != 0 {
		t.Errorf("got %d, want 0", status)
	}
}

func TestIgnoredSignalsStayIgnored(t *testing.T) {
	t.Parallel()
	cmd := command(t, "tidy", "archive_command")
	cmd.Args = append([]string{"sh", "-c", `trap '' INT HUP; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	c := startChild(t, cmd)
	c.signal(syscall.SIGINT)
	c.signal(syscall.SIGHUP)
	c.signal(syscall.SIGTERM)
	status, stdout, _ := c.end(t)
	if status != 143 || stdout != "signalled\ncleaned up\n" {
		t.Errorf("got %d, %q, want 143 and a clean-up, as after SIGTERM alone", status, stdout)
	}
}

func TestFailoverSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			c := startChild(t, command(t, "tidy", "pg_standby"))
			c.signal(sig)
			status, _, _ := c.end(t)
			if got := c.stderr.String(); status != 1 || !strings.Contains(got, "failover") {
				t.Errorf("got %d, %q, want 1 and the failover", status, got)
			}
		})
	}
}

// A copy that hangs is not given up for a failover: what it restores would be
// lost. SIGTERM still ends it.
func TestFailoverSignalHasNoDeadline(t *testing.T) {
	t.Parallel()
	c := startChild(t, command(t, "stuck", "pg_standby"))
	c.signal(syscall.SIGUSR1)
	c.wantLine(t, "signalled")
	time.Sleep(50 * time.Millisecond) // so that a deadline would be over before the grace
	c.signal(syscall.SIGTERM)
	if status, _, took := c.end(t); status != 143 || took < grace {
		t.Errorf("got %d after %v, want 143 after the grace", status, took)
	}
}

func TestPanicIsNeverTheEndOfWAL(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"restore_command": 255, "pg_standby": 255, "archive_command": 1, "pg_archivecleanup": 1, "pitr": 1} {
		cmd := command(t, "panics", name)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if got := exitStatus(t, cmd.Run()); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
		if !strings.Contains(stderr.String(), "internal error: what a day; please report") || !strings.Contains(stderr.String(), "main_test.go") {
			t.Errorf("%s: got %q, want the panic and its stack", name, stderr.String())
		}
	}
}

func TestPanicInAnotherGoroutineIsNeverTheEndOfWAL(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"restore_command": -int(syscall.SIGABRT), "pg_standby": -int(syscall.SIGABRT), "archive_command": 2} {
		if got := exitStatus(t, command(t, "panicselsewhere", name).Run()); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

// brokenPipe is the end for writing of a pipe that nobody reads.
func brokenPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func TestLogThatNobodyReadsChangesNothing(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"archive_command": 0, "restore_command": 0, "pg_standby": 0, "pitr": -int(syscall.SIGPIPE)} {
		cmd := command(t, "talks", name)
		cmd.Stderr = brokenPipe(t)
		if got := exitStatus(t, cmd.Run()); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

// Nobody may take a list that is cut short for all there is.
func TestLostOutputIsAFailure(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, args := range [][]string{{"prints", "pitr"}, {"prints", "archive_command"}, {"pitr", "version"}, {"pitr", "--help"}} {
		cmd := command(t, args[0], args[1:]...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		if got := exitStatus(t, cmd.Run()); got != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: got %d, %q, want 1 and no space left", args, got, stderr.String())
		}
	}
}

// The logging collector hangs, the pipe is full, and PostgreSQL stops.
func TestFullLogDoesNotHoldTheEndUp(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd := command(t, "talks", "archive_command")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFull(t, r)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if got := exitStatus(t, cmd.Wait()); got != 143 {
		t.Errorf("got %d, want 143", got)
	}
}

// waitFull waits until nothing more goes into a pipe.
func waitFull(t *testing.T, r *os.File) {
	t.Helper()
	const capacity = 64 << 10
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		if err != nil || time.Now().After(end) {
			t.Fatalf("the pipe holds %d bytes, error %v", n, err)
		}
		if n > capacity-8<<10 {
			return
		}
	}
}

// The real ones, as they wait: for an archive out of reach, for a segment that
// is not there yet.
func TestWaitingAppletsEndOnSignals(t *testing.T) {
	dir := t.TempDir()
	restore := []string{"restore_command", "--archive=file://" + dir + "/none", "--debug", "000000010000000000000001", dir + "/out"}
	standby := []string{"pg_standby", "-d", dir, "000000010000000000000001", dir + "/out"}
	tests := []struct {
		args []string
		sig  syscall.Signal
		want int
	}{
		{restore, syscall.SIGTERM, 143},
		{restore, syscall.SIGQUIT, 131},
		{restore, syscall.SIGINT, 130},
		{standby, syscall.SIGTERM, 143},
		{standby, syscall.SIGQUIT, 131},
		{standby, syscall.SIGINT, 1},
		{standby, syscall.SIGUSR1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.args[0]+" "+signalName(tt.sig), func(t *testing.T) {
			t.Parallel()
			status, stderr := signalled(t, tt.args, tt.sig)
			if status != tt.want || strings.Contains(stderr, "goroutine") {
				t.Errorf("got %d, %s, want %d and no goroutines", status, stderr, tt.want)
			}
		})
	}
}

// signalled runs a command until it says something, and signals it then.
func signalled(t *testing.T, args []string, sig syscall.Signal) (status int, stderr string) {
	t.Helper()
	cmd := command(t, args[0], args[1:]...)
	cmd.Dir = t.TempDir()
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	first, _ := r.ReadString('\n')
	_ = cmd.Process.Signal(sig)
	rest, _ := io.ReadAll(r)
	return exitStatus(t, cmd.Wait()), first + string(rest)
}
