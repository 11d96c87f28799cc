package archive_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// parsed is a name that is known to be right.
func parsed(t testing.TB, s string) wal.Name {
	t.Helper()
	n, err := wal.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pitr init brings the histories of a cluster along; an archive that it made on
// an unmounted place has them, and nothing else.
func TestArchiveWithHistoriesOnlyProvesNothing(t *testing.T) {
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		push(t, a, history(2, "1\t0/1234568\tx\n"), history(3, "1\t0/1234568\tx\n2\t0/2234568\tx\n"))
		for _, n := range []wal.Name{
			wal.SegmentName(3, 0x22, mb), wal.SegmentName(2, 0x40, mb), wal.SegmentName(1, 0x99, mb),
			wal.HistoryName(4), parsed(t, "000000010000000000000099.partial"),
		} {
			_, err := fetch(t.Context(), a, n)
			wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
		}
	}
}

func TestEmptyDirectoriesProveNothing(t *testing.T) {
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	ask := wal.SegmentName(1, 0x1012, mb)
	for _, dir := range []string{"wal/0000000100000000", "wal/0000000100000001", "wal/0000000200000000", "wal/quarantine"} {
		if err := disk.Mkdir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		_, err := fetch(t.Context(), a, ask)
		wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
	}
	push(t, a, segments(3, 0x10, 1, 1)...) // WAL of any timeline tells the archive from an empty one
	_, err := fetch(t.Context(), a, ask)
	wantError(t, err, archive.ErrAbsent)
}

// A first push that fails has made the directory.
func TestFailedFirstPushProvesNothing(t *testing.T) {
	one := segments(1, 0x10, 1, 1)[0]
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	full := hooked{FS: disk, create: func(string, func() (files.File, error)) (files.File, error) {
		return nil, errors.New("no space left on device")
	}}
	if _, err := at(full, archive.Options{}).Push(t.Context(), one.name, one.source()); err == nil {
		t.Error("a push to a full disk succeeded")
	}
	_, err := fetch(t.Context(), a, one.name)
	wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
}

// Somebody moved a directory of a tree to another disk and linked it.
func TestLinkedDirectoriesAreListed(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	a := newArchive(t, local.New(root), forms[0], archive.Options{})
	all := segments(1, 0xFFE, 4, 1) // the last two are of the next directory
	push(t, a, all...)
	const group = "0000000100000001"
	if err := os.Rename(filepath.Join(root, "wal", group), filepath.Join(other, group)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(other, group), filepath.Join(root, "wal", group)); err != nil {
		t.Fatal(err)
	}
	c, err := a.Coverage(t.Context())
	if err != nil || len(c.Ranges) != 1 || c.Ranges[0].Segments != len(all) {
		t.Errorf("got %+v, error %v, want all %d segments", c.Ranges, err, len(all))
	}
	if err := os.Remove(filepath.Join(other, group, all[2].name.String()+".zst")); err != nil {
		t.Fatal(err)
	}
	_, err = fetch(t.Context(), a, all[2].name)
	wantError(t, err, archive.ErrGap, archive.ErrAbsent)
	push(t, a, all[2])
	wantFile(t, a, all[2])
}

// A file in quarantine shows that its own name once was, and no other.
func TestOnlyAFilesOwnNameInQuarantineCounts(t *testing.T) {
	all := segments(1, 0x10, 3, 1)
	last := all[2].name
	for _, f := range forms {
		base := path.Base(stored(f, last))
		partial := path.Base(stored(f, last.Partial()))
		for aside, want := range map[string]error{
			base + ".20261124T120000Z-4f1c0a9b2d3e5f60":    archive.ErrGap,
			partial + ".20261124T120000Z-4f1c0a9b2d3e5f60": archive.ErrAbsent,
			base + ".00.20261124T120000Z-4f1c0a9b2d3e5f60": archive.ErrAbsent,
			base + ".20261124T120000Z-4f1c":                archive.ErrAbsent,
			base + ".notes":                                archive.ErrAbsent,
			base + ".20261324T120000Z-4f1c0a9b2d3e5f60":    archive.ErrAbsent,
			base + "x20261124T120000Z-4f1c0a9b2d3e5f60":    archive.ErrAbsent,
			"": archive.ErrAbsent,
			all[1].name.String() + ".20261124T120000Z-4f1c0a9b": archive.ErrAbsent,
		} {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, all[:2]...)
			dir := path.Join(path.Dir(stored(f, wal.HistoryName(2))), "quarantine")
			if err := disk.Mkdir(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if aside != "" {
				plant(t, disk, path.Join(dir, aside), nil)
			}
			if _, err := fetch(t.Context(), a, last); !errors.Is(err, want) || errors.Is(err, archive.ErrAbsent) != (want == archive.ErrAbsent) {
				t.Errorf("%v, %s: got %v, want %v", f, aside, err, want)
			}
		}
	}
}

