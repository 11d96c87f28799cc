package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

// session is one connection. It is used until it breaks, and then never again.
type session struct {
	client *sftp.Client
	links  *links
	// sync, link, space: whether the server offers them.
	sync, link, space bool
	chunk             int           // bytes of content in one packet
	room              chan nothing  // filled with what may be sent: one for each packet with content
	patience          time.Duration // ssh_timeout
	steps             []Step

	lost  chan struct{} // closed when the connection has ended
	cause error         // why; set before lost is closed

	rootMu sync.Mutex // guards rootIs; held over one question
	rootIs fs.FileInfo

	listings listings
	arrived  *counter

	asides asides
}

// asides are requests whose answers nobody needs, and which are to be sent
// before the connection is closed.
type asides struct {
	mu   sync.Mutex // guards what follows
	n    int
	idle chan nothing // closed when n becomes 0; nil: nobody waits
}

// aside sends a request whose answer nobody needs.
func (s *session) aside(ask func()) {
	s.asides.add(1)
	s.background(func() {
		defer s.asides.add(-1)
		ask()
	})
}

// background runs what may be left behind. The library may panic over a server
// that lies.
func (s *session) background(run func()) {
	go func() {
		defer func() { _ = recover() }() // whoever waits for run has a way to see it
		run()
	}()
}

func (a *asides) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n += n
	if a.n == 0 && a.idle != nil {
		close(a.idle)
		a.idle = nil
	}
}

// done is closed when no request is under way.
func (a *asides) done() <-chan nothing {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle == nil {
		a.idle = make(chan nothing)
	}
	idle := a.idle
	if a.n == 0 {
		close(a.idle)
		a.idle = nil
	}
	return idle
}

// Step is a part of making a connection, and how long it took.
type Step struct {
	Name string
	Took time.Duration
}

// Connection is what a connection took, and what the server offers.
type Connection struct {
	Steps []Step
	// Syncs, Links, Space: whether it can sync, make hard links, and tell how
	// much is free. Without Links, a rename has to do.
	Syncs, Links, Space bool
}

// Connection connects, unless that is done.
func (f *FS) Connection(ctx context.Context) (Connection, error) {
	s, err := f.session(ctx)
	if err != nil {
		return Connection{}, err
	}
	return Connection{s.steps, s.sync, s.link, s.space}, nil
}

// attempt is a connection in the making.
type attempt struct {
	done chan struct{}
	err  error // set before done is closed
	// cancel ends it: nobody wants it any more.
	cancel context.CancelCauseFunc
	// own: it ended because the one who made it lost interest.
	own bool
}

// session returns the connection, and makes it if there is none.
func (f *FS) session(ctx context.Context) (*session, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		f.mu.Lock()
		s, a := f.live, f.dialling
		if s == nil && a == nil && !f.closed {
			dialling, cancel := context.WithCancelCause(ctx)
			a = &attempt{done: make(chan struct{}), cancel: cancel}
			f.dialling = a
			f.mu.Unlock()
			defer cancel(nil)
			return f.connect(dialling, a)
		}
		closed := f.closed
		f.mu.Unlock()
		switch {
		case closed:
			return nil, fs.ErrClosed
		case s != nil:
			return s, nil
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if a.err != nil && !a.own {
			return nil, a.err
		}
	}
}

// connect makes the connection for everybody who waits for a.
func (f *FS) connect(ctx context.Context, a *attempt) (*session, error) {
	s, err := f.dial(ctx)
	f.mu.Lock()
	late := err == nil && f.closed
	if err == nil && !late {
		f.live = s
	}
	f.dialling = nil
	f.mu.Unlock()
	if late {
		err = errors.Join(fs.ErrClosed, s.close())
	}
	a.err, a.own = err, ctx.Err() != nil
	close(a.done)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// forget stops using a connection that broke.
func (f *FS) forget(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == s {
		f.live = nil
	}
}

// connected returns the connection only if there is one.
func (f *FS) connected() (*session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == nil {
		return nil, ErrLost
	}
	return f.live, nil
}

// Close ends the connection. What is under way fails.
func (f *FS) Close() error {
	f.mu.Lock()
	s, a := f.live, f.dialling
	f.live, f.closed = nil, true
	f.mu.Unlock()
	if a != nil {
		a.cancel(fs.ErrClosed)
		<-a.done
	}
	if s == nil {
		return nil
	}
	s.settle(closeGrace)
	return s.close()
}

// closeGrace is how long closing waits for what nobody asked the answer of.
const closeGrace = 300 * time.Millisecond

// settle waits for the requests that nobody waited for.
func (s *session) settle(most time.Duration) {
	select {
	case <-s.asides.done():
	case <-s.lost:
	case <-time.After(most):
	}
}

func (s *session) close() error { return s.links.close() }

// watch notes the end of the connection.
func (s *session) watch() {
	err := s.client.Wait()
	// What an external program said is worth more than that it ended.
	for _, why := range []error{s.close(), s.links.why()} {
		if why != nil {
			err = why
		}
	}
	s.cause = err
	close(s.lost)
}

// broken tells whether the connection has ended, a moment after an operation
// failed that way.
func (s *session) broken(err error) error {
	if !isLost(err) {
		return err
	}
	select {
	case <-s.lost:
	case <-time.After(closeGrace):
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	if s.cause == nil {
		return ErrLost
	}
	return fmt.Errorf("%w: %w", ErrLost, s.cause)
}

// again runs an operation that may be repeated: over a new connection if the
// one that was there turns out to be broken.
func again[T any](ctx context.Context, f *FS, op func(*session) (T, error), late func(T)) (T, error) {
	for try := 0; ; try++ {
		s, err := f.session(ctx)
		if err != nil {
			var none T
			return none, err
		}
		v, err := wait(ctx, s, op, late)
		switch {
		case errors.Is(err, ErrLost):
			f.forget(s)
		case !errors.Is(err, errAppeared):
			return v, err
		}
		if try > 0 {
			return v, err
		}
	}
}

// once runs an operation that goes on with something over the connection that
// there is.
func once[T any](ctx context.Context, f *FS, op func(*session) (T, error)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	s, err := f.connected()
	if err != nil {
		return none, err
	}
	v, err := wait(ctx, s, op, nil)
	if errors.Is(err, ErrLost) {
		f.forget(s)
	}
	return v, err
}

// wait runs an operation until it is done or ctx ends. late gets a result that
// nobody waited for.
func wait[T any](ctx context.Context, s *session, op func(*session) (T, error), late func(T)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	type result struct {
		v   T
		err error
	}
	began, heard := time.Now(), s.arrived.all.Load()
	done := make(chan result, 1)
	go func() {
		// What the library makes of a server that lies may be a panic.
		defer func() {
			if p := recover(); p != nil {
				done <- result{none, fmt.Errorf("%w: %v\n%s", errLiar, p, debug.Stack())}
			}
		}()
		v, err := op(s)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, s.broken(r.err)
	case <-ctx.Done():
	}
	go func() {
		if r := <-done; r.err == nil && late != nil {
			late(r.v)
		}
	}()
	if s.arrived.all.Load() == heard && time.Since(began) >= s.patience {
		// Its sshd may live, and answer keepalives: whoever is behind it does
		// not. The next operation has a connection of its own.
		s.background(func() { _ = s.close() })
	}
	return none, context.Cause(ctx)
}
