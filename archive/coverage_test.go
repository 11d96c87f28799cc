package archive_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// life is a timeline in an archive.
type life struct {
	tli         wal.TimelineID
	first, last wal.SegmentNumber
}

// TestCoverageNamesEveryGap: what a recovery would miss on its way along any
// history, and nothing else.
func TestCoverageNamesEveryGap(t *testing.T) {
	const (
		left18  = "1\t0/1834568\tx\n"
		left15  = "1\t0/1534568\tx\n"
		edge18  = "1\t0/1800000\tx\n"
		then1D  = "2\t0/1D34568\tx\n"
		ancient = "1\t0/534568\tx\n"
	)
	for _, c := range []struct {
		what      string
		lives     []life
		histories []file
		aside     []wal.Name
		gaps      string
		missing   string // histories
	}{
		{"nothing at all", nil, nil, nil, "[]", "[]"},
		{"one run", []life{{1, 0x10, 0x12}}, nil, nil, "[]", "[]"},
		{"holes", []life{{1, 0x10, 0x11}, {1, 0x14, 0x14}, {1, 0x16, 0x16}}, nil, nil,
			"[000000010000000000000012 to 000000010000000000000013 are missing (2 segments) 000000010000000000000015 is missing]", "[]"},
		{"a timeline and its heir", []life{{1, 0x10, 0x17}, {2, 0x18, 0x1A}}, []file{history(2, left18)}, nil, "[]", "[]"},
		{"the parent went on", []life{{1, 0x10, 0x1C}, {2, 0x18, 0x1A}}, []file{history(2, left18)}, nil, "[]", "[]"},
		{"the end of the parent is missing", []life{{1, 0x10, 0x15}, {2, 0x18, 0x1A}}, []file{history(2, left18)}, nil,
			"[000000010000000000000016 to 000000010000000000000017 are missing (2 segments)]", "[]"},
		{"the heir's copy of the segment that was left is missing", []life{{1, 0x10, 0x18}, {2, 0x19, 0x1A}}, []file{history(2, left18)}, nil,
			"[000000020000000000000018 is missing]", "[]"},
		{"an heir that has just begun", []life{{1, 0x10, 0x17}}, []file{history(2, left18)}, nil, "[]", "[]"},
		{"left at the edge of a segment", []life{{1, 0x10, 0x17}, {2, 0x18, 0x19}}, []file{history(2, edge18)}, nil, "[]", "[]"},
		{"left at the edge, the last one missing", []life{{1, 0x10, 0x16}, {2, 0x18, 0x19}}, []file{history(2, edge18)}, nil,
			"[000000010000000000000017 is missing]", "[]"},
		{"a whole timeline between is missing", []life{{1, 0x10, 0x17}, {3, 0x1D, 0x1E}}, []file{history(2, left18), history(3, left18+then1D)}, nil,
			"[000000020000000000000018 to 00000002000000000000001C are missing (5 segments)]", "[]"},
		{"so is its history", []life{{1, 0x10, 0x17}, {3, 0x1D, 0x1E}}, []file{history(3, left18+then1D)}, nil,
			"[000000020000000000000018 to 00000002000000000000001C are missing (5 segments)]", "[00000002.history]"},
		{"the history of the last is missing", []life{{1, 0x10, 0x17}, {2, 0x18, 0x19}}, nil, nil, "[]", "[00000002.history]"},
		{"two children of one timeline", []life{{1, 0x10, 0x17}, {2, 0x15, 0x16}, {3, 0x18, 0x19}}, []file{history(2, left15), history(3, left18)}, nil, "[]", "[]"},
		{"what only the second child needs", []life{{1, 0x10, 0x15}, {2, 0x15, 0x16}, {3, 0x18, 0x19}}, []file{history(2, left15), history(3, left18)}, nil,
			"[000000010000000000000016 to 000000010000000000000017 are missing (2 segments)]", "[]"},
		{"what only the first child needs", []life{{1, 0x10, 0x15}, {2, 0x18, 0x19}, {3, 0x15, 0x16}}, []file{history(2, left18), history(3, left15)}, nil,
			"[000000010000000000000016 to 000000010000000000000017 are missing (2 segments)]", "[]"},
		{"a pruned beginning", []life{{1, 0x16, 0x17}, {2, 0x18, 0x1A}}, []file{history(2, left18)}, nil, "[]", "[]"},
		{"a pruned parent", []life{{2, 0x19, 0x1A}}, []file{history(2, left18)}, nil, "[]", "[]"},
		{"a parent of long ago", []life{{2, 0x10, 0x12}}, []file{history(2, ancient)}, nil, "[]", "[]"},
		{"a grandparent of long ago", []life{{3, 0x10, 0x12}}, []file{history(3, ancient+"2\t0/634568\tx\n")}, nil, "[]", "[]"},
		{"the last two set aside", []life{{1, 0x10, 0x17}}, nil, []wal.Name{wal.SegmentName(1, 0x16, mb), wal.SegmentName(1, 0x17, mb)},
			"[000000010000000000000016 to 000000010000000000000017 are missing (2 segments)]", "[]"},
		{"a history without segments set aside", []life{{1, 0x10, 0x17}}, []file{history(2, left18)}, []wal.Name{wal.HistoryName(2)},
			"[]", "[00000002.history]"},
		{"the last one set aside", []life{{1, 0x10, 0x17}}, nil, []wal.Name{wal.SegmentName(1, 0x17, mb)},
			"[000000010000000000000017 is missing]", "[]"},
		{"a history set aside", []life{{1, 0x10, 0x17}, {2, 0x18, 0x1A}}, []file{history(2, left18)}, []wal.Name{wal.HistoryName(2)},
			"[]", "[00000002.history]"},
		{"the first ones set aside", []life{{1, 0x10, 0x17}}, nil, []wal.Name{wal.SegmentName(1, 0x10, mb)}, "[]", "[]"},
	} {
		for _, f := range forms {
			if c.aside == nil && f != forms[2] {
				continue // the form matters for names in quarantine only
			}
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			for _, l := range c.lives {
				l.plant(t, disk, f)
			}
			push(t, a, c.histories...)
			for _, n := range c.aside {
				if _, err := a.Quarantine(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
			got, err := a.Coverage(t.Context())
			if gaps, missing := fmt.Sprint(got.Gaps), fmt.Sprint(got.MissingHistories); err != nil || gaps != c.gaps || missing != c.missing {
				t.Errorf("%s, %v: got gaps %s, histories %s, error %v\nwant %s, %s", c.what, f, gaps, missing, err, c.gaps, c.missing)
			}
			wantMissing(t, a, len(got.MissingHistories)+segmentsIn(got.Gaps))
		}
	}
}

// plant puts the names of the segments there: that is all that coverage looks
// at.
func (l life) plant(t *testing.T, disk files.FS, f form) {
	t.Helper()
	for n := l.first; n <= l.last; n++ {
		name := stored(f, wal.SegmentName(l.tli, n, mb))
		if err := disk.Mkdir(t.Context(), path.Dir(name)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		plant(t, disk, name, nil)
	}
}

func segmentsIn(gaps []archive.Gap) (n int) {
	for _, g := range gaps {
		n += g.Segments
	}
	return n
}

// wantMissing fails unless Verify counts so many missing files. The timelines of
// these tests do not continue each other, so their records do not count.
func wantMissing(t *testing.T, a *archive.Archive, want int) {
	t.Helper()
	sum, err := a.Verify(t.Context(), func(archive.Finding) {}, func(int, int) {})
	if err != nil || sum.Missing != want {
		t.Errorf("verified %+v, error %v, want %d missing", sum, err, want)
	}
}

func TestCoverageCountsWhatIsThere(t *testing.T) {
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	push(t, a, segments(1, 0x10, 3, 1)...)
	push(t, a, segments(1, 0x14, 1, 1)...)
	push(t, a, leaving(2, 1, 0x1534568), label(t, 0))
	got, err := a.Coverage(t.Context())
	if err != nil || len(got.Ranges) != 2 || got.Files != 6 || len(got.Histories) != 1 || len(got.Partials) != 0 {
		t.Fatalf("got %+v, error %v", got, err)
	}
	if r := got.Ranges[0]; r.Segments != 3 || r.Timeline != 1 || r.First != wal.SegmentName(1, 0x10, mb) || r.Last != wal.SegmentName(1, 0x12, mb) {
		t.Errorf("got %+v, want three segments", r)
	}
	if got.Bytes <= got.Ranges[0].Bytes+got.Ranges[1].Bytes || got.Ranges[0].Bytes == 0 {
		t.Errorf("got %d bytes, %+v", got.Bytes, got.Ranges)
	}
}

// Without a history PostgreSQL does not find its way: a damaged one is missing.
// One that cannot be read now is no finding, but an error.
func TestDamagedHistoryIsMissing(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), segments(1, 0x10, 3, 1)...)
		push(t, at(disk, archive.Options{}), leaving(2, 1, 0x1234568))
		name := stored(f, wal.HistoryName(2))
		_, err := at(unreadable(disk, name), archive.Options{}).Coverage(t.Context())
		wantError(t, err, errIO)
		rewrite(t, disk, name, func(b []byte) []byte { return b[:4] })
		got, err := at(disk, archive.Options{}).Coverage(t.Context())
		if err != nil || fmt.Sprint(got.MissingHistories) != "[00000002.history]" {
			t.Errorf("%v: got %v missing, error %v, want the damaged history", f, got.MissingHistories, err)
		}
	}
}

