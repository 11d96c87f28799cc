package fusefs

import (
	"context"
	"fmt"
	"sync"
	"time"

	"pitr/archive/wal"
)

// ahead remembers which segments were opened lately, whatever their timeline: a
// recovery goes from one timeline to the next in mid sequence.
type ahead struct {
	mu     sync.Mutex // guards the rest
	recent [32]wal.SegmentNumber
	at     int
	// missing is what was not there when it was looked for last, and when.
	missing map[wal.Name]time.Time
}

// askAgain is when a segment that was not there is looked for once more.
const askAgain = 2 * time.Second

// notThere notes that a segment is not there.
func (a *ahead) notThere(n wal.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.missing) > 100 || a.missing == nil {
		a.missing = map[wal.Name]time.Time{}
	}
	a.missing[n] = time.Now()
}

// known tells whether it is known that a segment is not there.
func (a *ahead) known(n wal.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	when, ok := a.missing[n]
	return ok && time.Since(when) < askAgain
}

// follows notes that a segment was opened, and tells whether the one before it was
// opened lately.
func (a *ahead) follows(n wal.SegmentNumber) (follows bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := false
	for _, r := range a.recent {
		follows = follows || n > 0 && r == n // r is one more: 0 is none
		known = known || r == n+1
	}
	if !known {
		a.recent[a.at] = n + 1
		a.at = (a.at + 1) % len(a.recent)
	}
	return follows
}

// readAhead begins to fetch what comes after a segment, if segments are being read
// in sequence. What goes wrong is nobody's business yet.
func (s *source) readAhead(name wal.Name, size wal.SegmentSize) {
	n, err := name.Number(size)
	if err != nil || name.Kind() != wal.KindSegment || s.Ahead < 1 || int64(size) > s.limit.Load() || !s.ahead.follows(n) {
		return
	}
	for i := range wal.SegmentNumber(s.Ahead) {
		next := wal.SegmentName(name.Timeline(), n+1+i, size)
		if s.ahead.known(next) {
			return // nor will what comes after it be
		}
		if !s.cache.has(next) {
			s.aheads.begin(next, func(context.Context) (struct{}, error) { return struct{}{}, s.aheadOf(next) })
		}
	}
}

// aheadOf fetches a segment that nobody has asked for, if it is there. Looking first
// is cheap; a fetch of what is not there is not.
func (s *source) aheadOf(name wal.Name) error {
	at := time.Now()
	seen, err := s.ask(nil, nil, name)
	if err != nil {
		s.ahead.notThere(name)
		return fmt.Errorf("reading ahead: %w", err)
	}
	s.health.ahead.Add(1)
	_, err = s.contents.do(nil, storedFile{name, seen.stamp}, s.getWhole(name, seen), nil)
	if err != nil {
		return fmt.Errorf("reading ahead: %w", err)
	}
	s.sights.put(name, lately{seen, at, true})
	return nil
}
