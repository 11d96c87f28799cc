package wal

import (
	"errors"
	"slices"
	"testing"
)

func TestParseHistory(t *testing.T) {
	for name, c := range map[string]struct {
		tli  TimelineID
		text string
		want []HistoryEntry // nil: an error
	}{
		"PostgreSQL's own":    {3, "1\t0/3000000\tno recovery target specified\n\n2\t1/A0\tbefore 2026-11-24 12:00:00+00\n", []HistoryEntry{{1, 0x3000000, "no recovery target specified"}, {2, 0x1000000A0, "before 2026-11-24 12:00:00+00"}}},
		"comments and spaces": {2, "# a comment\n  # another\n\n  1 0/ABC  by hand", []HistoryEntry{{1, 0xABC, "by hand"}}},
		"no reason":           {2, "1\t0/ABC\n", []HistoryEntry{{1, 0xABC, ""}}},
		"CR LF":               {2, "1\t0/ABC\tx\r\n", []HistoryEntry{{1, 0xABC, "x"}}},
		"first timeline":      {1, "", []HistoryEntry{}},
		"points may decrease": {3, "1\t0/5\n2\t0/3\n", []HistoryEntry{{1, 5, ""}, {2, 3, ""}}},
		"empty":               {2, "", nil},
		"zeros":               {2, string(make([]byte, 64)), nil},
		"no number":           {2, "x\t0/1\n", nil},
		"no switch point":     {2, "1\n", nil},
		"bad switch point":    {2, "1\t12\tx\n", nil},
		"child not above":     {2, "2\t0/1\n", nil},
		"timelines decrease":  {4, "2\t0/1\n1\t0/2\n", nil},
		"timeline twice":      {4, "2\t0/1\n2\t0/2\n", nil},
		"timeline 0":          {4, "0\t0/1\n", nil},
		"of timeline 0":       {0, "", nil},
		"number too large":    {4, "4294967297\t0/1\n", nil},
	} {
		h, err := ParseHistory(c.tli, []byte(c.text))
		switch {
		case c.want == nil && !errors.Is(err, ErrHistory):
			t.Errorf("%s: got %v, %v, want ErrHistory", name, h, err)
		case c.want != nil && (err != nil || !slices.Equal(h.Entries, c.want)):
			t.Errorf("%s: got %v, %v, want %v", name, h, err, c.want)
		}
	}
}

func TestSwitchOf(t *testing.T) {
	h, err := ParseHistory(5, []byte("1\t0/100\tx\n3\t0/200\ty\n"))
	if err != nil {
		t.Fatal(err)
	}
	for tli, want := range map[TimelineID]LSN{1: 0x100, 2: 0, 3: 0x200, 5: 0} {
		if got, ok := h.SwitchOf(tli); got != want || ok != (want != 0) {
			t.Errorf("timeline %d: got %v, %v, want %v", tli, got, ok, want)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(3), []byte("1\t0/3000000\tno recovery target specified\n\n2\t1/A0\tx\n"))
	f.Add(uint32(1), []byte("# nothing"))
	f.Fuzz(func(t *testing.T, tli uint32, b []byte) {
		h, err := ParseHistory(TimelineID(tli), b)
		if err != nil {
			if !errors.Is(err, ErrHistory) {
				t.Error(err)
			}
			return
		}
		last := TimelineID(0)
		for _, e := range append(h.Entries, HistoryEntry{Timeline: h.Timeline}) {
			if e.Timeline <= last {
				t.Errorf("timeline %d after %d", e.Timeline, last)
			}
			last = e.Timeline
		}
	})
}
