package fusefs

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"syscall"

	"pitr/archive"
	"pitr/archive/wal"
)

// largeFiles are the large segments that are open, each once for all its readers.
type largeFiles struct {
	source  *source
	opening *flights[storedFile, *largeFile]

	mu   sync.Mutex // guards open, and the users of each
	open map[storedFile]*largeFile
}

func newLargeFiles(s *source) *largeFiles {
	l := &largeFiles{source: s, open: map[storedFile]*largeFile{}}
	l.opening = newFlights[storedFile](s.life, (*largeFile).release)
	return l
}

// get opens a large segment, for reading it in parts; nil if that cannot be done,
// but it can be fetched whole. The caller releases it.
func (l *largeFiles) get(cancel <-chan struct{}, name wal.Name, seen sight) (f *largeFile, errno syscall.Errno) {
	key := storedFile{name, seen.stamp}
	l.mu.Lock()
	if f = l.open[key]; f != nil {
		f.users++
	}
	l.mu.Unlock()
	if f != nil {
		return f, 0
	}
	errno = l.source.insist(cancel, name.String(), func() (err error) {
		f, err = l.opening.do(cancel, key, func(context.Context) (*largeFile, error) {
			return l.begin(key, seen.size)
		}, func(f *largeFile) { f.hold() })
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	})
	if errno == syscall.ENOENT {
		errno = syscall.ESTALE
	}
	return f, errno
}

func (l *largeFiles) begin(key storedFile, size int64) (*largeFile, error) {
	random, err := l.source.Archives.OpenAt(l.source.life.ctx, key.name)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &largeFile{files: l, storedFile: key, sum: random.SHA256(), random: random, size: size, users: 1}
	l.open[key] = f
	return f, nil
}

// largeFile is a large segment that is open.
type largeFile struct {
	files *largeFiles
	storedFile
	sum    [sha256.Size]byte
	random *archive.Random
	size   int64

	users int // guarded by files.mu

	mu   sync.Mutex // guards next
	next int64      // where a reader in sequence goes on
}

// hold is one use more; false if it was closed.
func (f *largeFile) hold() bool {
	f.files.mu.Lock()
	defer f.files.mu.Unlock()
	if f.users == 0 {
		return false
	}
	f.users++
	return true
}

// release ends a use.
func (f *largeFile) release() {
	f.files.mu.Lock()
	f.users--
	last := f.users == 0
	if last && f.files.open[f.storedFile] == f {
		delete(f.files.open, f.storedFile)
	}
	f.files.mu.Unlock()
	if last {
		_ = f.random.Close() // it was only read
	}
}

// read reads verified bytes.
func (f *largeFile) read(cancel <-chan struct{}, buf []byte, off int64) (n int, errno syscall.Errno) {
	for n < len(buf) && off+int64(n) < f.size {
		part, errno := f.part(cancel, off+int64(n))
		if errno != 0 {
			return 0, errno
		}
		n += copy(buf[n:], part.Bytes[off+int64(n)-part.Offset:])
	}
	f.goOn(off, off+int64(n))
	return n, 0
}

func (f *largeFile) part(cancel <-chan struct{}, off int64) (part archive.Part, errno syscall.Errno) {
	s := f.files.source
	key := f.key(off)
	if part, ok := s.parts.get(key); ok {
		return part, 0
	}
	errno = s.insist(cancel, f.name.String(), func() (err error) {
		part, err = s.parts.flights.do(cancel, key, f.fetch(off), nil)
		return err
	})
	if errno == syscall.ENOENT {
		errno = syscall.EIO // it was removed while it is read
	}
	return part, errno
}

// key is that of the part which holds a byte.
func (f *largeFile) key(off int64) partKey { return partKey{f.sum, f.random.Begin(off)} }

// fetch returns what reads a part.
func (f *largeFile) fetch(off int64) func(context.Context) (archive.Part, error) {
	return func(ctx context.Context) (archive.Part, error) {
		if !f.hold() {
			return archive.Part{}, errClosed
		}
		defer f.release()
		p := f.files.source.parts
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return archive.Part{}, errClosed
		}
		defer func() { <-p.slots }()
		ctx, stop := context.WithTimeout(ctx, patience)
		defer stop()
		part, err := f.random.PartAt(ctx, off)
		if errors.Is(err, io.EOF) {
			err = archive.ErrDamaged // it is shorter than it was
		}
		if err == nil {
			p.put(partKey{f.sum, part.Offset}, part)
			f.files.source.health.fetchedBytes.Add(int64(len(part.Bytes)))
		}
		return part, err
	}
}

// goOn reads ahead of who reads on where the last read ended.
func (f *largeFile) goOn(from, to int64) {
	f.mu.Lock()
	sequence := from == 0 || from <= f.next && f.next < to
	if sequence {
		f.next = to
	}
	f.mu.Unlock()
	if !sequence || from == 0 && to < f.size/1024 {
		return // the header only, perhaps
	}
	p := f.files.source.parts
	for off := to; off < min(f.size, to+partsAhead<<20); off += 1 << 20 {
		if _, ok := p.get(f.key(off)); !ok {
			p.flights.begin(f.key(off), f.fetch(off))
		}
	}
}
