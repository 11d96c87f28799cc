package archive_test

import (
	"maps"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/wal"
)

func TestNewestIsTheLastSegmentOfEachTimeline(t *testing.T) {
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		if got, err := a.Newest(t.Context()); len(got) != 0 || err != nil {
			t.Errorf("%v, empty: got %v, %v", f, got, err)
		}
		// On both sides of a directory of a tree, which holds 4096 of them.
		one, two := segments(1, 4094, 4, 1), segments(2, 4095, 1, 2)
		push(t, a, one...)
		push(t, a, history(2, "1\t1/00000000\tx\n"))
		push(t, a, two...)
		want := map[wal.TimelineID]wal.Name{1: one[3].name, 2: two[0].name}
		if got, err := a.Newest(t.Context()); !maps.Equal(got, want) || err != nil {
			t.Errorf("%v: got %v, %v, want %v", f, got, err, want)
		}
	}
}
