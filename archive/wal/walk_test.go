package wal

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWalkOfRealSegments(t *testing.T) {
	for _, major := range realMajors() {
		pair := realPair(t, major)
		first := walk(t, pair[0], WalkerOptions{})
		if first.Status != Complete || first.Records < 1000 || first.Switched {
			t.Errorf("%d: first segment: got %+v", major, first)
			continue
		}
		crossing, crosses := first.Tail.Crosses()
		if !crosses {
			t.Errorf("%d: no record crosses", major)
		}
		var records []Record
		second := walk(t, pair[1], WalkerOptions{Tail: first.Tail, OnRecord: func(r Record) { records = append(records, r) }})
		if second.Status != Complete || !second.Switched || second.CrossingUnverified || len(records) != second.Records {
			t.Errorf("%d: second segment: got %+v", major, second)
			continue
		}
		if records[0].LSN != crossing || !records[len(records)-1].IsSwitch {
			t.Errorf("%d: got first record %+v, last %+v, want the crossing one at %s and a switch", major, records[0], records[len(records)-1], crossing)
		}
		if got := len(commits(records)); got < 100 {
			t.Errorf("%d: got %d commits, want at least 100", major, got)
		}
	}
}

func commits(records []Record) []time.Time {
	var times []time.Time
	for _, r := range records {
		if !r.CommitTime.IsZero() {
			times = append(times, r.CommitTime)
		}
	}
	return times
}

func TestCommitTimesAreThoseOfTheServersClock(t *testing.T) {
	from, to := time.Date(2026, 11, 24, 2, 41, 0, 0, time.UTC), time.Date(2026, 11, 24, 2, 43, 0, 0, time.UTC)
	for _, major := range realMajors() {
		var records []Record
		s := realPair(t, major)[0]
		w := walk(t, s, WalkerOptions{OnRecord: func(r Record) { records = append(records, r) }})
		times := commits(records)
		// 400 rows, a prepared transaction and three more.
		if len(times) < 403 || times[0] != w.FirstCommit || times[len(times)-1] != w.LastCommit {
			t.Errorf("%d: got %d commits from %s to %s, the walk says %s to %s", major, len(times), times[0], times[len(times)-1], w.FirstCommit, w.LastCommit)
		}
		for _, at := range times {
			if at.Before(from) || at.After(to) {
				t.Errorf("%d: got a commit at %s", major, at)
			}
		}
		prepared := slices.ContainsFunc(records, func(r Record) bool {
			return r.RmgrID == rmgrTransaction && r.Info&infoXactOpMask == infoCommitPrepared && !r.CommitTime.IsZero()
		})
		if !prepared {
			t.Errorf("%d: the commit of the prepared transaction has no time", major)
		}
	}
}

func TestWalkDoesNotDependOnThePiecesWritten(t *testing.T) {
	pair := realPair(t, 18)
	tail := walk(t, pair[0], WalkerOptions{}).Tail
	want := walk(t, pair[1], WalkerOptions{Tail: tail})
	for _, most := range []int{1, 7, 39, 41, 8191, 8193, 100_000} {
		w := NewWalker(pair[1].name, realSize, WalkerOptions{Tail: tail})
		for rest := pair[1].bytes; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(most))
			if got, err := w.Write(rest[:n]); got != n || err != nil {
				t.Fatalf("write of %d bytes: got %d, %v", n, got, err)
			}
			rest = rest[n:]
		}
		if got := w.Finish(); !reflect.DeepEqual(got, want) {
			t.Errorf("pieces of up to %d bytes: got %+v, want %+v", most, got, want)
		}
	}
}

func TestCrossingRecordIsUnverifiedWithoutTail(t *testing.T) {
	pair := realPair(t, 15)
	tail := walk(t, pair[0], WalkerOptions{}).Tail
	with := walk(t, pair[1], WalkerOptions{Tail: tail})
	for name, other := range map[string]*Tail{"no tail": nil, "tail of another place": with.Tail} {
		w := walk(t, pair[1], WalkerOptions{Tail: other})
		if w.Status != Complete || !w.CrossingUnverified || w.Records != with.Records-1 {
			t.Errorf("%s: got %+v, want it complete but for the crossing record", name, w)
		}
	}
	damaged := pair[1].edited(5000, pair[1].bytes[5000]^1)
	if w := walk(t, damaged, WalkerOptions{}); w.Status != Complete {
		t.Errorf("damage that cannot be seen: got %+v", w)
	}
	if w := walk(t, damaged, WalkerOptions{Tail: tail}); w.Status != Damaged || !strings.Contains(w.Reason, "CRC") {
		t.Errorf("damage of the crossing record: got %+v, want Damaged", w)
	}
}

