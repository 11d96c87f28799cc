package wal

import "fmt"

// This file decides what it means when sound WAL stops: written no further, or
// damaged. Records alone do not tell, for the bytes after the last one are zeros
// on a primary but whatever a recycled segment held on a standby. The pages
// after that place tell: pages of this segment's WAL prove that it once went
// on; pages of an older one that it never did.

// fail ends the walk.
func (w *Walker) fail(status Status, at LSN, reason string) {
	w.stopped = true
	w.walk.Status, w.walk.End, w.walk.Reason = status, at, reason
	w.stop.at = w.start + LSN(w.pos)
}

// failRecord ends the walk at a record that is not sound.
func (w *Walker) failRecord(at LSN, reason string) {
	w.fail(Damaged, at, reason)
	w.stop.inRecord = true
}

// acceptPage tells whether the page is the one that belongs here, and ends the
// walk if not.
func (w *Walker) acceptPage(h PageHeader, p []byte, addr LSN) bool {
	if end := w.endOr(addr); w.unwritten(h, p, addr) {
		w.fail(Ended, end, w.unfinished(end, addr)+w.unwrittenReason(h))
		return false
	}
	if reason := w.pageProblem(h, addr); reason != "" {
		w.fail(Damaged, addr, reason)
		return false
	}
	w.tli = h.Timeline
	return true
}

// pageProblem is XLogReaderValidatePageHeader in xlogreader.c, as far as a
// segment can be judged without its cluster.
func (w *Walker) pageProblem(h PageHeader, addr LSN) string {
	soundness := h.sound()
	isFirst := addr == w.start
	switch {
	case soundness != nil:
		return soundness.Error()
	case h.Magic != w.first.Magic:
		return fmt.Sprintf("the page has magic %04X, the segment began with %04X", h.Magic, w.first.Magic)
	case h.PageAddr != addr:
		return fmt.Sprintf("the page says that it is at %s", h.PageAddr)
	case h.Long != isFirst:
		return "the page header has the form of another place in a segment"
	case isFirst && h.SegmentSize != w.size:
		return fmt.Sprintf("the page header says that segments have %d bytes, want %d", h.SegmentSize, int64(w.size))
	case h.Timeline < w.tli:
		return fmt.Sprintf("the page is of timeline %d, after one of timeline %d", h.Timeline, w.tli)
	case h.Timeline > w.name.timeline:
		return fmt.Sprintf("the page is of timeline %d, the name says %d", h.Timeline, w.name.timeline)
	}
	return ""
}

// unwritten tells whether WAL has not come to this page yet.
func (w *Walker) unwritten(h PageHeader, p []byte, addr LSN) bool {
	return h == PageHeader{} && allZero(p) || w.recycled(h, addr)
}

// recycled tells whether the page is left from the segment that the file was
// before: same place in the segment, lower address, sound otherwise.
func (w *Walker) recycled(h PageHeader, addr LSN) bool {
	return h.sound() == nil && h.PageAddr < addr && uint64(addr-h.PageAddr)%uint64(w.size) == 0
}

func (w *Walker) unwrittenReason(h PageHeader) string {
	if h.PageAddr == 0 {
		return "the page is empty"
	}
	return fmt.Sprintf("the page is still that of %s, which the file was before", h.PageAddr)
}

// unfinished begins a reason if the WAL stops within a record.
func (w *Walker) unfinished(end, addr LSN) string {
	if end == addr {
		return ""
	}
	return fmt.Sprintf("the record is not finished at %s: ", addr)
}

// aftermath looks for evidence on a page after the place where the walk ended.
func (w *Walker) aftermath(p []byte, addr LSN) {
	h := readPageHeader(p)
	switch {
	case w.stop.inRecord && addr == w.stop.at && h == PageHeader{} && allZero(p):
		// The record was cut where writing stopped.
		w.walk.Status = Ended
		w.walk.Reason += ", and the next page is empty"
	case w.stop.goesOn != 0 || h.sound() != nil:
	case h.PageAddr == addr && h.Timeline <= w.name.timeline:
		w.stop.goesOn = addr
	case w.stop.inRecord && addr == w.stop.at && w.recycled(h, addr):
		// The end of streamed WAL: nothing clears what follows it on the page.
		w.walk.Status = Ended
		w.walk.Reason += fmt.Sprintf(", and the next page is still that of %s, which the file was before", h.PageAddr)
	}
}
