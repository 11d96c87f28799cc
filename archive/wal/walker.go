package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Walker walks the records of a segment as its bytes are written to it, as
// xlogreader.c would read them. It keeps one page and the state of one record,
// however long. It is for one goroutine.
type Walker struct {
	name  Name
	size  SegmentSize
	start LSN
	opts  WalkerOptions

	buf   []byte // of a page of which not all has come
	pos   int64  // of the page that comes next
	extra bool   // more came than a segment has
	first PageHeader
	tli   TimelineID // of the page before

	prev    LSN // the last whole record
	chained bool
	joined  bool // the Tail of the segment before is known
	open    bool
	rec     openRecord

	stopped bool
	stop    stop
	walk    Walk
}

// stop is where and why a walk did not go on.
type stop struct {
	inRecord bool // stopped within a page, by a record
	at       LSN  // the page after the one where it stopped
	goesOn   LSN  // a page of this segment's WAL after that, if one was seen
}

// NewWalker returns a walker for the segment or .partial of this name. If name
// and size do not go together, the Walk says so.
func NewWalker(name Name, size SegmentSize, opts WalkerOptions) *Walker {
	w := &Walker{name: name, size: size, opts: opts}
	start, err := name.Start(size)
	if err != nil {
		w.fail(Damaged, 0, err.Error())
		return w
	}
	w.start = start
	if t := opts.Tail; t != nil && t.next == start {
		w.joined = true
		w.prev, w.chained, w.open, w.rec = t.prev, t.chained, t.open, t.rec
	}
	return w
}

// Write takes the next bytes of the segment, in pieces of any length. It never
// fails and never takes less than all of p.
func (w *Walker) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if w.pos >= int64(w.size) {
			w.extra = true
			break
		}
		p = p[w.take(p):]
	}
	return n, nil
}

// take takes bytes up to the end of a page, and walks the page if it is whole.
func (w *Walker) take(p []byte) int {
	block := int(w.first.BlockSize)
	switch {
	case block == 0:
		return w.learn(p)
	case len(w.buf) == 0 && len(p) >= block:
		w.page(p[:block])
		return block
	}
	n := min(len(p), block-len(w.buf))
	w.buf = append(w.buf, p[:n]...)
	if len(w.buf) == block {
		w.page(w.buf)
		w.buf = w.buf[:0]
	}
	return n
}

const usualBlock = 8192

// learn takes bytes up to the end of the first header, and the length of pages
// from it. One that is not sound ends the walk soon; until then its pages count
// as usual ones.
func (w *Walker) learn(p []byte) int {
	n := min(len(p), HeaderLen-len(w.buf))
	w.buf = append(w.buf, p[:n]...)
	if len(w.buf) < HeaderLen {
		return n
	}
	w.first = readPageHeader(w.buf)
	if !w.first.Long || w.first.sound() != nil {
		w.first.BlockSize = usualBlock
	}
	return n
}

// page walks over one whole page.
func (w *Walker) page(p []byte) {
	addr := w.start + LSN(w.pos)
	w.pos += int64(len(p))
	switch {
	case w.walk.Switched:
	case w.stopped:
		w.aftermath(p, addr)
	default:
		w.walkPage(p, addr)
	}
}

func (w *Walker) walkPage(p []byte, addr LSN) {
	h := readPageHeader(p)
	if !w.acceptPage(h, p, addr) {
		return
	}
	off := h.length()
	if w.crosses(h, addr) {
		n := min(int(w.rec.left()), len(p)-off)
		w.rec.take(p[off : off+n])
		off += n
		w.proceed()
	}
	for !w.stopped && !w.open && !w.walk.Switched {
		off = (off + recordAlign - 1) &^ (recordAlign - 1)
		if off >= len(p) {
			return
		}
		off += w.record(p[off:], addr+LSN(off))
	}
}

// crosses tells whether the page begins with the rest of a record.
func (w *Walker) crosses(h PageHeader, addr LSN) bool {
	if h.Info&flagOverwrites != 0 {
		// A server crashed before it wrote the rest, and said so here. The
		// record never counted, and the next one points to the one before it.
		w.open = false
	}
	switch {
	case w.open && h.RemainingLen != w.rec.left():
		w.fail(Damaged, addr, fmt.Sprintf("the page continues a record with %d bytes left, the record at %s has %d left", h.RemainingLen, w.rec.lsn, w.rec.left()))
	case !w.open && h.RemainingLen != 0 && (addr != w.start || w.joined):
		w.fail(Damaged, addr, fmt.Sprintf("the page continues a record with %d bytes left, but no record was open", h.RemainingLen))
	case !w.open && h.RemainingLen != 0:
		w.open = true
		w.rec = openRecord{total: h.RemainingLen, uncounted: true}
	}
	if w.open && w.rec.uncounted {
		w.walk.CrossingUnverified = true
	}
	return w.open && !w.stopped
}