func TestLacksTellsWhatWasLostFromWhatWasPruned(t *testing.T) {
	a := newArchive(t, archivetest.NewMemory(), forms[0], archive.Options{})
	push(t, a, segments(1, 0x12, 2, 1)...)
	push(t, a, segments(1, 0x15, 1, 1)...)
	push(t, a, asPartial(segments(1, 0x16, 1, 1)[0]), leaving(2, 1, 0x1634568))
	push(t, a, segments(2, 0x16, 2, 1)...)
	held, err := a.Coverage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[wal.Name]bool{
		wal.SegmentName(1, 0x10, mb): false, // pruned
		wal.SegmentName(1, 0x12, mb): false,
		wal.SegmentName(1, 0x13, mb): false,
		wal.SegmentName(1, 0x14, mb): true,
		wal.SegmentName(1, 0x15, mb): false,
		wal.SegmentName(1, 0x16, mb): false, // its .partial is there
		wal.SegmentName(1, 0x17, mb): true,
		wal.SegmentName(2, 0x11, mb): false,
		wal.SegmentName(2, 0x15, mb): true,
		wal.SegmentName(2, 0x17, mb): false,
		wal.SegmentName(2, 0x18, mb): true,
		wal.SegmentName(3, 0x12, mb): true,
		wal.HistoryName(2):           false,
		wal.HistoryName(3):           true,
	} {
		if got := held.Lacks(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if !(archive.Coverage{}).Lacks(wal.SegmentName(1, 1, mb)) {
		t.Error("an empty archive lacks nothing")
	}
}