// A .partial shows that its segment was begun. A timeline it is of may never
// have come to be: a promotion that was interrupted leaves one without a history.
func TestPartialIsEvidenceForItsSegmentAlone(t *testing.T) {
	first := segments(1, 0x10, 2, 1)
	partial := segments(2, 0x12, 1, 1)[0]
	partial.name = partial.name.Partial()
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		push(t, a, first...)
		push(t, a, partial)
		_, err := fetch(t.Context(), a, partial.name.Segment())
		wantError(t, err, archive.ErrGap, archive.ErrAbsent)
		_, err = fetch(t.Context(), a, wal.SegmentName(2, 0x11, mb))
		wantError(t, err, archive.ErrGap, archive.ErrAbsent)
		_, err = fetch(t.Context(), a, wal.SegmentName(2, 0x13, mb))
		wantError(t, err, archive.ErrAbsent)
		_, err = fetch(t.Context(), a, wal.HistoryName(2))
		wantError(t, err, archive.ErrAbsent)

		if _, err := a.Quarantine(t.Context(), partial.name); err != nil {
			t.Fatal(err)
		}
		_, err = fetch(t.Context(), a, partial.name.Segment())
		wantError(t, err, archive.ErrAbsent)
		_, err = fetch(t.Context(), a, partial.name)
		wantError(t, err, archive.ErrGap, archive.ErrAbsent)
	}
}

// What a history would say is not known while it cannot be read.
func TestHistoryThatCannotBeReadMakesAbsenceUnproven(t *testing.T) {
	for _, f := range forms {
		for _, ask := range []wal.Name{wal.SegmentName(1, 0x12, mb), wal.HistoryName(2)} {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), segments(1, 0x10, 2, 1)...)
			push(t, at(disk, archive.Options{}), history(3, "1\t0/1200000\tx\n"))
			_, err := fetch(t.Context(), at(disk, archive.Options{}), ask)
			wantError(t, err, archive.ErrAbsent)

			name := stored(f, wal.HistoryName(3))
			_, err = fetch(t.Context(), at(unreadable(disk, name), archive.Options{}), ask)
			wantError(t, err, errIO, archive.ErrAbsent, archive.ErrGap)
			rewrite(t, disk, name, func(b []byte) []byte { return b[:len(b)/3] })
			_, err = fetch(t.Context(), at(disk, archive.Options{}), ask)
			wantError(t, err, archive.ErrDamaged, archive.ErrAbsent, archive.ErrGap)
			_, err = fetch(t.Context(), at(disk, archive.Options{}), wal.SegmentName(3, 0x20, mb))
			wantError(t, err, archive.ErrAbsent) // a timeline's own history says nothing of its end
		}
	}
}

// The file system is unmounted, or exchanged, while it is asked.
func TestArchiveThatGoesAwayWhileItIsAskedProvesNothing(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	ask := wal.SegmentName(1, 0x12, mb)
	for _, f := range forms {
		witness := "archive.json"
		if f.layout == archive.Tree {
			witness = "wal/archive.id"
		}
		for what, want := range map[string]error{"gone": archive.ErrNoIdentity, "exchanged": archive.ErrIdentity} {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, all...)
			id, err := a.Identity(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			changing := hooked{FS: disk, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
				switch {
				case name == stored(f, ask) && what == "gone":
					drop(t, disk, witness)
				case name == stored(f, ask):
					rewrite(t, disk, witness, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(id.ID), []byte(strangeID)) })
				}
				return real()
			}}
			_, err = fetch(t.Context(), at(changing, archive.Options{}), ask)
			if !errors.Is(err, want) || errors.Is(err, archive.ErrAbsent) {
				t.Errorf("%v, %s: got %v, want %v", f, what, err, want)
			}
		}
	}
}

// strangeID is the id of another archive.
const strangeID = "0123456789abcdef0123456789abcdef"