func TestTailMayBeUsedAgain(t *testing.T) {
	pair := realPair(t, 14)
	tail := walk(t, pair[0], WalkerOptions{}).Tail
	before := *tail
	walk(t, pair[1], WalkerOptions{Tail: tail})
	if *tail != before {
		t.Errorf("the walk changed the tail: got %+v, want %+v", *tail, before)
	}
}

func TestSegmentThatDoesNotContinueTheTailIsDamaged(t *testing.T) {
	pair := realPair(t, 16)
	tail := *walk(t, pair[0], WalkerOptions{}).Tail
	whole, longer := tail, tail
	whole.open = false
	longer.rec.total++
	for name, other := range map[string]*Tail{"no record open": &whole, "another length": &longer} {
		w := walk(t, pair[1], WalkerOptions{Tail: other})
		if w.Status != Damaged || w.End != tail.next {
			t.Errorf("%s: got %+v, want Damaged at %s", name, w, tail.next)
		}
	}
}

func TestOverwrittenRecordIsDropped(t *testing.T) {
	pair := realDir(t, "overwrite18")
	first := walk(t, pair[0], WalkerOptions{})
	if _, crosses := first.Tail.Crosses(); first.Status != Complete || !crosses {
		t.Fatalf("before the crash: got %+v, want a record that crosses", first)
	}
	for name, tail := range map[string]*Tail{"with tail": first.Tail, "without": nil} {
		w := walk(t, pair[1], WalkerOptions{Tail: tail})
		if w.Status != Complete || w.CrossingUnverified || w.Records < 3 {
			t.Errorf("%s: got %+v, want it complete", name, w)
		}
	}
}

func TestFlippedBitsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("walks thousands of segments")
	}
	for _, major := range realMajors() {
		pair := realPair(t, major)
		tail := walk(t, pair[0], WalkerOptions{}).Tail
		flip(t, pair[0], nil, pair[1:], 150)
		flip(t, pair[1], tail, nil, 150)
	}
}

// flip flips single bits of what a segment uses and wants the walk to see each,
// if not here then in the segment after it: a wrong length near the end looks
// like a record that goes on there. Only what PostgreSQL does not look at either
// may pass: the gaps between records, the end of page headers, the removable
// flag. A longer length just before the end of the WAL makes the walk say Ended.
func flip(t *testing.T, s segment, tail *Tail, after []segment, times int) {
	t.Helper()
	covered, end := coverage(s, tail)
	for range times {
		at := rand.IntN(end)
		if !covered[at] {
			continue
		}
		w := walk(t, s.edited(at, s.bytes[at]^1<<rand.IntN(8)), WalkerOptions{Tail: tail})
		for i := 0; i < len(after) && w.Status == Complete; i++ {
			w = walk(t, after[i], WalkerOptions{Tail: w.Tail})
		}
		if w.Status == Complete {
			t.Errorf("%s: byte %d (%s): the flipped bit was not seen", s.name, at, walkStart(s)+LSN(at))
		}
	}
}

func walkStart(s segment) LSN {
	start, _ := s.name.Start(realSize)
	return start
}

// coverage marks the bytes that the walks must vouch for, up to end.
func coverage(s segment, tail *Tail) (covered []bool, end int) {
	covered = make([]bool, len(s.bytes))
	begin := walkStart(s)
	mark := func(lsn LSN, n uint32) {
		for ; n > 0 && lsn < begin+LSN(len(s.bytes)); lsn++ {
			if lsn%usualBlock < shortHeaderLen || lsn >= begin && lsn-begin < HeaderLen {
				continue
			}
			if lsn >= begin {
				covered[lsn-begin] = true
				end = max(end, int(lsn-begin)+1)
			}
			n--
		}
	}
	w := NewWalker(s.name, realSize, WalkerOptions{Tail: tail, OnRecord: func(r Record) { mark(r.LSN, r.Len) }})
	w.Write(s.bytes)
	if tail := w.Finish().Tail; tail.open {
		mark(tail.rec.lsn, tail.rec.got)
	}
	for page := 0; page < end; page += usualBlock {
		for i := range 20 {
			covered[page+i] = i != 2 // flags: the removable bit means nothing
		}
	}
	return covered, end
}

