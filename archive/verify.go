package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"pitr/archive/wal"
)

// Finding is one thing that is wrong in an archive.
type Finding struct {
	Name wal.Name
	// Err matches ErrDamaged for a file that is not what was stored, and ErrGap
	// for one that is missing. Anything else could not be looked at.
	Err error
}

// Checked counts what Verify looked at.
type Checked struct {
	Files    int
	Segments int
	RawBytes int64
	Damaged  int
	Missing  int // segments and histories
	Unread   int
}

// Verify reads every file to its end: stored digests, headers, every record of
// every segment with those that cross from one segment into the next, histories,
// and gaps. report gets each finding at once; progress is called after each
// file with how many of how many are done. The error is for an archive that
// cannot be looked at; findings are not errors.
func (a *Archive) Verify(ctx context.Context, report func(Finding), progress func(done, of int)) (sum Checked, err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openConfirmed(ctx)
	if err != nil {
		return Checked{}, err
	}
	entries, err := v.list(ctx)
	if err != nil {
		return Checked{}, err
	}
	run := verification{view: v, report: report}
	for i, e := range entries {
		if ctx.Err() != nil {
			return run.sum, context.Cause(ctx)
		}
		run.file(ctx, e)
		progress(i+1, len(entries))
	}
	return run.sum, run.gaps(ctx, entries)
}

// verification is one run of Verify.
type verification struct {
	view
	report func(Finding)
	sum    Checked
	// tail is how the record begins that crosses out of the segment last.
	last wal.Name
	tail *wal.Tail
}

func (r *verification) file(ctx context.Context, e Entry) {
	r.sum.Files++
	seen, err := r.examine(ctx, e, r.tailFor(ctx, e.Name))
	r.sum.RawBytes += seen.bytes
	if e.Name.Kind() == wal.KindSegment {
		r.sum.Segments++
		r.last, r.tail = e.Name, seen.walk.Tail
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, ErrDamaged):
		r.sum.Damaged++
	default:
		r.sum.Unread++
	}
	r.report(Finding{Name: e.Name, Err: err})
}

// examined is what was seen of a file that was read to its end.
type examined struct {
	bytes int64 // raw
	walk  wal.Walk
}

// examine reads a file to its end. ErrDamaged if it is not what was stored, or
// if it is a segment whose records are not sound: a recovery ends there.
func (v view) examine(ctx context.Context, e Entry, tail *wal.Tail) (examined, error) {
	k := newWalkerFor(e.Name, v.id.SegmentSize)
	k.opts.Tail = tail
	var n counter
	err := v.read(ctx, e.Name, e.Stored, io.MultiWriter(&n, k))
	seen := examined{int64(n), k.finish()}
	if e.Name.Kind() == wal.KindSegment && err == nil && seen.walk.Status != wal.Complete {
		err = fmt.Errorf("%w: stored as it was pushed, but its records are not sound: at %s: %s", ErrDamaged, seen.walk.End, seen.walk.Reason)
	}
	return seen, err
}

// Examine reads one file to its end, as Verify does: nil says that it is sound.
func (a *Archive) Examine(ctx context.Context, name wal.Name) (err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openConfirmed(ctx)
	if err != nil {
		return err
	}
	one := verification{view: v}
	_, err = v.examine(ctx, Entry{Name: name, Stored: v.id.path(name)}, one.tailFor(ctx, name))
	if isAbsent(err) {
		err = fmt.Errorf("%s: %w", name, ErrAbsent)
	}
	return err
}

// tailFor is the tail of the segment before, which was looked at last unless
// a timeline begins here. That it cannot be had is no finding of this file.
func (r *verification) tailFor(ctx context.Context, name wal.Name) *wal.Tail {
	number, err := name.Number(r.id.SegmentSize)
	if err != nil || number == 0 || !hasRecords(name) {
		return nil
	}
	if r.last == wal.SegmentName(name.Timeline(), number-1, r.id.SegmentSize) {
		return r.tail
	}
	tail, err := r.tailInto(ctx, name, longestCrossing)
	if err != nil {
		return nil
	}
	return tail
}

func (r *verification) gaps(ctx context.Context, entries []Entry) error {
	c, err := r.coverage(ctx, entries)
	if err != nil {
		return err
	}
	for _, g := range c.Gaps {
		r.sum.Missing += g.Segments
		r.report(Finding{Name: g.First, Err: fmt.Errorf("%w: %s", ErrGap, g)})
	}
	for _, h := range c.MissingHistories {
		r.sum.Missing++
		r.report(Finding{Name: h, Err: fmt.Errorf("%w: its timeline is there", ErrGap)})
	}
	return nil
}

// counter counts bytes.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
