package wal

import "fmt"

// Expect is what the segments of a cluster have in common.
type Expect struct {
	SystemID uint64      // 0: any
	Major    int         // 0: any of 13 to 18
	Size     SegmentSize // 0: what the header says
}

// CheckSegment tells whether a file can be the segment or .partial that its
// name says, of the cluster that is expected, by its size in bytes and the
// beginning of its content (at least HeaderLen bytes). The page may belong to
// an ancestor of the name's timeline: the segment in which a timeline begins is
// a copy up to that point. Nothing is said of the records: a Walker does that.
// The error matches ErrTruncated, ErrForeign, ErrHeader or ErrName.
func CheckSegment(name Name, first []byte, size int64, want Expect) error {
	if err := checkSegment(name, first, size, want); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func checkSegment(name Name, first []byte, size int64, want Expect) error {
	if name.kind != KindSegment && name.kind != KindPartial {
		return fmt.Errorf("a %s has no page header: %w", name.kind, ErrName)
	}
	if want.Size != 0 && size != int64(want.Size) {
		return fmt.Errorf("%w: it has %d bytes, a segment of this cluster has %d", ErrTruncated, size, want.Size)
	}
	h, err := ParsePageHeader(first)
	if err != nil {
		return err
	}
	if err := h.belongs(want); err != nil {
		return err
	}
	if size != int64(h.SegmentSize) {
		return fmt.Errorf("%w: it has %d bytes, its header says %d", ErrTruncated, size, h.SegmentSize)
	}
	return h.begins(name)
}

// belongs tells whether the header is one of the cluster.
func (h PageHeader) belongs(want Expect) error {
	magic, known := MagicOf(want.Major)
	switch {
	case want.Major != 0 && !known:
		return fmt.Errorf("%w: the pages of PostgreSQL %d are not known", ErrHeader, want.Major)
	case want.Major != 0 && h.Magic != magic:
		major, _ := MajorOf(h.Magic)
		return fmt.Errorf("%w: magic %04X is that of PostgreSQL %d, want %04X of PostgreSQL %d", ErrHeader, h.Magic, major, magic, want.Major)
	case !h.Long:
		return fmt.Errorf("%w: it is a page from within a segment, not the first", ErrHeader)
	case want.SystemID != 0 && h.SystemID != want.SystemID:
		return fmt.Errorf("%w: it has system identifier %d, this cluster has %d", ErrForeign, h.SystemID, want.SystemID)
	case want.Size != 0 && h.SegmentSize != want.Size:
		return fmt.Errorf("%w: it says that segments have %d bytes, this cluster's have %d", ErrHeader, h.SegmentSize, want.Size)
	}
	return nil
}

// begins tells whether the header is that of the segment's first page.
func (h PageHeader) begins(name Name) error {
	start, err := name.Start(h.SegmentSize)
	switch {
	case err != nil:
		return err
	case h.PageAddr != start:
		is := SegmentName(h.Timeline, h.SegmentSize.SegmentOf(h.PageAddr), h.SegmentSize)
		return fmt.Errorf("%w: its first page is at %s, which is %s; want %s", ErrHeader, h.PageAddr, is, start)
	case h.Timeline > name.timeline:
		return fmt.Errorf("%w: its first page is of timeline %d, the name says %d", ErrHeader, h.Timeline, name.timeline)
	}
	return nil
}
