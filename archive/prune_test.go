package archive_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

func TestPruneCutsEveryTimelineAtOnePointAndKeepsHistories(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, segments(1, 0x10, 5, 1)...)
		push(t, a, history(2, "1\t0/1234568\tno recovery target specified\n"))
		push(t, a, segments(2, 0x12, 4, 2)...)
		before := wal.SegmentName(2, 0x13, mb)
		plan, err := a.Plan(t.Context(), archive.Limit{Before: before})
		if err != nil {
			t.Fatal(err)
		}
		var removed []wal.Name
		if _, err := a.Prune(t.Context(), plan, func(n wal.Name) { removed = append(removed, n) }); err != nil {
			t.Fatal(err)
		}
		want := "[000000010000000000000010 000000010000000000000011 000000010000000000000012 000000020000000000000012]"
		var planned []wal.Name
		for _, f := range plan.Files {
			planned = append(planned, f.Name)
		}
		if fmt.Sprint(removed) != want || fmt.Sprint(planned) != want {
			t.Errorf("%v: removed %v, want %s", f, removed, want)
		}
		left, err := a.List(t.Context())
		if err != nil || len(left) != 6 {
			t.Errorf("%v: %d files left, error %v, want 6", f, len(left), err)
		}
		if _, err := a.Plan(t.Context(), archive.Limit{Before: wal.SegmentName(2, 0x99, mb)}); err == nil {
			t.Errorf("%v: a limit that leaves nothing was taken", f)
		}
	}
}

func TestPruneByAgeKeepsFromTheFirstYoungSegmentOn(t *testing.T) {
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	all := segments(1, 0x10, 6, 1)
	push(t, a, all[:3]...)
	limit := archive.Limit{Written: time.Now()}
	push(t, a, all[3:]...)
	plan, err := a.Plan(t.Context(), limit)
	if err != nil || len(plan.Files) != 3 || plan.FirstKept != all[3].name {
		t.Errorf("got %+v, error %v, want the first three gone", plan, err)
	}
	if _, err := a.Plan(t.Context(), archive.Limit{Written: time.Now().Add(time.Hour)}); err == nil {
		t.Error("a limit that leaves nothing was taken")
	}
}

func TestPruneRemovesOldTemporaryFilesOnly(t *testing.T) {
	for _, f := range forms {
		top := path.Dir(stored(f, wal.HistoryName(2)))
		dirs := []string{top}
		if f.layout == archive.Flat {
			dirs = append(dirs, files.PendingDirectory)
		}
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), segments(1, 0x10, 2, 1)...)
		for _, dir := range dirs {
			plant(t, disk, path.Join(dir, ".tmp-elsewhere-b-p-1-00"), []byte("half"))
		}
		for _, c := range []struct {
			now  time.Time
			want int
		}{{time.Now(), 0}, {time.Now().Add(25 * time.Hour), len(dirs)}} {
			later := at(disk, archive.Options{Now: func() time.Time { return c.now }})
			done, _, err := pruneBefore(t, later, later, wal.SegmentName(1, 0x10, mb))
			if err != nil || len(done.Temporary) != c.want {
				t.Errorf("%v: removed %q, error %v, want %d", f, done.Temporary, err, c.want)
			}
		}
	}
}

// pruneBefore plans in one file system and prunes in another view of it.
func pruneBefore(t *testing.T, planner, pruner *archive.Archive, before wal.Name) (archive.Pruned, []wal.Name, error) {
	t.Helper()
	plan, err := planner.Plan(t.Context(), archive.Limit{Before: before})
	if err != nil {
		t.Fatal(err)
	}
	var removed []wal.Name
	done, err := pruner.Prune(t.Context(), plan, func(n wal.Name) { removed = append(removed, n) })
	return done, removed, err
}

func TestPruneTellsWhatItCouldNotRemove(t *testing.T) {
	all := segments(1, 0x10, 5, 1)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, all...)
		broken := at(hooked{FS: disk, remove: func(name string, real func() error) error {
			if name == stored(f, all[1].name) {
				return errIO
			}
			return real()
		}}, archive.Options{})
		done, removed, err := pruneBefore(t, a, broken, all[3].name)
		wantError(t, err, errIO)
		if len(done.Files) != 1 || !slices.Equal(removed, []wal.Name{all[0].name}) {
			t.Errorf("%v: got %+v and %v removed, want the first alone", f, done.Files, removed)
		}
		wantStored(t, a, all[1].name, all[2].name, all[3].name, all[4].name)
	}
}

// Another one prunes at the same time, before or after this one has planned.
func TestPruneCountsOnlyWhatItRemoved(t *testing.T) {
	all := segments(1, 0x10, 5, 1)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, all...)
		faster := at(hooked{FS: disk, remove: func(name string, real func() error) error {
			if name == stored(f, all[1].name) {
				drop(t, disk, name)
			}
			return real()
		}}, archive.Options{})
		size := stat(t, disk, stored(f, all[0].name)) + stat(t, disk, stored(f, all[2].name))
		done, removed, err := pruneBefore(t, a, faster, all[3].name)
		if err != nil || len(done.Files) != 2 || done.Bytes != size || !slices.Equal(removed, []wal.Name{all[0].name, all[2].name}) {
			t.Errorf("%v: got %+v and %v removed, error %v, want two files of %d bytes", f, done, removed, err, size)
		}
	}
}