func TestMarkerOfAnotherArchiveIsRefused(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	push(t, a, all[0])
	rewrite(t, disk, "wal/archive.id", func([]byte) []byte { return []byte(strangeID + "\n") })
	_, err := fetch(t.Context(), a, wal.SegmentName(1, 0x12, mb))
	wantError(t, err, archive.ErrIdentity, archive.ErrAbsent)
	_, err = a.Push(t.Context(), all[1].name, all[1].source())
	wantError(t, err, archive.ErrIdentity)
	if _, err := disk.Stat(t.Context(), stored(forms[0], all[1].name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was stored all the same: %v", err)
	}
}

func TestLayoutThatContradictsTheConfigurationIsRefused(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), all...)
		for _, said := range []archive.Layout{archive.Tree, archive.Flat} {
			_, err := fetch(t.Context(), at(disk, archive.Options{Layout: said}), all[0].name)
			if said == f.layout && err != nil || said != f.layout && !errors.Is(err, archive.ErrIdentity) {
				t.Errorf("%v, configured as %s: got %v", f, said, err)
			}
		}
	}
}

// A tree with years of WAL is not listed whole for one missing name.
func TestAbsenceIsProvenWithoutListingTheWholeTree(t *testing.T) {
	disk := archivetest.NewMemory()
	push(t, newArchive(t, disk, forms[0], archive.Options{}), segments(1, 0xFFF, 3, 1)...) // 1/0, 1/1
	push(t, at(disk, archive.Options{}), segments(2, 0x2000, 1, 1)...)                     // 2/2
	push(t, at(disk, archive.Options{}), segments(3, 0x1000, 1, 1)...)                     // 3/1
	for ask, want := range map[wal.Name]string{
		wal.SegmentName(1, 0x1005, mb): "0000000100000001",
		wal.SegmentName(2, 0x1005, mb): "0000000200000002",
		wal.HistoryName(2):             "0000000200000002",
	} {
		var listed []string
		watching := hooked{FS: disk, readDir: func(name string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error) {
			if len(path.Base(name)) == 16 {
				listed = append(listed, path.Base(name))
			}
			return real()
		}}
		_, _ = fetch(t.Context(), at(watching, archive.Options{}), ask)
		if got := strings.Join(listed, " "); got != want {
			t.Errorf("%s: got %s listed, want %s", ask, got, want)
		}
	}
}

// In a directory that says nothing of itself the newest files may be foreign or
// damaged; older ones tell whose it is.
func TestForeignFilesAmongTheNewestDoNotHideTheCluster(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	disk := archivetest.NewMemory()
	plant(t, disk, all[0].name.String(), all[0].content)
	strange := archivetest.NewWAL(1, 15, 1, mb, 0x11, 1)
	for range 3 {
		name, content := strange.Next()
		plant(t, disk, name.String(), content)
	}
	plant(t, disk, wal.SegmentName(1, 0x14, mb).String(), nil)
	_, err := fetch(t.Context(), at(disk, archive.Options{Layout: archive.Flat}), wal.SegmentName(1, 0x15, mb))
	wantError(t, err, archive.ErrAbsent)
}

// short cuts listings of a directory as a far disk's error does: without a word.
func short(fsys files.FS, keep func(string) bool) files.FS {
	return hooked{FS: fsys, readDir: func(_ string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error) {
		entries, err := real()
		return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !keep(e.Name()) }), err
	}}
}

func TestListingThatIsCutShortProvesNothing(t *testing.T) {
	all := segments(1, 0x10, 4, 1)
	is := func(name string, n int) bool { return strings.HasPrefix(name, all[n].name.String()) }
	for what, c := range map[string]struct {
		gone   []file
		listed func(name string) bool
	}{
		"without later segments": {all[1:2], func(name string) bool { return !is(name, 2) && !is(name, 3) }},
		// The next one is missing too, and those after it are not asked for.
		"without the archive's own file": {all[1:3], func(name string) bool { return !is(name, 3) && !strings.HasPrefix(name, "archive.") }},
	} {
		for _, f := range forms {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), all...)
			for _, one := range c.gone {
				drop(t, disk, stored(f, one.name))
			}
			_, err := fetch(t.Context(), at(short(disk, c.listed), archive.Options{}), all[1].name)
			if err == nil || errors.Is(err, archive.ErrAbsent) {
				t.Errorf("%v, %s: got %v, want a doubt", f, what, err)
			}
		}
	}
}
