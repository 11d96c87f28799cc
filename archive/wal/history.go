package wal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrHistory is matched by errors about the content of a history file.
var ErrHistory = errors.New("not a timeline history")

// History is the line of descent of a timeline: its ancestors, the eldest first.
type History struct {
	Timeline TimelineID
	Entries  []HistoryEntry
}

// HistoryEntry says where an ancestor was left, and why.
type HistoryEntry struct {
	Timeline TimelineID
	Switch   LSN // the first byte that is not the ancestor's any more
	Reason   string
}

// ParseHistory reads the history file of a timeline as readTimeLineHistory in
// timeline.c does: a line for each ancestor, with its number, the switch point
// and a reason, in increasing order and below tli; empty lines and those that
// begin with # do not count. It is stricter in one point: PostgreSQL never
// writes the history of a timeline after the first without an ancestor, so a
// file without one is what a crash left, not a history. The error matches
// ErrHistory.
func ParseHistory(tli TimelineID, b []byte) (History, error) {
	h := History{Timeline: tli}
	for number, line := range strings.Split(string(b), "\n") {
		line = strings.Trim(line, spaces)
		if line == "" || line[0] == '#' {
			continue
		}
		entry, err := parseHistoryLine(line)
		if err == nil {
			err = h.follows(entry)
		}
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d, line %d: %w: %w", tli, number+1, ErrHistory, err)
		}
		h.Entries = append(h.Entries, entry)
	}
	if tli == 0 || (tli > 1 && len(h.Entries) == 0) {
		return History{}, fmt.Errorf("history of timeline %d: %w: it names no ancestor", tli, ErrHistory)
	}
	return h, nil
}

const spaces = " \t\r\v\f"

func parseHistoryLine(line string) (HistoryEntry, error) {
	first, rest := cutField(line)
	tli, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return HistoryEntry{}, fmt.Errorf("expected a numeric timeline ID, got %.20q", first)
	}
	second, reason := cutField(rest)
	lsn, err := ParseLSN(second)
	if err != nil {
		return HistoryEntry{}, fmt.Errorf("expected a switch point: %w", err)
	}
	return HistoryEntry{Timeline: TimelineID(tli), Switch: lsn, Reason: reason}, nil
}

// cutField returns the text before the first white space, and what follows it.
func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, spaces)
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], spaces)
}

func (h History) follows(e HistoryEntry) error {
	last := TimelineID(0)
	if len(h.Entries) > 0 {
		last = h.Entries[len(h.Entries)-1].Timeline
	}
	switch {
	case e.Timeline <= last:
		return fmt.Errorf("timeline %d after %d: they must increase", e.Timeline, last)
	case e.Timeline >= h.Timeline:
		return fmt.Errorf("timeline %d is not below its child %d", e.Timeline, h.Timeline)
	}
	return nil
}

// SwitchOf returns where the line of descent left an ancestor; false if tli is
// not an ancestor.
func (h History) SwitchOf(tli TimelineID) (LSN, bool) {
	for _, e := range h.Entries {
		if e.Timeline == tli {
			return e.Switch, true
		}
	}
	return 0, false
}
