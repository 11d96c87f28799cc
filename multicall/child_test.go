package multicall

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lifetime is how long a child may live. None lives as long, however busy the
// machine is.
const lifetime = time.Minute

// command is a run of this test binary under one of the names of TestMain. It
// sees nothing of the environment that the tests were started in, and it is
// killed when its time or the test is over.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary(t, name), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GORACE=" + os.Getenv("GORACE"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// binary is the path of this test binary under one of the names of TestMain.
func binary(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, name); strings.Contains(dir, "testscript-main") {
			return path
		}
	}
	t.Fatal("TestMain has not set PATH up")
	return ""
}

// catchIgnored lets children start with SIGINT and SIGHUP at their defaults,
// also under nohup and in the background of a script: what this process ignores
// they would inherit, what it catches they do not. Nobody reads the signals, so
// this process still ignores them.
func catchIgnored() {
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}

// child is a run of one of the bad applets that has said "ready".
type child struct {
	*exec.Cmd
	out       *bufio.Reader
	stderr    bytes.Buffer
	signalled time.Time // when the first signal was sent
}

func startChild(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{Cmd: cmd}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out, c.Stderr = bufio.NewReader(out), &c.stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.wantLine(t, "ready")
	return c
}

// wantLine waits until the child says something.
func (c *child) wantLine(t *testing.T, want string) {
	t.Helper()
	if line, err := c.out.ReadString('\n'); line != want+"\n" {
		t.Fatalf("got %q, %v, want %s", line, err, want)
	}
}

func (c *child) signal(sig syscall.Signal) {
	if c.signalled.IsZero() {
		c.signalled = time.Now()
	}
	_ = c.Process.Signal(sig)
}

// end is the status that the child ends with, what it printed that was not read
// yet, and how long that took since the first signal.
func (c *child) end(t *testing.T) (status int, stdout string, took time.Duration) {
	t.Helper()
	rest, err := io.ReadAll(c.out)
	if err != nil {
		t.Fatal(err)
	}
	return exitStatus(t, c.Wait()), string(rest), time.Since(c.signalled)
}

// exitStatus is the status as a shell shows it, but -N for death by signal N.
func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		t.Fatal(err)
	}
	if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
		return -int(ws.Signal())
	}
	return exit.ExitCode()
}