// record walks over a record that begins at p, or over its part on this page.
// It returns how many bytes that was.
func (w *Walker) record(p []byte, lsn LSN) int {
	total := binary.LittleEndian.Uint32(p)
	switch {
	case total == 0:
		w.fail(Ended, lsn, "no record follows: its length is zero")
		return 0
	case total < recordHeaderLen || total > longestRecord:
		w.failRecord(lsn, fmt.Sprintf("a record cannot have %d bytes", total))
		return 0
	case w.walk.First == 0:
		w.walk.First = lsn
	}
	if int(total) > len(p) {
		w.open, w.rec = true, openRecord{lsn: lsn, total: total}
		w.rec.take(p)
		w.proceed()
		return len(p)
	}
	header := (*[recordHeaderLen]byte)(p)
	data := p[recordHeaderLen:total]
	if w.acceptHeader(header, lsn) {
		w.whole(lsn, header, data[:min(len(data), commitHeadLen)], crc32.Update(0, castagnoli, data))
	}
	return int(total)
}

// proceed looks at the open record after more of it has come.
func (w *Walker) proceed() {
	r := &w.rec
	switch {
	case r.uncounted:
		w.open = r.left() > 0
	case r.got < recordHeaderLen:
	case !w.acceptHeader(&r.header, r.lsn):
	case r.left() == 0:
		w.open = false
		w.whole(r.lsn, &r.header, r.dataHead(), r.crc)
	}
}

// acceptHeader holds the previous pointer against the record before. The first
// record of a segment, without a Tail, must at least point out of it.
func (w *Walker) acceptHeader(header *[recordHeaderLen]byte, lsn LSN) bool {
	prev := LSN(binary.LittleEndian.Uint64(header[8:]))
	switch {
	case w.chained && prev != w.prev:
		w.failRecord(lsn, fmt.Sprintf("the record points back to %s, the one before it is at %s", prev, w.prev))
	case !w.chained && prev >= w.start:
		w.failRecord(lsn, fmt.Sprintf("the first record of the segment points to %s, which is not before it", prev))
	}
	return !w.stopped
}

// whole verifies the checksum of a record that has come to its end.
func (w *Walker) whole(lsn LSN, header *[recordHeaderLen]byte, head []byte, data uint32) {
	want := binary.LittleEndian.Uint32(header[20:])
	if got := checksum(data, header); got != want {
		w.failRecord(lsn, fmt.Sprintf("the record's CRC-32C is %08X, it says %08X", got, want))
		return
	}
	w.prev, w.chained = lsn, true
	w.walk.Records++
	w.walk.Switched = isSwitch(header)
	if w.opts.OnRecord == nil && !isCommit(header) {
		return
	}
	r := newRecord(lsn, header, head)
	if w.opts.OnRecord != nil {
		w.opts.OnRecord(r)
	}
	w.commit(r)
}

func (w *Walker) commit(r Record) {
	if r.CommitTime.IsZero() {
		return
	}
	if w.walk.FirstCommit.IsZero() {
		w.walk.FirstCommit = r.CommitTime
	}
	w.walk.LastCommit = r.CommitTime
}

// Finish says what was found. Call it when all of the segment has been written.
func (w *Walker) Finish() Walk {
	walk := w.walk
	length := w.pos + int64(len(w.buf))
	switch {
	case w.stopped && walk.Status == Damaged:
	case w.extra || length < int64(w.size):
		walk.Status, walk.End = Damaged, w.endOr(w.start+LSN(length))
		walk.Reason = fmt.Sprintf("the file has %d bytes, not the %d of a segment", length, int64(w.size))
		if w.extra {
			walk.Reason = fmt.Sprintf("the file has more than the %d bytes of a segment", int64(w.size))
		}
	case w.stopped && w.stop.goesOn != 0:
		walk.Status = Damaged
		walk.Reason += fmt.Sprintf(", but WAL goes on at %s", w.stop.goesOn)
	case !w.stopped:
		walk.End = w.start + LSN(w.size)
		walk.Tail = &Tail{next: walk.End, prev: w.prev, chained: w.chained, open: w.open, rec: w.rec}
	}
	return walk
}

// endOr is where the walk stopped, or where the open record begins, or at.
func (w *Walker) endOr(at LSN) LSN {
	switch {
	case w.stopped:
		return w.walk.End
	case w.open && w.rec.lsn >= w.start:
		return w.rec.lsn
	}
	return at
}

// allZero tells whether b is nothing but zeros.
func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
