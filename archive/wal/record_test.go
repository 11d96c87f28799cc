package wal

import (
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Commits of every kind, also those with an origin or with subtransactions, have
// their time; what rolls back has none.
func TestCommitTimesAreThoseOfPgWaldump(t *testing.T) {
	var got []string
	times := map[LSN]time.Time{}
	walk(t, realDir(t, "commits15")[0], WalkerOptions{OnRecord: func(r Record) { times[r.LSN] = r.CommitTime }})
	text, err := os.ReadFile("testdata/commits15/pg_waldump")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		lsn, err := ParseLSN(f[0])
		if err != nil {
			t.Fatal(err)
		}
		at, known := times[lsn]
		if !known {
			t.Errorf("no record at %s", lsn)
		}
		want := strings.Join(f[2:4], " ")
		if strings.HasPrefix(f[1], "ABORT") {
			want = time.Time{}.Format(waldumpTime)
		}
		if at.Format(waldumpTime) != want {
			t.Errorf("%s at %s: got %s, want %s", f[1], lsn, at.Format(waldumpTime), want)
		}
		delete(times, lsn)
		got = append(got, f[1])
	}
	for lsn, at := range times {
		if !at.IsZero() {
			t.Errorf("at %s: got a commit at %s, pg_waldump knows of none", lsn, at)
		}
	}
	slices.Sort(got)
	if kinds := slices.Compact(got); len(kinds) != 4 {
		t.Errorf("got %q, want four kinds of ends", kinds)
	}
}

const waldumpTime = "2006-01-02 15:04:05.000000"

// What may stand in front of a commit's main data, as XLogRecordAssemble of
// xloginsert.c writes it.
func TestCommitTimeIsFoundBehindWhatStandsInFrontOfIt(t *testing.T) {
	origin, topLevel := []byte{idOrigin, 1, 0}, []byte{idTopLevelXID, 9, 9, 9, 9}
	short, long := []byte{idDataShort, 8}, []byte{idDataLong, 0, 1, 0, 0}
	when := binary.LittleEndian.AppendUint64(nil, 1_000_000) // a second after 2000-01-01
	want := time.Date(2000, 1, 1, 0, 0, 1, 0, time.UTC)
	for name, parts := range map[string][][]byte{
		"nothing":                       {short, when},
		"a long header":                 {long, when},
		"an origin":                     {origin, short, when},
		"a top-level transaction":       {topLevel, short, when},
		"both, before long data":        {origin, topLevel, long, when},
		"the longest that can stand so": {origin, topLevel, long, when, {1, 2, 3}},
	} {
		head := slices.Concat(parts...)
		if got, ok := commitTime(head[:min(len(head), commitHeadLen)]); !ok || got != want {
			t.Errorf("%s: got %s, %v, want %s", name, got, ok, want)
		}
	}
	for name, head := range map[string][]byte{
		"nothing at all":   nil,
		"a block":          slices.Concat([]byte{0}, short, when),
		"a cut origin":     origin[:2],
		"a cut time":       slices.Concat(short, when[:7]),
		"data of one byte": {idDataShort},
	} {
		if got, ok := commitTime(head); ok {
			t.Errorf("%s: got %s, want no time", name, got)
		}
	}
}

func TestLongestRecord(t *testing.T) {
	for total, says := range map[uint32]string{
		0x3FFF_FFFF: "bytes left", // the next page does not go on with it
		0x4000_0000: "cannot have 1073741824 bytes",
	} {
		s := filled(SegmentName(1, 3, realSize), realSize, usualBlock, 96)
		binary.LittleEndian.PutUint32(s.bytes[HeaderLen:], total)
		if w := walk(t, s, WalkerOptions{}); w.Status != Damaged || !strings.Contains(w.Reason, says) {
			t.Errorf("a record of %d bytes: got %s: %s, want ...%s...", total, w.Status, w.Reason, says)
		}
	}
}

func TestFirstIsWhereTheFirstRecordBegins(t *testing.T) {
	pair := realPair(t, 15)
	start := walkStart(pair[1])
	tail := walk(t, pair[0], WalkerOptions{}).Tail
	var second LSN
	walk(t, pair[1], WalkerOptions{OnRecord: func(r Record) {
		if second == 0 {
			second = r.LSN
		}
	}})
	for name, c := range map[string]struct {
		segment segment
		tail    *Tail
		want    LSN
	}{
		"behind one that crosses":            {pair[1], tail, second},
		"behind one that cannot be verified": {pair[1], nil, second},
		"with a wrong checksum":              {pair[1].edited(int(second-start)+20, 1, 2, 3, 4), tail, second},
		"with a wrong previous pointer":      {pair[1].edited(int(second-start)+8, 1), tail, second},
		"with an impossible length":          {pair[1].edited(int(second-start), 1, 0, 0, 0), tail, 0},
		"zeros":                              {segment{pair[1].name, make([]byte, realSize)}, tail, 0},
		"a page, and no record on it":        {pair[0].edited(HeaderLen, make([]byte, realSize-HeaderLen)...), nil, 0},
	} {
		if w := walk(t, c.segment, WalkerOptions{Tail: c.tail}); w.First != c.want {
			t.Errorf("%s: got %s, want %s", name, w.First, c.want)
		}
	}
}
