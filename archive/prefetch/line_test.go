package prefetch

import (
	"slices"
	"testing"

	"pitr/archive/wal"
)

func lsn(t testing.TB, s string) wal.LSN {
	t.Helper()
	l, err := wal.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The order is that of XLogFileReadAnyTLI: the newest timeline that had begun first,
// and never one that is older than the one which is being read.
func TestNamesFollowTheLineOfDescent(t *testing.T) {
	const mb16 = 16 << 20
	four := wal.History{Timeline: 4, Entries: []wal.HistoryEntry{
		{Timeline: 1, Switch: lsn(t, "0/5000100")}, {Timeline: 2, Switch: lsn(t, "0/7000000")},
	}}
	for _, c := range []struct {
		what   string
		size   wal.SegmentSize
		from   wal.History
		tli    wal.TimelineID
		number wal.SegmentNumber
		want   []string
	}{
		{"no history", mb16, wal.History{}, 3, 5, []string{"000000030000000000000005"}},
		{"before the first switch", mb16, four, 1, 4, []string{"000000010000000000000004"}},
		{"in the segment of the first switch", mb16, four, 1, 5, []string{"000000020000000000000005", "000000010000000000000005"}},
		{"between both", mb16, four, 1, 6, []string{"000000020000000000000006", "000000010000000000000006"}},
		{"a switch at a boundary", mb16, four, 1, 7, []string{"000000040000000000000007", "000000020000000000000007", "000000010000000000000007"}},
		{"never back", mb16, four, 2, 8, []string{"000000040000000000000008", "000000020000000000000008"}},
		{"its own", mb16, four, 4, 9, []string{"000000040000000000000009"}},
		{"one that is not in the line", mb16, four, 3, 9, []string{"000000030000000000000009"}},
		{"segments of 1 MB", 1 << 20, wal.History{}, 1, 4096, []string{"000000010000000100000000"}},
		{"segments of 1 GB", 1 << 30, wal.History{}, 1, 7, []string{"000000010000000100000003"}},
		{"segments of 16 MB", mb16, wal.History{}, 1, 255, []string{"0000000100000000000000FF"}},
		{"and the next one", mb16, wal.History{}, 1, 256, []string{"000000010000000100000000"}},
	} {
		var got []string
		for _, n := range (line{size: c.size, history: c.from}).at(c.tli, c.number) {
			got = append(got, n.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
