package archive

import (
	"context"
	"fmt"
	"slices"

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
	Files     int
	Bytes     int64 // as stored
}

// Lacks tells whether a segment or a history that was stored at some time is not
// there. What is older than everything that is there may have been pruned: it
// is not lacking, unless nothing is there at all.
func (c Coverage) Lacks(n wal.Name) bool {
	if n.Kind() == wal.KindHistory {
		return !slices.Contains(c.Histories, n)
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
// between two segments of a timeline, and between a timeline's last segment
// and the point where a descendant left it.
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
		if err != nil {
			return Coverage{}, fmt.Errorf("%s: %w", e.Name, err)
		}
		c.Files++
		c.Bytes += info.Size()
		switch e.Name.Kind() {
		case wal.KindHistory:
			c.Histories = append(c.Histories, e.Name)
		case wal.KindSegment:
			c.addSegment(e.Name, info.Size(), v.id.SegmentSize)
		}
	}
	c.Gaps = append(c.Gaps, v.forkGaps(ctx, c)...)
	return c, nil
}

// addSegment extends the last range, or begins one after a gap.
func (c *Coverage) addSegment(n wal.Name, bytes int64, size wal.SegmentSize) {
	number, err := n.Number(size)
	if err != nil {
		return
	}
	if len(c.Ranges) > 0 {
		r := &c.Ranges[len(c.Ranges)-1]
		last, _ := r.Last.Number(size)
		switch {
		case r.Timeline != n.Timeline():
		case number == last+1:
			r.Last, r.Segments, r.Bytes = n, r.Segments+1, r.Bytes+bytes
			return
		default:
			c.Gaps = append(c.Gaps, missing(n.Timeline(), last+1, number-1, size))
		}
	}
	c.Ranges = append(c.Ranges, Range{Timeline: n.Timeline(), First: n, Last: n, Segments: 1, Bytes: bytes})
}

func missing(tli wal.TimelineID, first, last wal.SegmentNumber, size wal.SegmentSize) Gap {
	return Gap{
		Timeline: tli, First: wal.SegmentName(tli, first, size), Last: wal.SegmentName(tli, last, size),
		Segments: int(last - first + 1),
	}
}

// forkGaps finds timelines that end before a descendant left them. The segment
// of the fork itself is not missed: the descendant has a copy of it.
func (v view) forkGaps(ctx context.Context, c Coverage) []Gap {
	size := v.id.SegmentSize
	var gaps []Gap
	ends := map[wal.TimelineID]wal.SegmentNumber{}
	for _, r := range c.Ranges {
		ends[r.Timeline], _ = r.Last.Number(size)
	}
	for _, name := range c.Histories {
		h, err := v.history(ctx, name.Timeline())
		if err != nil || len(h.Entries) == 0 {
			continue // Verify reports a history that cannot be read
		}
		parent := h.Entries[len(h.Entries)-1]
		end, known := ends[parent.Timeline]
		fork := size.SegmentOf(parent.Switch)
		if known && end+1 < fork {
			gaps = append(gaps, missing(parent.Timeline, end+1, fork-1, size))
			ends[parent.Timeline] = fork - 1
		}
	}
	return gaps
}
