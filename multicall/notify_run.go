package multicall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive/local"
)

// runNotifier is the supervisor of one alert: it runs the command, cuts it off
// when its time is over, and leaves nothing running. It always ends with 0, and
// by no signal that it can catch. In a container the postmaster is PID 1 and
// adopts it; a child of the postmaster that dies badly makes PostgreSQL restart
// every session.
func runNotifier(environ []string) (status int) {
	defer func() { _ = recover() }()
	signals := make(chan os.Signal, 64)
	// Caught, not ignored: what is ignored the command would inherit.
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGCHLD)
	var a alert
	if json.Unmarshal([]byte(getenv(environ, notifierVariable)), &a) != nil || len(a.Words) == 0 {
		return 0
	}
	a.note(a.run(environ, signals))
	return 0
}

// run runs the command and returns why it failed.
func (a alert) run(environ []string, signals <-chan os.Signal) error {
	// What the command leaves behind becomes ours to find and to end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	cmd := exec.Command(a.Words[0], a.Words[1:]...)
	for _, kv := range environ {
		if !strings.HasPrefix(kv, notifierVariable+"=") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	b := brood{leader: cmd.Process.Pid}
	return b.outlive(a.Patience, signals)
}

// brood is the command and everything that came from it.
type brood struct {
	leader int
	ended  bool // the leader, with status
	status syscall.WaitStatus
}

const (
	// lastWords is how long those are waited for that were killed: one that
	// hangs in the system does not die.
	lastWords = 5 * time.Second

	// round is how often the killed are looked through: each one's children
	// become ours when it is gone.
	round = 20 * time.Millisecond
)

// outlive waits until nobody of the brood is left, and kills whoever is after
// patience. It reports what became of the leader.
func (b *brood) outlive(patience time.Duration, signals <-chan os.Signal) error {
	over := time.NewTimer(patience)
	defer over.Stop()
	for !b.gone() {
		select {
		case s := <-signals:
			if s == syscall.SIGCHLD || s == syscall.SIGPIPE {
				continue
			}
			b.kill()
			return fmt.Errorf("cut off: the supervisor got %s", signalName(s.(syscall.Signal)))
		case <-over.C:
			finished := b.ended
			b.kill()
			if finished {
				return errors.Join(b.verdict(), fmt.Errorf("what it left running was ended after %s", patience))
			}
			return fmt.Errorf("cut off after %s", patience)
		}
	}
	return b.verdict()
}

func (b *brood) verdict() error {
	switch {
	case b.status.Signaled():
		return fmt.Errorf("killed by signal %d", b.status.Signal())
	case b.status.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", b.status.ExitStatus())
	}
	return nil
}

// gone reaps whoever has ended, and tells whether nobody is left.
func (b *brood) gone() bool {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return true
		case pid == 0:
			return false
		case pid == b.leader:
			b.ended, b.status = true, status
		}
	}
}

// kill ends the brood. Only what was not reaped is signalled, so that no number
// can belong to somebody else by now.
func (b *brood) kill() {
	deadline := time.Now().Add(lastWords)
	for !b.gone() && time.Now().Before(deadline) {
		if !b.ended {
			_ = syscall.Kill(-b.leader, syscall.SIGKILL)
		}
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(round)
	}
}

// children are the processes whose parent this one is.
func children() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PPID ...; the name may hold anything.
		_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
		fields := strings.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// note writes down what the alert came to if it failed, and clears an older note
// if not. There is nobody to tell if that fails too.
func (a alert) note(err error) {
	if err == nil {
		_, _ = os.Remove(a.Report), os.Remove(a.Report+toldSuffix)
		return
	}
	text, err := json.Marshal(failure{Event: a.Event, Time: time.Now().UTC(), Reason: err.Error()})
	if err != nil {
		return
	}
	_ = local.Handover(a.Report)(func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}
