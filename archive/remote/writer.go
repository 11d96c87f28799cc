package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

// How many bytes of files are on their way at once, in one connection: at least a
// few packets, and at most what SSH's window of a channel lets through.
const (
	leastUnanswered = 512 << 10
	mostUnanswered  = 2 << 20
)

// swiftest is a line, in bytes a second, that shall be kept busy.
const swiftest = 100 << 20

// unanswered is how many bytes fill the line to a server so far away. What comes
// before the server can write it lies in sshd, which copies all that it holds
// each time that it makes its buffer larger.
func unanswered(roundTrip time.Duration) int {
	return min(max(leastUnanswered, int(swiftest*roundTrip.Seconds())), mostUnanswered)
}

// allow lets so many bytes more be on their way.
func (s *session) allow(bytes int) {
	for range bytes / s.chunk {
		s.room <- nothing{}
	}
}

// writer is a new file being written. Packets are sent ahead of their answers.
// One goroutine uses it.
type writer struct {
	ctx  context.Context
	f    *FS
	s    *session
	file *sftp.File
	name string

	buf []byte // not sent yet
	at  int64  // where it goes

	mu    sync.Mutex // guards what follows
	taken int64      // bytes that the server has acknowledged
	err   error      // the first one
	sent  sync.WaitGroup
}

func newWriter(ctx context.Context, f *FS, s *session, file *sftp.File, name string) *writer {
	return &writer{
		ctx: ctx, f: f, s: s, file: file, name: name,
		buf: f.spare.take(s.chunk),
	}
}

// setMode gives the file its access while it is being written. A server that
// does not let us decides about it by itself.
func (w *writer) setMode(mode fs.FileMode) {
	w.sent.Go(func() {
		_, err := wait(w.ctx, w.s, func(*session) (nothing, error) { return nothing{}, w.file.Chmod(mode) }, nil)
		if err != nil && !errors.Is(err, fs.ErrPermission) && !isUnsupported(err) {
			w.fail(err)
		}
	})
}

// Write sends what fills a packet. An error may be that of an earlier Write.
func (w *writer) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		n := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		if len(w.buf) < cap(w.buf) {
			break
		}
		if err := w.send(); err != nil {
			return all - len(p), err
		}
	}
	return all, nil
}

// send sends the buffer, when there is room for one more packet on the way.
func (w *writer) send() error {
	if err := w.failed(); err != nil {
		return err
	}
	if w.f.limiter != nil {
		if err := w.f.limiter.WaitN(w.ctx, len(w.buf)); err != nil {
			// It says so ahead of time: nothing may have ended yet.
			return about("write", w.name, cmp.Or(context.Cause(w.ctx), fmt.Errorf("rate_limit: %w", err)))
		}
	}
	select {
	case <-w.s.room:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	chunk, at := w.buf, w.at
	w.at += int64(len(chunk))
	w.buf = w.f.spare.take(w.s.chunk)
	w.sent.Go(func() {
		_, err := wait(w.ctx, w.s, func(*session) (int, error) { return w.file.WriteAt(chunk, at) }, nil)
		w.took(chunk, err)
		w.s.room <- nothing{}
	})
	return nil
}

// took notes the answer to a packet. Its buffer is used again only if there was
// one: otherwise it may still be read.
func (w *writer) took(chunk []byte, err error) {
	if err != nil {
		w.fail(err)
		return
	}
	w.mu.Lock()
	w.taken += int64(len(chunk))
	w.mu.Unlock()
	w.f.spare.put(chunk)
}

// fail notes the first error.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err == nil {
		return nil
	}
	if isFailure(err) {
		_, err = wait(w.ctx, w.s, func(s *session) (nothing, error) { return nothing{}, w.f.failure(s, err) }, nil)
	}
	return about("write", w.name, unproven(err))
}

// Sync sends the rest, waits for every answer, and has the server sync the file.
func (w *writer) Sync() error {
	if len(w.buf) > 0 {
		if err := w.send(); err != nil {
			return err
		}
	}
	w.sent.Wait()
	if err := w.failed(); err != nil {
		return err
	}
	// Whatever else may go wrong above: what is synced is all of it.
	if len(w.buf) > 0 || w.acknowledged() != w.at {
		return about("write", w.name, fmt.Errorf("%d of %d bytes were acknowledged", w.acknowledged(), w.at+int64(len(w.buf))))
	}
	if !w.s.sync {
		return w.f.mustSync(w.s)
	}
	_, err := wait(w.ctx, w.s, func(*session) (nothing, error) { return nothing{}, w.file.Sync() }, nil)
	return about("sync", w.name, unproven(err))
}

func (w *writer) acknowledged() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.taken
}

// Close closes the file. After it was synced nothing can fail any more, and
// nobody waits; otherwise this is where a server says that its disk is full.
func (w *writer) Close() error {
	w.sent.Wait()
	if w.buf != nil {
		w.f.spare.put(w.buf)
		w.buf = nil
	}
	err := w.failed()
	if w.s.sync {
		w.s.aside(func() { _ = w.file.Close() })
		return err
	}
	_, closing := wait(w.ctx, w.s, func(*session) (nothing, error) { return nothing{}, w.file.Close() }, nil)
	return errors.Join(err, about("close", w.name, unproven(closing)))
}

// spares keeps buffers for packets from one file to the next.
type spares struct {
	mu   sync.Mutex // guards bufs
	bufs [][]byte
}

// mostSpared is how many bytes are kept: what two files have on their way.
const mostSpared = 2 * mostUnanswered

// take returns an empty buffer of a size.
func (s *spares) take(size int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.bufs); n > 0; n = len(s.bufs) {
		b := s.bufs[n-1]
		s.bufs = s.bufs[:n-1]
		if cap(b) == size {
			return b
		}
	}
	return make([]byte, 0, size)
}

// put keeps a buffer that nobody reads any more.
func (s *spares) put(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.bufs) < mostSpared/cap(b) {
		s.bufs = append(s.bufs, b[:0])
	}
}
