package prefetch

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"pitr/archive"
)

// segment is one that is fetched, or was.
type segment struct {
	cancel context.CancelFunc
	byteAt atomic.Int64  // when the last byte came, in ns since 1970
	done   chan struct{} // closed when what follows is settled
	file   *os.File      // nil: it did not work
	from   string
}

// wait waits until a segment is settled, or no byte of it has come for a while. When
// ctx ends, its cause.
func (s *segment) wait(ctx context.Context, patience time.Duration) error {
	for {
		still := time.NewTimer(time.Until(time.Unix(0, s.byteAt.Load()).Add(patience)))
		select {
		case <-s.done:
			still.Stop()
			return nil
		case <-ctx.Done():
			still.Stop()
			return context.Cause(ctx)
		case <-still.C:
		}
		if time.Since(time.Unix(0, s.byteAt.Load())) >= patience {
			return nil
		}
	}
}

// fetch has a file fetched into a place of its own. byteAt is told when a byte came,
// if it is not nil.
func (r *Reader) fetch(w *way, byteAt *atomic.Int64, from func(archive.Set, archive.Deliver) (string, error)) (*os.File, string, error) {
	var l landing
	to := w.use(r.Connect)
	where, err := from(to.Archives, func(write func(io.Writer) error) error {
		f, err := r.Place()
		if err != nil {
			return err
		}
		if err := write(watched(f, byteAt)); err != nil {
			return errors.Join(err, f.Close())
		}
		return l.put(f)
	})
	w.back(to, err)
	return l.take(err), where, err
}

// watched is a file that takes note of when it is written to.
func watched(f *os.File, byteAt *atomic.Int64) io.Writer {
	if byteAt == nil {
		return f
	}
	return &clocked{f, byteAt}
}

type clocked struct {
	*os.File
	at *atomic.Int64
}

func (c *clocked) Write(p []byte) (int, error) {
	c.at.Store(time.Now().UnixNano())
	return c.File.Write(p)
}

// landing is where a fetch leaves its file. One that hung in the system, and was
// left behind, may come late.
type landing struct {
	mu   sync.Mutex // guards what follows
	file *os.File
	over bool
}

func (l *landing) put(f *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return errors.Join(errors.New("nobody waits for it any more"), f.Close())
	}
	l.file = f
	return nil
}

// take returns the file of a fetch that worked.
func (l *landing) take(err error) *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if err != nil && l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
	return l.file
}
