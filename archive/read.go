package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// copyBuffer is how many bytes move at a time where nothing is compressed.
const copyBuffer = 256 << 10

// copyRaw copies src to w until its end or that of ctx.
func copyRaw(ctx context.Context, w io.Writer, src io.Reader) error {
	buf := make([]byte, copyBuffer)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// asDamage makes the codec's finding the archive's.
func asDamage(err error) error {
	if errors.Is(err, codec.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// read is verified for a file that is not open yet.
func (v view) read(ctx context.Context, name wal.Name, w io.Writer) error {
	f, err := v.store.Open(ctx, v.id.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return v.verified(ctx, name, f, w)
}

// verified writes the raw content of a stored file to w and verifies it: nil
// says that it is what its name says and what was stored; ErrDamaged that it is
// not. Only then is what was written of use.
func (v view) verified(ctx context.Context, name wal.Name, f Object, w io.Writer) error {
	c := v.newChecker(ctx, name, f)
	if err := v.contents(ctx, f, io.MultiWriter(w, c)); err != nil {
		return err
	}
	return c.finish()
}

// contents writes the raw content, verified against the stored digest if the
// form has one.
func (v view) contents(ctx context.Context, f Object, w io.Writer) error {
	w = io.MultiWriter(v.watch, w)
	if v.id.Codec == None {
		return copyRaw(ctx, w, io.NewSectionReader(f, 0, f.Size()))
	}
	r, err := codec.NewReader(f, f.Size())
	if err == nil {
		err = r.Decode(ctx, w)
	}
	return asDamage(err)
}

// checker sees the raw bytes of a file pass and tells in the end whether they
// are what the name says.
type checker struct {
	view   view
	name   wal.Name
	head   []byte
	length int64
	walker *walker // nil where a stored digest vouches for the records
}

func (v view) newChecker(ctx context.Context, name wal.Name, f Object) *checker {
	c := &checker{view: v, name: name}
	if v.id.Codec == None && hasRecords(name) {
		c.walker = newWalkerFor(name, v.id.SegmentSize)
		c.walker.opts.Tail = v.tailBefore(ctx, name, f)
	}
	return c
}

func hasRecords(name wal.Name) bool {
	return name.Kind() == wal.KindSegment || name.Kind() == wal.KindPartial
}

// headLimit is enough for the header of a segment and the whole of a small
// file.
func (c *checker) headLimit() int {
	if hasRecords(c.name) {
		return wal.HeaderLen
	}
	return largestSmallFile
}

func (c *checker) Write(p []byte) (int, error) {
	c.length += int64(len(p))
	if room := c.headLimit() - len(c.head); room > 0 {
		c.head = append(c.head, p[:min(room, len(p))]...)
	}
	if c.walker != nil {
		return c.walker.Write(p)
	}
	return len(p), nil
}

func (c *checker) finish() error {
	var err error
	switch c.name.Kind() {
	case wal.KindHistory:
		_, err = wal.ParseHistory(c.name.Timeline(), c.head)
	case wal.KindBackup:
		err = wal.CheckBackupLabel(c.name, c.head)
	default:
		err = wal.CheckSegment(c.name, c.head, c.length, c.view.expect())
	}
	if err == nil && c.walker != nil {
		err = c.judge(c.walker.finish())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// judge decides what the walk over a raw segment proves. WAL that ends inside
// it looks like a lost tail; only a partial segment ends so by nature.
func (c *checker) judge(w wal.Walk) error {
	switch {
	case w.Status == wal.Complete:
		return nil
	case w.Status == wal.Ended && (c.name.Kind() == wal.KindPartial || c.view.opts.GapIsEnd):
		return nil
	case w.Status == wal.Ended:
		return hinted{
			fmt.Errorf("its WAL ends at %s: %s", w.End, w.Reason),
			"the rest was lost, or this is a .partial renamed by hand: then restore_gap: end takes it",
		}
	}
	return fmt.Errorf("at %s: %s", w.End, w.Reason)
}

// tailBefore finds how the record begins that crosses into this segment, from
// the segment before it, so that its checksum can be verified. nil where
// nothing crosses, or where that segment is not to be had: then the part of
// the record in this segment stays unverified.
func (v view) tailBefore(ctx context.Context, name wal.Name, f Object) *wal.Tail {
	head := make([]byte, wal.HeaderLen)
	if n, _ := f.ReadAt(head, 0); n < len(head) {
		return nil
	}
	header, err := wal.ParsePageHeader(head)
	if err != nil || header.RemainingLen == 0 {
		return nil
	}
	number, err := name.Number(v.id.SegmentSize)
	if err != nil || number == 0 {
		return nil
	}
	for _, before := range v.candidatesBefore(ctx, name.Timeline(), number) {
		if tail, err := v.tailOf(ctx, before); err == nil {
			return tail
		}
	}
	return nil
}

// candidatesBefore are the names under which the segment before number may lie
// in the line of descent of a timeline: its own, and those of ancestors that it
// had not left by then.
func (v view) candidatesBefore(ctx context.Context, tli wal.TimelineID, number wal.SegmentNumber) []wal.Name {
	size := v.id.SegmentSize
	names := []wal.Name{wal.SegmentName(tli, number-1, size)}
	h, err := v.history(ctx, tli)
	if err != nil {
		return names
	}
	for i := len(h.Entries) - 1; i >= 0; i-- {
		if size.Start(number) <= h.Entries[i].Switch {
			names = append(names, wal.SegmentName(h.Entries[i].Timeline, number-1, size))
		}
	}
	return names
}

func (v view) tailOf(ctx context.Context, name wal.Name) (*wal.Tail, error) {
	f, err := v.store.Open(ctx, v.id.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := newWalkerFor(name, v.id.SegmentSize)
	if err := v.contents(ctx, f, w); err != nil {
		return nil, err
	}
	walk := w.finish()
	if walk.Status != wal.Complete {
		return nil, fmt.Errorf("%s: %w", name, ErrDamaged)
	}
	return walk.Tail, nil
}

// history reads a history file of the archive.
func (v view) history(ctx context.Context, tli wal.TimelineID) (wal.History, error) {
	var text limitedBuffer
	if err := v.read(ctx, wal.HistoryName(tli), &text); err != nil {
		return wal.History{}, err
	}
	return wal.ParseHistory(tli, text.b)
}

// limitedBuffer keeps a small file and refuses a large one.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > largestSmallFile {
		return 0, fmt.Errorf("larger than %d bytes: %w", largestSmallFile, ErrDamaged)
	}
	l.b = append(l.b, p...)
	return len(p), nil
}
