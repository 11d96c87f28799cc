package archive

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"pitr/archive/wal"
)

// Range is a run of segments of one timeline without a gap.
type Range struct {
	Timeline    wal.TimelineID
	First, Last wal.Name
	Segments    int
	Bytes       int64 // as stored
}

// Gap is WAL that ought to be there.
type Gap struct {
	Timeline    wal.TimelineID
	First, Last wal.Name // the first and the last missing segment
	Segments    int
}

// String says which segments are missing.
func (g Gap) String() string {
	if g.Segments == 1 {
		return fmt.Sprintf("%s is missing", g.First)
	}
	return fmt.Sprintf("%s to %s are missing (%d segments)", g.First, g.Last, g.Segments)
}

// Coverage is what an archive holds, as an operator thinks of it.
type Coverage struct {
	Ranges    []Range
	Gaps      []Gap
	Histories []wal.Name
	Partials  []wal.Name // each once
	// MissingHistories are those of timelines that are there, or are ancestors of
	// one: without them PostgreSQL does not find its way.
	MissingHistories []wal.Name
	Files            int
	Bytes            int64 // as stored
}

// Lacks tells whether a segment or a history that was stored at some time is not
// there, not as .partial either. What is older than everything that is there may
// have been pruned: it is not lacking, unless nothing is there at all.
func (c Coverage) Lacks(n wal.Name) bool {
	if n.Kind() == wal.KindHistory {
		return !slices.Contains(c.Histories, n)
	}
	if slices.Contains(c.Partials, n.Partial()) {
		return false
	}
	newer := len(c.Ranges) == 0
	for _, r := range c.Ranges {
		from, to, at := position(r.First), position(r.Last), position(n)
		if r.Timeline == n.Timeline() && from <= at && at <= to {
			return false
		}
		newer = newer || from <= at
	}
	return newer
}

// Coverage lists the archive and tells which WAL it holds and which it lacks:
// between two segments of a timeline, on the way along each history from the
// oldest WAL that is there, and what was set aside and not stored again.
func (a *Archive) Coverage(ctx context.Context) (Coverage, error) {
	return answer(ctx, a, func(ctx context.Context) (Coverage, error) {
		v, err := a.openConfirmed(ctx)
		if err != nil {
			return Coverage{}, err
		}
		entries, err := v.list(ctx)
		if err != nil {
			return Coverage{}, err
		}
		return v.coverage(ctx, entries)
	})
}

func (v view) coverage(ctx context.Context, entries []Entry) (Coverage, error) {
	var c Coverage
	for _, e := range entries {
		info, err := e.Info()
		if isAbsent(err) {
			continue // removed since
		}
		if err != nil {
			return Coverage{}, fmt.Errorf("%s: %w", e.Name, err)
		}
		c.Files++
		c.Bytes += info.Size()
		switch e.Name.Kind() {
		case wal.KindHistory:
			c.Histories = append(c.Histories, e.Name)
		case wal.KindPartial:
			if !slices.Contains(c.Partials, e.Name) {
				c.Partials = append(c.Partials, e.Name)
			}
		case wal.KindSegment:
			c.addSegment(e.Name, info.Size(), v.id.SegmentSize)
		}
	}
	return c, v.lacking(ctx, &c)
}

// addSegment extends the last range, or begins one.
func (c *Coverage) addSegment(n wal.Name, bytes int64, size wal.SegmentSize) {
	number, err := n.Number(size)
	if err != nil {
		return
	}
	if len(c.Ranges) > 0 {
		r := &c.Ranges[len(c.Ranges)-1]
		if last, _ := r.Last.Number(size); r.Timeline == n.Timeline() && number == last+1 {
			r.Last, r.Segments, r.Bytes = n, r.Segments+1, r.Bytes+bytes
			return
		}
	}
	c.Ranges = append(c.Ranges, Range{Timeline: n.Timeline(), First: n, Last: n, Segments: 1, Bytes: bytes})
}

// lacking finds the gaps: what is needed and not there.
func (v view) lacking(ctx context.Context, c *Coverage) error {
	n := needs{size: v.id.SegmentSize, coverage: c, spans: map[wal.TimelineID][]span{}}
	n.between()
	for _, name := range c.Histories {
		h, err := v.history(ctx, name.Timeline())
		if errors.Is(err, ErrDamaged) || isAbsent(err) {
			c.MissingHistories = append(c.MissingHistories, name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n.along(h)
	}
	aside, err := v.asides(ctx)
	if err != nil {
		return err
	}
	n.setAside(aside)
	n.histories()
	c.Gaps = n.gaps()
	return nil
}

// asides are the files in quarantine.
func (v view) asides(ctx context.Context) ([]wal.Name, error) {
	entries, err := v.store.List(ctx, path.Join(v.id.top(), quarantineDirectory))
	if err != nil && !isAbsent(err) {
		return nil, err
	}
	var names []wal.Name
	for _, e := range entries {
		stored, _ := cutAside(e.Name())
		raw, _ := strings.CutSuffix(stored, v.id.Codec.suffix())
		if n, err := wal.ParseName(raw); err == nil {
			names = append(names, n)
		}
	}
	return names, nil
}
