package wal

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// written is a segment of timeline 3 with records of 96 bytes that fill its
// pages, each page as change leaves it; the records' checksums are right.
func written(change func(page int, b []byte)) segment {
	s := filled(SegmentName(3, 3, realSize), realSize, usualBlock, 96)
	for page := 0; page*usualBlock < len(s.bytes); page++ {
		b := s.bytes[page*usualBlock:][:usualBlock]
		binary.LittleEndian.PutUint32(b[4:], 3)
		change(page, b)
	}
	return segment{s.name, sealed(s.bytes, usualBlock)}
}

const middle = 64 // a page in the middle of a segment

func timeline(b []byte, tli uint32) { binary.LittleEndian.PutUint32(b[4:], tli) }

// older makes a page that of two segments before.
func older(b []byte) {
	binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])-2*uint64(realSize))
}

// lengthened gives a page the long form of its header, and lets its first
// record begin after that.
func lengthened(b []byte) {
	const longer = HeaderLen - shortHeaderLen
	b[2] |= flagLong
	first := slices.Clone(b[shortHeaderLen:][:recordHeaderLen])
	binary.LittleEndian.PutUint32(first, binary.LittleEndian.Uint32(first)-longer)
	second := b[shortHeaderLen+96:]
	binary.LittleEndian.PutUint64(second[8:], binary.LittleEndian.Uint64(second[8:])+longer)
	binary.LittleEndian.PutUint64(b[24:], 1)
	binary.LittleEndian.PutUint32(b[32:], uint32(realSize))
	binary.LittleEndian.PutUint32(b[36:], usualBlock)
	copy(b[HeaderLen:], first)
}

func TestPagesThatDoNotFitTheirPlace(t *testing.T) {
	at := func(page int) LSN { return 3*LSN(realSize) + LSN(page*usualBlock) }
	for name, c := range map[string]struct {
		change func(page int, b []byte)
		end    LSN // 0: Complete
		reason string
	}{
		"a descendant's pages after its ancestor's": {func(page int, b []byte) { timeline(b, uint32(1+page/50)) }, 0, ""},
		"the timeline goes back": {func(page int, b []byte) {
			if page >= middle {
				timeline(b, 2)
			}
		}, at(middle), "of timeline 2, after one of timeline 3"},
		"the long form within": {func(page int, b []byte) {
			if page == middle {
				lengthened(b)
			}
		}, at(middle), "the form of another place"},
		"the short form at the beginning": {func(page int, b []byte) { b[2] &^= flagLong }, at(0), "the form of another place"},
		"another segment size": {func(page int, b []byte) {
			if page == 0 {
				binary.LittleEndian.PutUint32(b[32:], 2<<20)
			}
		}, at(0), "segments have 2097152 bytes, want 1048576"},
		"the first record points into the segment": {func(page int, b []byte) {
			if page == 0 {
				binary.LittleEndian.PutUint64(b[HeaderLen+8:], uint64(at(0)))
			}
		}, at(0) + HeaderLen, "which is not before it"},
		"the first record points out of it": {func(page int, b []byte) {
			if page == 0 {
				binary.LittleEndian.PutUint64(b[HeaderLen+8:], uint64(at(0)-recordAlign))
			}
		}, 0, ""},
	} {
		w := walk(t, written(c.change), WalkerOptions{})
		if c.end == 0 {
			if w.Status != Complete {
				t.Errorf("%s: got %s at %s: %s, want it complete", name, w.Status, w.End, w.Reason)
			}
			continue
		}
		if w.Status != Damaged || w.End != c.end || !strings.Contains(w.Reason, c.reason) {
			t.Errorf("%s: got %s at %s: %s; want damaged at %s: ...%s...", name, w.Status, w.End, w.Reason, c.end, c.reason)
		}
	}
}

