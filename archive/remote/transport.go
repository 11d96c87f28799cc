package remote

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// links are what a session's connection consists of, closed in one go.
type links struct {
	once sync.Once
	err  error

	mu      sync.Mutex // guards what follows
	closers []func() error
	closed  bool
	reason  error
}

// add has something closed with the rest, before what was added earlier; at
// once, if the rest is closed.
func (l *links) add(close func() error) {
	l.mu.Lock()
	late := l.closed
	l.closers = append(l.closers, close)
	l.mu.Unlock()
	if late {
		_ = close() // why the rest was closed counts
	}
}

// close closes everything, the last one first. That something was closed
// already is no error.
func (l *links) close() error {
	l.once.Do(func() {
		l.mu.Lock()
		closers := l.closers
		l.closed = true
		l.mu.Unlock()
		for i := len(closers) - 1; i >= 0; i-- {
			if err := closers[i](); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				l.err = errors.Join(l.err, err)
			}
		}
	})
	return l.err
}

// fail closes everything for a reason.
func (l *links) fail(reason error) {
	l.mu.Lock()
	if l.reason == nil {
		l.reason = reason
	}
	l.mu.Unlock()
	_ = l.close() // the reason counts
}

func (l *links) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason
}

// quickConn is a TCP connection that acknowledges at once. The kernel would wait
// up to 40 ms for data to go along with an acknowledgement, and the other side,
// which uses Nagle's algorithm, waits for it.
type quickConn struct {
	net.Conn
	r   *bufio.Reader   // the greeting is read byte by byte
	raw syscall.RawConn // nil: not TCP

	moved atomic.Int64 // bytes read and written
}

func newQuickConn(c net.Conn) *quickConn {
	q := &quickConn{Conn: c}
	q.r = bufio.NewReaderSize(readerFunc(q.read), 512)
	if tcp, ok := c.(*net.TCPConn); ok {
		q.raw, _ = tcp.SyscallConn() // without it there is only less speed
	}
	q.acknowledge()
	return q
}

// acknowledge asks for quick acknowledgements. The kernel forgets it now and
// then, so it is asked again after each read (tcp(7)).
func (q *quickConn) acknowledge() {
	if q.raw == nil {
		return
	}
	_ = q.raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // as above
	})
}

// Read reads.
func (q *quickConn) Read(p []byte) (int, error) { return q.r.Read(p) }

// readerFunc is a function that reads.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// read reads, and notes that the other side lives.
func (q *quickConn) read(p []byte) (int, error) {
	n, err := q.Conn.Read(p)
	q.moved.Add(int64(n))
	q.acknowledge()
	return n, err
}

// Write writes, and notes that the other side takes it.
func (q *quickConn) Write(p []byte) (int, error) {
	n, err := q.Conn.Write(p)
	q.moved.Add(int64(n))
	return n, err
}

// keepAlive ends the connection when nothing has moved for as long as timeout,
// although a sign of life was asked for. ask returns when it was given. The
// question itself moves, so it takes one and a half times as long at most. It
// returns when lost is closed.
func (q *quickConn) keepAlive(ask func(), fail func(error), timeout time.Duration, lost <-chan struct{}) {
	tick := time.NewTicker(max(timeout/8, time.Millisecond))
	defer tick.Stop()
	is := silence{moved: q.moved.Load(), since: time.Now()}
	for {
		select {
		case <-lost:
			return
		case <-tick.C:
		}
		switch is.next(q.moved.Load(), time.Now(), timeout) {
		case askNow:
			go func() { ask(); is.answered.Store(true) }()
		case giveUp:
			fail(fmt.Errorf("the host has been silent for %s", timeout))
			return
		}
	}
}

// silence is for how long nothing has moved, and whether somebody was asked.
type silence struct {
	moved    int64
	since    time.Time
	asked    time.Time   // zero: nobody was
	answered atomic.Bool // since asked
}

// what keepAlive does next.
const (
	keepWaiting = iota
	askNow
	giveUp
)

// next decides. It gives up only a while after it has asked: this process may
// have been stopped meanwhile.
func (s *silence) next(moved int64, now time.Time, timeout time.Duration) int {
	if s.answered.Swap(false) {
		s.asked = time.Time{}
	}
	idle := now.Sub(s.since)
	switch {
	case moved != s.moved:
		s.moved, s.since = moved, now
	case !s.asked.IsZero() && idle >= timeout && now.Sub(s.asked) >= timeout/2:
		return giveUp
	case s.asked.IsZero() && idle >= timeout/2:
		s.asked = now
		return askNow
	}
	return keepWaiting
}