func TestWhatStopsAWalk(t *testing.T) {
	s := realPair(t, 17)[0]
	start := walkStart(s)
	var records []Record
	walk(t, s, WalkerOptions{OnRecord: func(r Record) { records = append(records, r) }})
	// A record in the middle that lies within a page.
	i := slices.IndexFunc(records, func(r Record) bool {
		return r.LSN > start+100_000 && r.LSN%usualBlock > 1000 && r.LSN%usualBlock < 7000
	})
	r := records[i]
	at := int(r.LSN - start)
	page := at - at%usualBlock + usualBlock
	zero := make([]byte, len(s.bytes))
	oldPages := func(from int) segment {
		old := s.edited(0)
		for p := from; p < len(old.bytes); p += usualBlock {
			binary.LittleEndian.PutUint64(old.bytes[p+8:], uint64(start)-4*uint64(realSize)+uint64(p))
		}
		return old
	}
	for name, c := range map[string]struct {
		segment segment
		status  Status
		end     LSN
		reason  string
	}{
		"zeros from a record on":           {s.edited(at, zero[at:]...), Ended, r.LSN, "length is zero"},
		"zeros within, WAL goes on":        {s.edited(at, zero[:4096-at%4096]...), Damaged, r.LSN, "WAL goes on at"},
		"empty pages to the end":           {s.edited(page, zero[page:]...), Ended, 0, "empty"},
		"recycled pages to the end":        {oldPages(page), Ended, 0, "which the file was before"},
		"one page zeroed":                  {s.edited(page, zero[:usualBlock]...), Damaged, 0, "WAL goes on at"},
		"one page header zeroed":           {s.edited(page, zero[:24]...), Damaged, start + LSN(page), "all zeros"},
		"a wrong checksum":                 {s.edited(at+20, s.bytes[at+20]+1), Damaged, r.LSN, "CRC"},
		"a wrong previous pointer":         {s.edited(at+8, s.bytes[at+8]+8), Damaged, r.LSN, "points back"},
		"a short length":                   {s.edited(at, 23, 0, 0, 0), Damaged, r.LSN, "23 bytes"},
		"a huge length":                    {s.edited(at, 0xFF, 0xFF, 0xFF, 0xFF), Damaged, r.LSN, "cannot have"},
		"a length beyond the next page":    {s.edited(at, 0, 0x40, 0, 0), Damaged, start + LSN(page), "bytes left"},
		"stale bytes after streamed WAL":   {oldPages(page).edited(at+8, 1, 2, 3), Ended, r.LSN, "which the file was before"},
		"another magic":                    {s.edited(page, 0x18, 0xD1), Damaged, start + LSN(page), "magic"},
		"an unknown flag":                  {s.edited(page+3, 1), Damaged, start + LSN(page), "flags"},
		"timeline 0":                       {s.edited(page+4, 0), Damaged, start + LSN(page), "timeline 0"},
		"a timeline of the future":         {s.edited(page+4, 2), Damaged, start + LSN(page), "timeline 2"},
		"another page address":             {s.edited(page+8, 8), Damaged, start + LSN(page), "says that it is at"},
		"a short file":                     {segment{s.name, s.bytes[:page+1]}, Damaged, 0, "not the 1048576 of a segment"},
		"a long file":                      {segment{s.name, append(slices.Clone(s.bytes), 0)}, Damaged, 0, "more than"},
		"an empty file":                    {segment{s.name, nil}, Damaged, start, "0 bytes"},
		"all zeros":                        {segment{s.name, zero}, Ended, start, "empty"},
		"another segment's name":           {segment{SegmentName(1, 1, realSize), s.bytes}, Damaged, LSN(realSize), "says that it is at"},
		"a name that the size cannot have": {segment{Name{kind: KindSegment, timeline: 1, seg: 4096}, s.bytes}, Damaged, 0, "00000FFF"},
		"a history":                        {segment{HistoryName(2), s.bytes}, Damaged, 0, "no place"},
	} {
		w := walk(t, c.segment, WalkerOptions{})
		if w.Status != c.status || !strings.Contains(w.Reason, c.reason) || c.end != 0 && w.End != c.end {
			t.Errorf("%s: got %s at %s: %s; want %s at %s: ...%s...", name, w.Status, w.End, w.Reason, c.status, c.end, c.reason)
		}
		if (w.Tail != nil) != (w.Status == Complete) {
			t.Errorf("%s: a tail only comes from a complete walk", name)
		}
	}
}

func TestWalkTakesTheBlockSizeFromTheHeader(t *testing.T) {
	for _, block := range []int{1 << 10, 4 << 10, 8 << 10, 64 << 10} {
		s := filled(SegmentName(1, 3, realSize), realSize, block, 96)
		if w := walk(t, s, WalkerOptions{}); w.Status != Complete || w.Records < 10_000 {
			t.Errorf("blocks of %d bytes: got %+v", block, w)
		}
	}
}

func TestWalkRefusesTheWrongSegmentSize(t *testing.T) {
	s := realPair(t, 13)[0]
	w := NewWalker(s.name, 2*realSize, WalkerOptions{})
	w.Write(s.bytes)
	if got := w.Finish(); got.Status != Damaged {
		t.Errorf("got %+v, want Damaged", got)
	}
}
