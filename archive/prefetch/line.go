package prefetch

import (
	"io"
	"os"
	"pitr/archive/wal"
)

// line is which timelines a recovery may go along.
type line struct {
	size wal.SegmentSize
	// history is the last one that PostgreSQL was given; Timeline 0: none yet.
	history wal.History
}

// at are the names under which PostgreSQL asks for a segment after one of timeline
// tli, in its order: XLogFileReadAnyTLI in xlogrecovery.c begins with the newest
// timeline that had begun by then, and never goes back to an older one.
func (l line) at(tli wal.TimelineID, n wal.SegmentNumber) []wal.Name {
	var names []wal.Name
	if _, is := l.history.SwitchOf(tli); is || l.history.Timeline == tli {
		entries := l.history.Entries
		for i := len(entries) - 1; i >= 0 && entries[i].Timeline >= tli; i-- {
			child := l.history.Timeline
			if i+1 < len(entries) {
				child = entries[i+1].Timeline
			}
			if l.size.SegmentOf(entries[i].Switch) <= n {
				names = append(names, wal.SegmentName(child, n, l.size))
			}
		}
	}
	return append(names, wal.SegmentName(tli, n, l.size))
}

// historyIn reads a history that PostgreSQL was given: it goes along that line.
func historyIn(name wal.Name, f *os.File) (wal.History, bool) {
	const most = 1 << 20
	if name.Kind() != wal.KindHistory {
		return wal.History{}, false
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, most))
	if err != nil {
		return wal.History{}, false
	}
	h, err := wal.ParseHistory(name.Timeline(), text)
	return h, err == nil
}
