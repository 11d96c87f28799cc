package archive

import (
	"cmp"
	"slices"

	"pitr/archive/wal"
)

// span is a run of segments, both ends included.
type span struct{ first, last wal.SegmentNumber }

// needs works out which segments an archive ought to hold, by timeline, so that
// a recovery gets from the oldest WAL that is there to the end of every
// timeline.
type needs struct {
	size     wal.SegmentSize
	coverage *Coverage
	spans    map[wal.TimelineID][]span
}

// need adds a run, without what is older than everything that is there: that
// was pruned.
func (n *needs) need(tli wal.TimelineID, first, last wal.SegmentNumber) {
	if oldest, ok := n.oldest(); ok && max(first, oldest) <= last {
		n.spans[tli] = append(n.spans[tli], span{max(first, oldest), last})
	}
}

func (n *needs) oldest() (oldest wal.SegmentNumber, ok bool) {
	for _, r := range n.coverage.Ranges {
		if first, _ := r.First.Number(n.size); !ok || first < oldest {
			oldest, ok = first, true
		}
	}
	return oldest, ok
}

// held is the run from the first to the last segment of a timeline that is
// there.
func (n *needs) held(tli wal.TimelineID) (all span, ok bool) {
	for _, r := range n.coverage.Ranges {
		if r.Timeline != tli {
			continue
		}
		first, _ := r.First.Number(n.size)
		last, _ := r.Last.Number(n.size)
		if !ok {
			all, ok = span{first, last}, true
		}
		all = span{min(all.first, first), max(all.last, last)}
	}
	return all, ok
}

// between needs everything between the segments of a timeline.
func (n *needs) between() {
	for _, r := range n.coverage.Ranges {
		if all, ok := n.held(r.Timeline); ok {
			n.need(r.Timeline, all.first, all.last)
		}
	}
}

// along needs every ancestor of a history from where it began to where it was
// left, and the timeline itself from where it began. The segment in which a
// timeline is left is needed of its heir, which has a copy of the beginning. Of
// a timeline without any segment nothing is needed yet: it may just have begun.
func (n *needs) along(h wal.History) {
	begin := wal.LSN(0)
	for _, e := range h.Entries {
		if end := n.size.SegmentOf(e.Switch); end > 0 {
			n.need(e.Timeline, n.size.SegmentOf(begin), end-1)
		}
		begin = e.Switch
	}
	if all, ok := n.held(h.Timeline); ok {
		n.need(h.Timeline, n.size.SegmentOf(begin), all.last)
	}
}

// setAside needs what lies in quarantine.
func (n *needs) setAside(names []wal.Name) {
	for _, name := range names {
		number, err := name.Number(n.size)
		switch {
		case name.Kind() == wal.KindSegment && err == nil:
			n.need(name.Timeline(), number, number)
		case name.Kind() == wal.KindHistory:
			n.history(name)
		}
	}
}

// histories needs that of every timeline after the first that is there.
func (n *needs) histories() {
	for _, r := range n.coverage.Ranges {
		n.history(wal.HistoryName(r.Timeline))
	}
	for tli := range n.spans {
		n.history(wal.HistoryName(tli))
	}
	slices.SortFunc(n.coverage.MissingHistories, compareNames)
}

func (n *needs) history(name wal.Name) {
	c := n.coverage
	if name.Timeline() > 1 && !slices.Contains(c.Histories, name) && !slices.Contains(c.MissingHistories, name) {
		c.MissingHistories = append(c.MissingHistories, name)
	}
}

// gaps is what is needed and not there, by timeline and place.
func (n *needs) gaps() []Gap {
	var gaps []Gap
	for tli, spans := range n.spans {
		for _, s := range n.without(tli, merged(spans)) {
			gaps = append(gaps, Gap{
				Timeline: tli, First: wal.SegmentName(tli, s.first, n.size), Last: wal.SegmentName(tli, s.last, n.size),
				Segments: int(s.last - s.first + 1),
			})
		}
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return compareNames(a.First, b.First) })
	return gaps
}

// merged joins runs that overlap or touch.
func merged(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var joined []span
	for _, s := range spans {
		if k := len(joined); k > 0 && s.first <= joined[k-1].last+1 {
			joined[k-1].last = max(joined[k-1].last, s.last)
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// without takes out of runs what is there.
func (n *needs) without(tli wal.TimelineID, spans []span) []span {
	var missing []span
	for _, s := range spans {
		for _, r := range n.coverage.Ranges {
			first, _ := r.First.Number(n.size)
			last, _ := r.Last.Number(n.size)
			if r.Timeline != tli || last < s.first || first > s.last {
				continue
			}
			if first > s.first {
				missing = append(missing, span{s.first, first - 1})
			}
			s.first = last + 1
		}
		if s.first <= s.last {
			missing = append(missing, s)
		}
	}
	return missing
}
