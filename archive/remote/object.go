package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/pkg/sftp"

	"pitr/archive/files"
)

const (
	// ahead is how far reading goes before it is asked to. A small file is read
	// whole at once.
	ahead = 4 << 20

	// mostHeld is how many bytes of a file are held at once, about.
	mostHeld = 8 << 20
)

// object is a file that is read ahead: chunks of it are asked for before
// somebody wants them. Goroutines may share it.
type object struct {
	ctx  context.Context
	f    *FS
	name string
	size int64
	step int64 // bytes of a chunk

	mu     sync.Mutex // guards what follows; not held while something is asked
	s      *session
	file   *sftp.File
	chunks map[int64]*chunk // by number
	closed bool
	// reopened: over another connection than the first one.
	reopened bool
}

// chunk is a part of a file.
type chunk struct {
	done chan nothing // closed when it is there
	data []byte
	err  error
}

var _ files.Object = (*object)(nil)

// opened is a file on the far side.
type opened struct {
	s    *session
	file *sftp.File
	info fs.FileInfo
}

func (o opened) close() {
	if o.file != nil {
		o.s.aside(func() { _ = o.file.Close() })
	}
}

// Open opens a regular file, and begins to read it.
func (f *FS) Open(ctx context.Context, name string) (files.Object, error) {
	o, err := again(ctx, f, func(s *session) (opened, error) { return f.open(s, name) }, opened.close)
	if err != nil {
		return nil, about("open", name, err)
	}
	at := &object{
		ctx: ctx, f: f, name: name, size: o.info.Size(), step: int64(o.s.chunk),
		s: o.s, file: o.file, chunks: map[int64]*chunk{},
	}
	switch {
	case at.size > ahead:
		at.mu.Lock()
		at.chunks[0] = at.ask(0)
		at.mu.Unlock()
	default:
		at.want(0, at.size)
	}
	return at, nil
}

// open opens a file, and asks for its size at the same time: by its name, for
// its handle is not known yet. What is stored never changes, and what is read is
// held against that size.
func (f *FS) open(s *session, name string) (opened, error) {
	o := opened{s: s}
	var statErr error
	asked := make(chan nothing)
	s.background(func() {
		defer close(asked)
		statErr = errLiar // unless it comes to an end
		o.info, statErr = s.stat(f.path(name))
	})
	file, err := s.client.Open(f.path(name))
	<-asked
	if err == nil && file == nil {
		err = errLiar
	}
	if err != nil {
		return opened{}, f.proven(s, name, err)
	}
	o.file = file
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		err = fmt.Errorf("%w: %s", errAppeared, name)
	case statErr != nil:
		err = unproven(statErr)
	case !o.info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case o.info.Size() < 0:
		err = fmt.Errorf("%w: a size of %d", errLiar, o.info.Size())
	}
	if err != nil {
		o.close()
		return opened{}, err
	}
	return o, nil
}

// readChunk reads up to n bytes. That the file ends earlier is no error.
func readChunk(file *sftp.File, at, n int64) ([]byte, error) {
	buf := make([]byte, n)
	got, err := file.ReadAt(buf, at)
	if errors.Is(err, io.EOF) && !isLost(err) {
		err = nil
	}
	return buf[:got], err
}

// Size is the size that the file had when it was opened.
func (o *object) Size() int64 { return o.size }

// ReadAt reads from the chunks, and sees to it that the next ones come.
func (o *object) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: negative offset", o.name)
	}
	want := min(int64(len(p)), max(0, o.size-off))
	o.want(off, want)
	read := 0
	for int64(read) < want {
		n, err := o.copyFrom(p[read:want], off+int64(read))
		read += n
		if err != nil {
			return read, about("read", o.name, err)
		}
	}
	if want < int64(len(p)) {
		return read, io.EOF
	}
	return read, nil
}

// want asks for the chunks of a range, and for some that follow it.
func (o *object) want(off, n int64) {
	if n <= 0 {
		return
	}
	first, last := off/o.step, (off+n-1)/o.step
	beyond := min(last+ahead/o.step, (o.size-1)/o.step)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.release(first, beyond)
	for i := first; i <= beyond; i++ {
		if o.chunks[i] == nil {
			o.chunks[i] = o.ask(i)
		}
	}
}

// release forgets chunks when there are many: those outside of what is wanted
// now.
func (o *object) release(first, last int64) {
	if int64(len(o.chunks))*o.step < mostHeld {
		return
	}
	for i := range o.chunks {
		if i < first || i > last {
			delete(o.chunks, i)
		}
	}
}

// ask fetches a chunk. The caller holds mu.
func (o *object) ask(i int64) *chunk {
	c := &chunk{done: make(chan nothing)}
	file := o.file
	o.s.background(func() {
		defer close(c.done)
		c.err = errLiar // unless it comes to an end
		n := min(o.step, o.size-i*o.step)
		if o.f.limiter != nil {
			if err := o.f.limiter.WaitN(o.ctx, int(n)); err != nil {
				c.err = err
				return
			}
		}
		c.data, c.err = readChunk(file, i*o.step, n)
	})
	return c
}

// copyFrom copies from the one chunk that begins at or before off.
func (o *object) copyFrom(p []byte, off int64) (int, error) {
	i := off / o.step
	c, s, err := o.chunk(i)
	if err != nil {
		return 0, err
	}
	select {
	case <-c.done:
	case <-o.ctx.Done():
		return 0, context.Cause(o.ctx)
	}
	if err := s.broken(c.err); errors.Is(err, ErrLost) {
		return 0, o.reopen(s, err)
	} else if err != nil {
		return 0, unproven(err)
	}
	skip := off - i*o.step
	if skip >= int64(len(c.data)) {
		return 0, fmt.Errorf("it ended at %d, and had %d bytes", i*o.step+int64(len(c.data)), o.size)
	}
	return copy(p, c.data[skip:]), nil
}

// chunk is a chunk that was asked for, and the session it comes over.
func (o *object) chunk(i int64) (*chunk, *session, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, nil, fs.ErrClosed
	}
	if o.chunks[i] == nil {
		o.chunks[i] = o.ask(i)
	}
	return o.chunks[i], o.s, nil
}

// reopen goes on over a new connection when the one of s broke, once. What is
// stored never changes, and what was read is verified as a whole.
func (o *object) reopen(s *session, lost error) error {
	o.f.forget(s)
	o.mu.Lock()
	may := o.s != s || !o.reopened
	o.mu.Unlock()
	if !may {
		return lost
	}
	return o.openAgain(s)
}

func (o *object) openAgain(s *session) error {
	now, err := again(o.ctx, o.f, func(s *session) (opened, error) {
		return o.f.open(s, o.name)
	}, opened.close)
	if err != nil {
		return unproven(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case now.info.Size() != o.size:
		now.close()
		return fmt.Errorf("it had %d bytes, and has %d now", o.size, now.info.Size())
	case o.s != s || o.closed: // somebody else was quicker
		now.close()
		return nil
	}
	o.s, o.file, o.chunks, o.reopened = now.s, now.file, map[int64]*chunk{}, true
	return nil
}

// Close closes the file; nothing can go wrong with one that was read.
func (o *object) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed, o.chunks = true, nil
		opened{s: o.s, file: o.file}.close()
	}
	return nil
}
