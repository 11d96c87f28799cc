package wal

import (
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Status is what a walk over the records of a segment came to.
type Status int

const (
	// Complete: every record is sound, up to the segment's end or to a switch.
	// The last record may go on in the next segment.
	Complete Status = iota
	// Ended: sound WAL stops before the segment's end, at a place where it may
	// just have been written no further: zeros, or what a recycled segment held
	// before.
	Ended
	// Damaged: something else stands where a page or a record should; or WAL
	// goes on after the place where it stops.
	Damaged
)

// String names the status.
func (s Status) String() string {
	switch s {
	case Complete:
		return "complete"
	case Ended:
		return "ended"
	case Damaged:
		return "damaged"
	}
	return "unknown"
}

// Walk is what was found in a segment.
type Walk struct {
	Status Status
	// Reason says what is at End if the status is not Complete.
	Reason string
	// End is the segment's end if the walk is Complete, also after a switch.
	// Otherwise it is where the first page or record lies that is not sound; a
	// record that crosses into the segment may begin before it.
	End LSN
	// First is where the first record of the segment begins, sound or not; 0 if
	// none does.
	First LSN
	// Records counts the verified records that end in the segment.
	Records int
	// FirstCommit and LastCommit are the times of the first and the last commit
	// in the order of the WAL, which need not be that of time. Zero if none.
	FirstCommit, LastCommit time.Time
	// Switched: the WAL leaves the rest of the segment unused.
	Switched bool
	// CrossingUnverified: a record crosses into the segment, and without the
	// Tail of the segment before its part here could only be counted.
	CrossingUnverified bool
	// Tail is for the walk over the next segment. nil unless Complete.
	Tail *Tail
}

// Tail is what the walk over one segment hands to that over the next: the last
// record, and the state of the one that crosses, if one does. It belongs to the
// WAL between two segments, whatever their timelines, does not change, and may
// be used any number of times. Its size does not depend on the record's.
type Tail struct {
	next    LSN // where the next segment begins
	prev    LSN // the last whole record
	chained bool
	open    bool
	rec     openRecord
}

// Crosses tells whether a record goes on in the next segment, and where it
// begins (0 if it began before the walk did).
func (t *Tail) Crosses() (LSN, bool) { return t.rec.lsn, t.open }

// openRecord is a record of which not all bytes have passed.
type openRecord struct {
	lsn        LSN
	total, got uint32
	crc        uint32 // of the data so far
	header     [recordHeaderLen]byte
	head       [commitHeadLen]byte // of the data
	// uncounted: its beginning was never seen; total is what was left of it.
	uncounted bool
}

func (r *openRecord) left() uint32 { return r.total - r.got }

// take adds the next bytes of the record, up to its end.
func (r *openRecord) take(p []byte) {
	p = p[:min(len(p), int(r.left()))]
	if r.uncounted {
		r.got += uint32(len(p))
		return
	}
	if r.got < recordHeaderLen {
		n := copy(r.header[r.got:], p)
		r.got += uint32(n)
		p = p[n:]
	}
	if at := r.got - recordHeaderLen; r.got >= recordHeaderLen && at < commitHeadLen {
		copy(r.head[at:], p)
	}
	r.crc = crc32.Update(r.crc, castagnoli, p)
	r.got += uint32(len(p))
}

// dataHead is the beginning of the record's data.
func (r *openRecord) dataHead() []byte {
	return r.head[:min(commitHeadLen, r.total-recordHeaderLen)]
}

// WalkerOptions are what a walk may be given. The zero value is fine.
type WalkerOptions struct {
	// Tail of the walk over the segment before, for the record that crosses
	// between them and for the first previous pointer. One that belongs to
	// another place is not used.
	Tail *Tail
	// OnRecord is called with each verified record that ends in the segment, in
	// the goroutine that calls Write.
	OnRecord func(Record)
}

// WalkSegment walks the records of a segment or .partial. The error is the
// reader's; what is wrong with the WAL stands in the Walk.
func WalkSegment(r io.Reader, name Name, size SegmentSize, opts WalkerOptions) (Walk, error) {
	w := NewWalker(name, size, opts)
	if _, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		return Walk{}, fmt.Errorf("walk %s: %w", name, err)
	}
	return w.Finish(), nil
}
