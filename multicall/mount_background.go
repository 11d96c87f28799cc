package multicall

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// readyLine is what the child in the background says when it is mounted. No line of
// a log is like it.
const readyLine = "\x06\n"

// detach mounts in a child which holds nothing of ours, and returns when it is mounted. What the child says until then, errors too, is for
// our standard error, and if it fails its status is ours.
func (m mounting) detach(ctx context.Context) error {
	cmd, said, err := m.child()
	if err != nil {
		return classed{err, errNoChild}
	}
	defer said.Close()
	// Told to end, we take the child along: nobody would know of it.
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if m.relay(said) {
		return cmd.Process.Release()
	}
	err = cmd.Wait()
	switch status := shellStatus(err); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case status != 0:
		return told(status)
	}
	return errors.New("the child in the background has ended before it was mounted")
}

// shellStatus is a child's, as a shell has it.
func shellStatus(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return exit.ExitCode()
}

// child starts the process that will serve. What it says comes out of the pipe.
func (m mounting) child() (*exec.Cmd, *os.File, error) {
	words, err := m.words()
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	if err := closeOnExec(); err != nil {
		return nil, nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	cmd := &exec.Cmd{
		Path: self, Args: words, Dir: "/", Env: m.call.environ,
		Stdin: null, Stdout: null, Stderr: w,
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, r.Close())
	}
	return cmd, r, nil
}

// words are the command line of the child, which works in another directory.
func (m mounting) words() ([]string, error) {
	flags, err := m.flags.absolute()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(m.dir)
	if err != nil {
		return nil, err
	}
	words := append([]string{"pitr", "mount", "--background"}, m.source.words()...)
	return append(append(words, flags.words()...), "--", dir), nil
}

// relay passes on what the child says, until it is ready. It is false if it never
// was.
func (m mounting) relay(said io.Reader) (ready bool) {
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		if line == readyLine {
			return true
		}
		// Its lines begin with its name, which may not be that of our applet.
		_, _ = io.WriteString(m.call.stderr, m.renamed(line))
		if err != nil {
			return false
		}
	}
}

func (m mounting) renamed(line string) string {
	if rest, ours := strings.CutPrefix(line, "pitr: "); ours {
		return m.call.name + ": " + rest
	}
	return line
}

// serveBehind is the child: its standard error is the pipe until it is mounted, and
// then the log.
func (m mounting) serveBehind(ctx context.Context) error {
	point, err := realDirectory(m.dir)
	if err != nil {
		return missing(err, m.dir)
	}
	if m.flags.Log != "" {
		if err := ownPlace("the log", m.flags.Log, point, "--log FILE (log=FILE in fstab)"); err != nil {
			return err
		}
	}
	later, file, err := m.openLog()
	if err != nil {
		return err
	}
	defer file.Close()
	now := &junction{to: os.Stderr}
	m.call.stderr, m.call.log = now, slog.New(newLineHandler(now, m.call.name, m.call.level))
	ready := func() error {
		now.turn(later)
		// Only now a session of its own: an automount lets nobody near the mount
		// point before it is mounted but the process group that was told to do it.
		if _, err := unix.Setsid(); err != nil {
			m.call.log.Warn("it has no session of its own, and may end with its caller's", "reason", err)
		}
		_, err := io.WriteString(os.Stderr, readyLine)
		// What Go or a library writes there by itself goes to the log as well. The
		// pipe is closed by this: who waits for us may read to its end.
		return errors.Join(err, unix.Dup3(int(file.Fd()), int(os.Stderr.Fd()), 0))
	}
	return m.serve(ctx, herald{ready: ready, stopping: func() {}})
}
