package fusefs

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errInterrupted says that the process which asked was interrupted, errLate that
// there was no answer for as long as it was to be waited for, and errClosed that this
// server has ended.
var (
	errLate        = errors.New("no answer yet")
	errInterrupted = errors.New("interrupted")
	errClosed      = errors.New("the mount was closed")
)

// life is how long a server works, and what it does in the background.
type life struct {
	ctx context.Context
	end context.CancelCauseFunc

	mu    sync.Mutex // guards ended; held while work begins
	ended bool
	work  sync.WaitGroup
}

func newLife() *life {
	ctx, end := context.WithCancelCause(context.Background())
	return &life{ctx: ctx, end: end}
}

// start does something in the background; false if everything has ended.
func (l *life) start(do func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.work.Go(do)
	return true
}

// stop ends the work, and waits for it until ctx ends.
func (l *life) stop(ctx context.Context) error {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.end(errClosed)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.work.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flight is one question that is being asked, for everybody who asks the same.
type flight[V any] struct {
	done  chan struct{} // closed when value and err are there
	value V
	err   error

	waiting int // guarded by flights.mu
}

// flights asks every question once at a time. The question goes on when those who
// asked it are interrupted: a program that is interrupted often, and asks again,
// gets its answer in the end.
type flights[K comparable, V any] struct {
	life *life
	// drop gets a value when everybody who asked has had it, or nobody wants
	// it any more. It may be nil.
	drop func(V)

	mu    sync.Mutex // guards under
	under map[K]*flight[V]
}

func newFlights[K comparable, V any](l *life, drop func(V)) *flights[K, V] {
	return &flights[K, V]{life: l, drop: drop, under: map[K]*flight[V]{}}
}

// do returns what ask returns, after use was made of it; use may be nil. Whoever is
// interrupted leaves at once.
func (f *flights[K, V]) do(cancel <-chan struct{}, key K, ask func(context.Context) (V, error), use func(V)) (V, error) {
	return f.doUntil(nil, cancel, key, ask, use)
}

// doUntil is do, but for so long: errLate then.
func (f *flights[K, V]) doUntil(late <-chan time.Time, cancel <-chan struct{}, key K, ask func(context.Context) (V, error), use func(V)) (V, error) {
	var none V
	one, ok := f.join(key, ask)
	if !ok {
		return none, errClosed
	}
	defer f.leave(one)
	select {
	case <-one.done:
	case <-cancel:
		return none, errInterrupted
	case <-late:
		return none, errLate
	case <-f.life.ctx.Done():
		return none, errClosed
	}
	if one.err == nil && use != nil {
		use(one.value)
	}
	return one.value, one.err
}

// begin asks in the background, unless somebody does already.
func (f *flights[K, V]) begin(key K, ask func(context.Context) (V, error)) {
	if one, ok := f.join(key, ask); ok {
		f.leave(one)
	}
}

func (f *flights[K, V]) join(key K, ask func(context.Context) (V, error)) (*flight[V], bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one, ok := f.under[key]; ok {
		one.waiting++
		return one, true
	}
	one := &flight[V]{done: make(chan struct{}), waiting: 2} // the one who asks, and the question itself
	if !f.life.start(func() { f.run(key, one, ask) }) {
		return nil, false
	}
	f.under[key] = one
	return one, true
}

func (f *flights[K, V]) run(key K, one *flight[V], ask func(context.Context) (V, error)) {
	one.value, one.err = ask(f.life.ctx)
	f.mu.Lock()
	delete(f.under, key)
	f.mu.Unlock()
	close(one.done)
	f.leave(one)
}

func (f *flights[K, V]) leave(one *flight[V]) {
	f.mu.Lock()
	one.waiting--
	last := one.waiting == 0
	f.mu.Unlock()
	if last && one.err == nil && f.drop != nil {
		f.drop(one.value)
	}
}
