package multicall

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pitr/archive/wal"
	"pitr/backup/pg"
)

// forkWatch looks for a second server that archives where this one does: a timeline
// that is not this server's past and gets new segments.
type forkWatch struct {
	seen  map[string]map[wal.TimelineID]wal.Name // by archive, at the last look
	grown map[fork]growth
}

type fork struct {
	archive  string
	timeline wal.TimelineID
}

type growth struct {
	newest wal.Name
	at     time.Time // of the look that saw it; zero: it is not wrong
}

// forkQuiet is after how long without a new segment a timeline has ended.
const forkQuiet = time.Hour

func newForkWatch() *forkWatch {
	return &forkWatch{seen: map[string]map[wal.TimelineID]wal.Name{}, grown: map[fork]growth{}}
}

// look takes the newest segment of each timeline in an archive. What the first look
// finds may be old.
func (f *forkWatch) look(archive string, newest map[wal.TimelineID]wal.Name, ours lineage, now time.Time) {
	before, looked := f.seen[archive]
	f.seen[archive] = newest
	if !looked {
		return
	}
	for timeline, name := range newest {
		was, known := before[timeline]
		if known && wal.CompareArchiving(name, was) <= 0 || !ours.parted(name) {
			continue
		}
		f.grown[fork{archive, timeline}] = growth{name, now}
	}
}

// conditions are the timelines that have grown since they were seen first.
func (f *forkWatch) conditions(ours wal.TimelineID, now time.Time) []condition {
	var all []condition
	for which, g := range f.grown {
		c := condition{
			kind: fmt.Sprintf("timeline %d", which.timeline), destination: which.archive, file: g.newest.String(),
			level: warning,
			text: fmt.Sprintf("archive %s: timeline %d grows, up to %s, and this server is on timeline %d: two servers archive there. Fence one of them",
				which.archive, which.timeline, g.newest, ours),
		}
		if now.Sub(g.at) >= forkQuiet || which.timeline == ours {
			c.level, c.text = fine, fmt.Sprintf("archive %s: timeline %d does not grow any more", which.archive, which.timeline)
		}
		all = append(all, c)
	}
	return all
}

// end forgets everything, for this server does not write any more: whoever does is
// the only one.
func (f *forkWatch) end() []condition {
	var all []condition
	for which := range f.grown {
		all = append(all, condition{
			kind: fmt.Sprintf("timeline %d", which.timeline), destination: which.archive,
			text: fmt.Sprintf("archive %s: this server does not write beside timeline %d any more", which.archive, which.timeline),
		})
	}
	*f = *newForkWatch()
	return all
}

// lineage is where a server comes from.
type lineage struct {
	timeline wal.TimelineID
	history  wal.History // of the timeline; empty: not known, or there is none
	size     wal.SegmentSize
}

// parted tells whether a segment is one that a server of this lineage neither wrote
// nor came from: it begins at or after the point where the histories part.
func (l lineage) parted(n wal.Name) bool {
	if n.Timeline() == l.timeline {
		return false
	}
	left, ancestor := l.history.SwitchOf(n.Timeline())
	switch {
	case !ancestor && len(l.history.Entries) == 0:
		return n.Timeline() > l.timeline // those below may be ancestors
	case !ancestor:
		return true
	}
	start, err := n.Start(l.size)
	return err == nil && start >= left
}

// lineageOf is that of the server in a data directory. false unless it is one that
// writes: a standby follows whoever does, and so will a server that is not running.
func lineageOf(pgdata string) (lineage, bool) {
	p, err := pg.ReadPostmaster(pgdata)
	if err != nil || !lives(p, pgdata) || p.Stopping {
		return lineage{}, false
	}
	c, err := wal.ReadControl(pgdata)
	if err != nil || c.State != wal.InProduction {
		return lineage{}, false
	}
	// Until the first checkpoint after a promotion pg_control names the new
	// timeline only here.
	l := lineage{timeline: max(c.Timeline, c.MinRecoveryTimeline), size: c.SegmentSize}
	text, err := os.ReadFile(filepath.Join(pgdata, "pg_wal", wal.HistoryName(l.timeline).String()))
	if err == nil {
		l.history, err = wal.ParseHistory(l.timeline, text)
	}
	if err != nil {
		l.history = wal.History{}
	}
	return l, true
}
