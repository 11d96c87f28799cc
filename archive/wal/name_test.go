package wal

import (
	"errors"
	"slices"
	"testing"
)

func TestParseNameTakesPostgreSQLsNames(t *testing.T) {
	for _, c := range []struct {
		in   string
		kind Kind
		tli  TimelineID
		dir  string
		seg  string
	}{
		{"000000010000000000000002", KindSegment, 1, "0000000100000000", "000000010000000000000002"},
		{"FFFFFFFFFFFFFFFF00000FFF", KindSegment, 0xFFFFFFFF, "FFFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFF00000FFF"},
		{"000000000000000000000000", KindSegment, 0, "0000000000000000", "000000000000000000000000"},
		{"0000000A.history", KindHistory, 10, "", ""},
		{"0000000200000001000000A3.partial", KindPartial, 2, "0000000200000001", "0000000200000001000000A3"},
		{"0000000200000001000000A3.00000028.backup", KindBackup, 2, "0000000200000001", "0000000200000001000000A3"},
	} {
		n, err := ParseName(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if n.String() != c.in || n.Kind() != c.kind || n.Timeline() != c.tli || n.Directory() != c.dir || n.Segment().String() != c.seg {
			t.Errorf("%s: got %s, %s, timeline %d, directory %q, segment %q", c.in, n, n.Kind(), n.Timeline(), n.Directory(), n.Segment())
		}
	}
}

func TestParseNameRefusesEverythingElse(t *testing.T) {
	for _, in := range []string{
		"", "x", "00000001000000000000000", "0000000100000000000000020", "00000001000000000000000a",
		"0000000a.history", "0000000A.History", "0000000A.history ", ".history", "A.history", "0000000A0.history",
		"000000010000000000000002.partia", "000000010000000000000002.partial.gz", "000000010000000000000002.backup",
		"000000010000000000000002.0000002.backup", "00000001000000000000000200000028.backup", "000000010000000000000002..00000028.backup",
		"000000010000000000000002.00000028.backup.partial", "000000010000000000000002.gz", "RECOVERYXLOG",
		"../000000010000000000000002", "000000010000000000000002\n", "000000010000000000000002.00000028",
	} {
		if n, err := ParseName(in); !errors.Is(err, ErrName) || n != (Name{}) {
			t.Errorf("%q: got %v, %v, want ErrName", in, n, err)
		}
	}
}

func TestNumberDependsOnSegmentSize(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  SegmentSize
		start LSN // 1 for: impossible
	}{
		{"000000010000000000000002", 16 << 20, 0x2000000},
		{"0000000100000001000000FF", 16 << 20, 0x1FF000000},
		{"000000010000000100000100", 16 << 20, 1},
		{"000000010000000100000FFF", 1 << 20, 0x1FFF00000},
		{"000000010000000100001000", 1 << 20, 1},
		{"000000010000000200000003", 1 << 30, 0x2C0000000},
		{"000000010000000200000004", 1 << 30, 1},
		{"000000010000000000000002.partial", 64 << 20, 0x8000000},
	} {
		n, err := ParseName(c.name)
		if err != nil {
			t.Fatal(err)
		}
		start, err := n.Start(c.size)
		if c.start == 1 {
			if !errors.Is(err, ErrName) {
				t.Errorf("%s of %d: got %v, %v, want ErrName", c.name, c.size, start, err)
			}
			continue
		}
		if err != nil || start != c.start {
			t.Errorf("%s of %d: got %v, %v, want %v", c.name, c.size, start, err, c.start)
		}
		if back := SegmentName(1, c.size.SegmentOf(start), c.size); back != n.Segment() {
			t.Errorf("%s of %d: back again it is %s", c.name, c.size, back)
		}
	}
	if _, err := HistoryName(2).Number(DefaultSegmentSize); !errors.Is(err, ErrName) {
		t.Errorf("number of a history: got %v, want ErrName", err)
	}
}

func TestSegmentSizeValid(t *testing.T) {
	for size, valid := range map[SegmentSize]bool{
		0: false, -1: false, 1 << 19: false, 1 << 20: true, 3 << 20: false, 16 << 20: true, 1 << 30: true, 1 << 31: false, -1 << 63: false,
	} {
		if err := size.Valid(); (err == nil) != valid {
			t.Errorf("%d: got %v, want valid %v", size, err, valid)
		}
	}
}

func TestParseLSN(t *testing.T) {
	for in, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "ffffffff/FFFFFFFF": 1<<64 - 1, "0/1": 1} {
		if got, err := ParseLSN(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "/", "1", "1/", "/1", "0/123456789", "0/000000001", "0x1/2", "+1/2", "1/-2", "1/2/3", " 1/2", "1_0/2"} {
		if got, err := ParseLSN(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
	if got := LSN(0x16B374D848).String(); got != "16/B374D848" {
		t.Errorf("got %s, want 16/B374D848", got)
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("000000010000000000000002.00000028.backup")
	f.Add("0000000A.history")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			if !errors.Is(err, ErrName) || n != (Name{}) {
				t.Errorf("%q: got %v, %v", s, n, err)
			}
			return
		}
		if n.String() != s {
			t.Errorf("%q came back as %q", s, n)
		}
		n.Start(1 << 20)
	})
}

func TestArchiverTakesHistoriesFirst(t *testing.T) {
	want := []string{
		"00000002.history",
		"00000003.history",
		"000000010000000000000001",
		"000000010000000000000002",
		"000000010000000000000002.00000028.backup",
		"000000010000000000000002.partial",
		"000000010000000100000000",
		"000000020000000000000002",
	}
	names := make([]Name, len(want))
	for i, s := range want {
		n, err := ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		names[(i*5+3)%len(want)] = n // 5 and 8 have no common divisor
	}
	slices.SortFunc(names, CompareArchiving)
	for i, n := range names {
		if n.String() != want[i] {
			t.Errorf("%d: got %s, want %s", i, n, want[i])
		}
	}
}
