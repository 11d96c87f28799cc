package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// Random reads parts of one segment, each verified before it is returned. It takes
// each part from the first archive that has a good copy of it; a copy is good only if
// all of it is the same as that which was opened first. Goroutines may share it.
type Random struct {
	name wal.Name
	ctx  context.Context // of everything that is open
	set  Set

	mu     sync.Mutex // guards the rest
	open   []*copyOf  // by archive; nil until it is needed
	digest codec.Digest
	uses   int // parts being read, by calls that were left behind too
	closed bool
}

// copyOf is a segment open in one archive.
type copyOf struct {
	file   Object
	reader *codec.Reader
}

// OpenAt opens a segment for reading parts of it, for as long as ctx lives. It
// matches errors.ErrUnsupported if an archive that has the segment stores it raw:
// then only the whole of it can be verified, and Fetch does that. Other errors are
// as Stat has them, and ErrDamaged.
func (s Set) OpenAt(ctx context.Context, name wal.Name) (*Random, error) {
	r := &Random{name: name, ctx: ctx, set: s, open: make([]*copyOf, len(s))}
	_, err := first(ctx, s, func(_ context.Context, a *Archive) (*copyOf, error) {
		return r.copyIn(a)
	})
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// copyIn opens the copy in an archive.
func (r *Random) copyIn(a *Archive) (*copyOf, error) {
	i := slices.Index(r.set, a)
	r.mu.Lock()
	c := r.open[i]
	r.mu.Unlock()
	if c != nil {
		return c, nil
	}
	c, err := a.openAt(r.ctx, r.name)
	if !errors.Is(err, errors.ErrUnsupported) {
		a.report(err)
	}
	if err != nil {
		return nil, a.named(fmt.Errorf("%s: %w", r.name, err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[i] != nil { // somebody else was faster
		return r.open[i], c.file.Close()
	}
	digest := c.reader.Digest()
	switch {
	case r.closed:
		err = errRandomClosed
	case r.digest == codec.Digest{}:
		r.digest = digest
	case r.digest != digest:
		err = a.named(fmt.Errorf("%s: %w: it has other content than the copy that was opened first", r.name, ErrDamaged))
	}
	if err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	r.open[i] = c
	return c, nil
}

// errRandomClosed is what a call gets that was left behind.
var errRandomClosed = errors.New("it was closed meanwhile")

// SHA256 is that of the whole file, as it was stored.
func (r *Random) SHA256() [sha256.Size]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.digest.SHA256
}

func (a *Archive) openAt(ctx context.Context, name wal.Name) (*copyOf, error) {
	v, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	f, err := v.store.Open(ctx, v.id.path(name))
	if isAbsent(err) {
		if err = v.proveNotThere(ctx, name); errors.Is(err, errAppeared) {
			f, err = v.store.Open(ctx, v.id.path(name))
		}
	}
	if isAbsent(err) {
		err = errors.New(err.Error())
	}
	if err != nil {
		return nil, err
	}
	if v.id.Codec == None {
		return nil, errors.Join(errors.ErrUnsupported, f.Close())
	}
	c, err := v.newCopy(name, f)
	if err != nil {
		return nil, errors.Join(asDamage(err), f.Close())
	}
	return c, nil
}

// newCopy looks at the tail and at the first page.
func (v view) newCopy(name wal.Name, f Object) (*copyOf, error) {
	r, err := codec.NewReader(f, f.Size())
	if err != nil {
		return nil, err
	}
	if err := v.mayHave(name, r.Digest().Length); err != nil {
		return nil, err
	}
	head := make([]byte, wal.HeaderLen)
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := wal.CheckSegment(name, head, r.Digest().Length, v.expect()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &copyOf{f, r}, nil
}

// Part is a piece of a segment.
type Part struct {
	Offset int64
	Bytes  []byte
}

// Begin tells where the part begins that holds the byte at off.
func (r *Random) Begin(off int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		if c != nil {
			f, _ := c.reader.FrameAt(off)
			return f.Offset
		}
	}
	return 0
}

// PartAt returns the part that holds the byte at off: verified, or an error. It is
// io.EOF behind the end.
func (r *Random) PartAt(ctx context.Context, off int64) (Part, error) {
	return first(ctx, r.set, func(ctx context.Context, a *Archive) (p Part, err error) {
		got := make(chan Part, 1)
		if !r.enter() {
			return Part{}, errRandomClosed
		}
		err = within(ctx, func(context.Context) error {
			defer r.leave()
			part, err := r.partIn(a, off)
			got <- part
			return err
		})
		if err != nil {
			return Part{}, err
		}
		return <-got, nil
	})
}

func (r *Random) partIn(a *Archive, off int64) (Part, error) {
	c, err := r.copyIn(a)
	if err != nil {
		return Part{}, err
	}
	f, ok := c.reader.FrameAt(off)
	if !ok {
		return Part{}, io.EOF
	}
	raw, err := c.reader.ReadFrame(f, nil)
	if err != nil {
		a.report(err)
		return Part{}, a.named(fmt.Errorf("%s: %w", r.name, asDamage(err)))
	}
	return Part{f.Offset, raw}, nil
}

// enter notes that a part is being read; false after Close.
func (r *Random) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.uses++
	}
	return !r.closed
}

func (r *Random) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses--; r.closed && r.uses == 0 {
		_ = r.closeAll() // it was only read, and nobody is there to be told
	}
}

// Close gives up what is open. What a call reads that was left behind is given up
// when that ends.
func (r *Random) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed = true; r.uses > 0 {
		return nil
	}
	return r.closeAll()
}

// closeAll closes every copy. mu is held.
func (r *Random) closeAll() error {
	var err error
	for i, c := range r.open {
		if c != nil {
			err = errors.Join(err, c.file.Close())
			r.open[i] = nil
		}
	}
	return err
}