// The pages behind the place where the records stop tell an end from damage.
// The record that stops the walk here lies on the page in the middle.
func TestPagesBehindTheEndOfRecords(t *testing.T) {
	record := shortHeaderLen + 96
	zero := func(b []byte) { clear(b) }
	garbage := func(b []byte) { b[0]++ }
	half := func(b []byte) { clear(b[:HeaderLen]) }
	later := func(b []byte) { timeline(b, 4) }
	same := func([]byte) {}
	flipped := func(b []byte) { b[record+50] ^= 1 }
	cut := func(b []byte) { clear(b[record+20:]) }
	none := func(b []byte) { clear(b[record:]) }
	for name, c := range map[string]struct {
		last, next, rest func([]byte) // page: the one in the middle, the one after it, all others
		status           Status
		reason           string
	}{
		"cut where writing stopped":           {cut, zero, zero, Ended, "and the next page is empty"},
		"streamed over an older segment":      {flipped, older, older, Ended, "and the next page is still that of 0/182000"},
		"no record, and nothing follows":      {none, zero, zero, Ended, "its length is zero"},
		"no record, a page of another future": {none, later, later, Ended, "its length is zero"},
		"no record, WAL goes on":              {none, same, same, Damaged, "WAL goes on at 0/382000"},
		"cut, WAL goes on at once":            {cut, same, same, Damaged, "CRC"},
		"cut, WAL goes on later":              {cut, zero, same, Damaged, "but WAL goes on at 0/384000"},
		"older pages, then WAL goes on":       {flipped, older, same, Damaged, "but WAL goes on at 0/384000"},
		"garbage, then empty pages":           {cut, garbage, zero, Damaged, "CRC"},
		"garbage, then older pages":           {flipped, garbage, older, Damaged, "CRC"},
		"an empty header is no empty page":    {cut, half, zero, Damaged, "CRC"},
	} {
		s := written(func(int, []byte) {})
		for page := middle; page*usualBlock < len(s.bytes); page++ {
			change := c.rest
			switch page {
			case middle:
				change = c.last
			case middle + 1:
				change = c.next
			}
			change(s.bytes[page*usualBlock:][:usualBlock])
		}
		w := walk(t, s, WalkerOptions{})
		if w.Status != c.status || !strings.Contains(w.Reason, c.reason) || w.End != 3*LSN(realSize)+LSN(middle*usualBlock+record) {
			t.Errorf("%s: got %s at %s: %s; want %s: ...%s...", name, w.Status, w.End, w.Reason, c.status, c.reason)
		}
	}
}

// A page that is not the one that belongs there is damage, whatever follows it:
// writing stops within a page, not by a wrong one.
func TestWrongPageIsDamageWhateverFollows(t *testing.T) {
	for name, follows := range map[string]func([]byte){
		"empty pages": func(b []byte) { clear(b) },
		"older pages": older,
	} {
		s := written(func(page int, b []byte) {
			if page > middle {
				follows(b)
			}
		})
		s.bytes[middle*usualBlock]++
		want := 3*LSN(realSize) + middle*usualBlock
		if w := walk(t, s, WalkerOptions{}); w.Status != Damaged || w.End != want {
			t.Errorf("%s: got %s at %s: %s, want damaged at %s", name, w.Status, w.End, w.Reason, want)
		}
	}
}

// A record that began in the segment before: its beginning is not a place in
// this one.
func TestEndWithinARecordThatCrossesIntoTheSegment(t *testing.T) {
	const rest = 3 * usualBlock
	start := 3 * LSN(realSize)
	s := written(func(page int, b []byte) {
		clear(b[shortHeaderLen+16:])
		if page == 0 {
			b[2] |= flagContinues
			binary.LittleEndian.PutUint32(b[16:], rest)
			binary.LittleEndian.PutUint64(b[24:], 1)
			binary.LittleEndian.PutUint32(b[32:], uint32(realSize))
			binary.LittleEndian.PutUint32(b[36:], usualBlock)
			return
		}
		clear(b)
	})
	tail := &Tail{next: start, open: true, rec: openRecord{lsn: start - 100, total: rest + 100, got: 100}}
	want := start + usualBlock
	if w := walk(t, s, WalkerOptions{Tail: tail}); w.Status != Ended || w.End != want {
		t.Errorf("got %s at %s: %s, want ended at %s", w.Status, w.End, w.Reason, want)
	}
	short := segment{s.name, s.bytes[:usualBlock]}
	if w := walk(t, short, WalkerOptions{Tail: tail}); w.Status != Damaged || w.End != want {
		t.Errorf("a short file: got %s at %s: %s, want damaged at %s", w.Status, w.End, w.Reason, want)
	}
}
