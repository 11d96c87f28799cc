package archive

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

// grace is what a call gets after its end to clean up.
const grace = 500 * time.Millisecond

// within runs a call that may hang in the system, where nothing can cancel it,
// and comes back shortly after ctx has ended in any case. The call is left
// behind then; what it may still do is harmless, because nothing of it was
// acknowledged and its temporary names are its own.
func within(ctx context.Context, call func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- guarded(func() error { return call(ctx) }) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
		return fmt.Errorf("%w: %w", errNoAnswer, context.Cause(ctx))
	}
}

// guarded makes an error of a panic, which must not end the process with status
// 2: that tells PostgreSQL that its recovery is over.
func guarded(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v\n%s", p, debug.Stack())
		}
	}()
	return call()
}

// stallWatch ends a context when nothing was delivered for a while.
type stallWatch struct {
	timer    *time.Timer
	patience time.Duration
	cancel   context.CancelCauseFunc
}

func watchStall(ctx context.Context, patience time.Duration) (context.Context, *stallWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := fmt.Errorf("not a byte for %s", patience)
	return ctx, &stallWatch{time.AfterFunc(patience, func() { cancel(over) }), patience, cancel}
}

func (s *stallWatch) stop() {
	s.timer.Stop()
	s.cancel(nil)
}

// Write sees bytes pass: the wait begins anew.
func (s *stallWatch) Write(p []byte) (int, error) {
	s.timer.Reset(s.patience)
	return len(p), nil
}