func stat(t *testing.T, disk *archivetest.Memory, name string) int64 {
	t.Helper()
	info, err := disk.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// vanishing loses a file between the listing and the look at it.
func vanishing(t *testing.T, disk *archivetest.Memory, name string) *archive.Archive {
	gone := false
	return at(hooked{FS: disk, readDir: func(dir string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error) {
		entries, err := real()
		if !gone && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(name, e.Name()) && !e.IsDir() }) {
			gone = true
			drop(t, disk, name)
		}
		return entries, err
	}}, archive.Options{})
}

func TestFileThatVanishesFromAListingIsPassedOver(t *testing.T) {
	all := segments(1, 0x10, 4, 1)
	for _, f := range forms {
		for what, look := range map[string]func(a *archive.Archive) error{
			"coverage": func(a *archive.Archive) error {
				c, err := a.Coverage(t.Context())
				if err == nil && c.Files != 3 {
					err = fmt.Errorf("%d files, want 3", c.Files)
				}
				return err
			},
			"plan": func(a *archive.Archive) error {
				plan, err := a.Plan(t.Context(), archive.Limit{Before: all[2].name})
				if err == nil && len(plan.Files) != 1 {
					err = fmt.Errorf("%d files to prune, want 1", len(plan.Files))
				}
				return err
			},
			"plan by age": func(a *archive.Archive) error {
				plan, err := a.Plan(t.Context(), archive.Limit{Written: time.Now().Add(-time.Hour)})
				if err == nil && plan.FirstKept != all[1].name {
					err = fmt.Errorf("%s is the first to keep, want %s", plan.FirstKept, all[1].name)
				}
				return err
			},
		} {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), all...)
			if err := look(vanishing(t, disk, stored(f, all[0].name))); err != nil {
				t.Errorf("%v, %s: %v", f, what, err)
			}
		}
	}
}

// brokenInfo cannot tell about any entry.
type brokenInfo struct{ fs.DirEntry }

func (brokenInfo) Info() (fs.FileInfo, error) { return nil, errIO }

func TestFileThatCannotBeLookedAtIsAnError(t *testing.T) {
	all := segments(1, 0x10, 4, 1)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), all...)
		a := at(hooked{FS: disk, readDir: func(_ string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error) {
			entries, err := real()
			for i, e := range entries {
				if !e.IsDir() {
					entries[i] = brokenInfo{e}
				}
			}
			return entries, err
		}}, archive.Options{})
		_, covered := a.Coverage(t.Context())
		_, planned := a.Plan(t.Context(), archive.Limit{Before: all[2].name})
		_, byAge := a.Plan(t.Context(), archive.Limit{Written: time.Now()})
		for _, err := range []error{covered, planned, byAge} {
			wantError(t, err, errIO)
		}
	}
}

func TestPartialBesideIsListedVerifiedAndPruned(t *testing.T) {
	ours, theirs := twoPartials()
	later := segments(1, 0x20, 1, 1)[0]
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, ours, theirs, later)
		wantStored(t, a, ours.name, ours.name, later.name)
		if c, err := a.Coverage(t.Context()); err != nil || c.Files != 3 || len(c.Partials) != 1 {
			t.Errorf("%v: got %+v, error %v, want 3 files and one name of a partial", f, c, err)
		}
		if sum, err := a.Verify(t.Context(), report(t), func(int, int) {}); err != nil || sum.Files != 3 {
			t.Errorf("%v: verified %+v, error %v, want 3 files", f, sum, err)
		}

		beside := besidePath(t, disk, f, ours.name)
		rewrite(t, disk, beside, func(b []byte) []byte { return b[:len(b)/2] })
		sum, err := a.Verify(t.Context(), func(archive.Finding) {}, func(int, int) {})
		if err != nil || sum.Damaged != 1 {
			t.Errorf("%v: verified %+v, error %v, want one damage", f, sum, err)
		}

		done, removed, err := pruneBefore(t, a, a, later.name)
		if err != nil || len(done.Files) != 2 || len(removed) != 2 {
			t.Errorf("%v: pruned %+v, error %v, want both partials", f, done.Files, err)
		}
		if _, err := disk.Stat(t.Context(), beside); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %s is still there: %v", f, beside, err)
		}
		wantStored(t, a, later.name)
	}
}

// A slip of the hand in the timeline of a limit removes what nobody meant.
func TestLimitOnATimelineThatIsNotThereIsRefused(t *testing.T) {
	a := newArchive(t, archivetest.NewMemory(), forms[0], archive.Options{})
	push(t, a, segments(1, 0x10, 4, 1)...)
	if plan, err := a.Plan(t.Context(), archive.Limit{Before: wal.SegmentName(2, 0x12, mb)}); err == nil || hintOf(err) == "" {
		t.Errorf("got %+v, error %v, want a refusal with a HINT", plan, err)
	}
}
