package multicall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

const (
	// grace is how long an applet may clean up after a signal. Then the process
	// ends without it: a system call on a hung disk cannot be cancelled.
	grace = 2 * time.Second

	// echo is how long the same signal counts as the one that came already. An
	// applet gets it twice when systemd signals the control group and the
	// postmaster passes it on to its process groups.
	echo = 250 * time.Millisecond
)

// interrupted is the cause of a context that a signal ended.
type interrupted syscall.Signal

// Error names the signal as a shell does.
func (i interrupted) Error() string {
	return "ended by " + signalName(syscall.Signal(i))
}

// ExitStatus is what a shell makes of a death by the signal.
func (i interrupted) ExitStatus() int { return 128 + int(i) }

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGQUIT:
		return "SIGQUIT"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return s.String()
}

// supervise runs the applet under a context that ends with the first signal. It
// returns what the applet did, or the signal, whether the applet has ended or
// not: the process is expected to end then.
func supervise(a applet, c *call) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, a.signals()...)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- guarded(ctx, a, c) }()
	for {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			if slices.Contains(a.failover, s) {
				cancel(a.failoverCause)
				continue
			}
			sig := s.(syscall.Signal)
			cancel(interrupted(sig))
			return windDown(a, sig, done, signals)
		}
	}
}

// signals are those that reach the applet. SIGINT and SIGHUP do not if they
// were ignored at the start, as PostgreSQL and nohup arrange it.
func (a applet) signals() []os.Signal {
	all := append([]os.Signal{syscall.SIGTERM, syscall.SIGQUIT}, a.failover...)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP} {
		if !signal.Ignored(s) && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// windDown waits for the applet after a signal, but not for ever. Success is
// still success: what archive_command stored is stored.
func windDown(a applet, sig syscall.Signal, done <-chan error, signals <-chan os.Signal) error {
	began := time.Now()
	patience := time.NewTimer(grace)
	defer patience.Stop()
	for {
		select {
		case err := <-done:
			return endedBy(sig, err)
		case <-patience.C:
			return fmt.Errorf("%w, %v ago, and still busy", interrupted(sig), grace)
		case s := <-signals:
			repeated := s == sig && time.Since(began) < echo
			if !repeated && !slices.Contains(a.failover, s) {
				return interrupted(s.(syscall.Signal))
			}
		}
	}
}

// endedBy is the signal with what the applet said to it. The applet's own error
// is text only: its class must not decide the status.
func endedBy(sig syscall.Signal, err error) error {
	var said told
	switch {
	case err == nil, errors.Is(err, errDone):
		return err
	case errors.As(err, &said):
		return told(interrupted(sig).ExitStatus())
	case err == error(interrupted(sig)), errors.Is(err, context.Canceled):
		return interrupted(sig)
	case errors.Is(err, interrupted(sig)):
		return retold{interrupted(sig), err.Error()}
	}
	return fmt.Errorf("%w: %v", interrupted(sig), err)
}

// retold is an error under another text.
type retold struct {
	error
	text string
}

func (r retold) Error() string { return r.text }
func (r retold) Unwrap() error { return r.error }

// panicked is a panic of the applet's own goroutine.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string {
	return fmt.Sprintf("internal error: %v; please report this, with the lines below", p.value)
}

// Is makes it match errInternal.
func (p *panicked) Is(target error) bool { return target == errInternal }

// guarded runs the applet and turns a panic into an error: Go's own exit status
// for it is 2, which PostgreSQL takes for the end of WAL.
func guarded(ctx context.Context, a applet, c *call) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicked{v, debug.Stack()}
		}
	}()
	return a.run(ctx, c)
}

// crashBySignal makes a panic in some other goroutine, and the errors of Go's
// runtime that nothing can recover, end the process by SIGABRT instead of exit
// status 2: PostgreSQL then stops instead of opening the database.
func crashBySignal(a applet) {
	if a.column == colRestoreCommand || a.column == colPgStandby {
		debug.SetTraceback("crash")
	}
}

// ignoreBrokenPipes makes a log that nobody reads any more an error of write,
// which is ignored, instead of a signal. The admin tool dies quietly, as
// everything in a shell pipeline does.
func ignoreBrokenPipes(a applet) {
	if a.column != colPitr {
		signal.Ignore(syscall.SIGPIPE)
	}
}

// within waits for do, but not for ever: the log may be a pipe that is full.
func within(patience time.Duration, do func()) {
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(patience):
	}
}
