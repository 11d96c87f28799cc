package archive_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
)

// lay makes directories (names that end in a slash) and files.
func lay(t testing.TB, fsys files.FS, names ...string) {
	t.Helper()
	for _, name := range names {
		dir, isDir := strings.CutSuffix(name, "/")
		if !isDir {
			plant(t, fsys, name, []byte("x"))
		} else if err := fsys.Mkdir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInitTakesOnlyAnEmptyDirectory(t *testing.T) {
	for _, c := range []struct {
		what       string
		there      []string
		tree, flat bool
	}{
		{"nothing", nil, true, true},
		{"a new file system", []string{"lost+found/"}, true, true},
		{"a new file system below", []string{"wal/", "wal/lost+found/"}, true, false},
		{"an unfinished tree", []string{"wal/", "wal/archive.id"}, true, false},
		{"an empty wal", []string{"wal/"}, true, false},
		{"temporary files", []string{".tmp-pending/", "wal/", "wal/.tmp-x"}, true, false},
		{"a file", []string{"notes"}, false, false},
		{"a segment", []string{"000000010000000000000010"}, false, false},
		{"a segment of a tree", []string{"wal/", "wal/0000000100000000/"}, false, false},
		{"a history of a tree", []string{"wal/", "wal/archive.id", "wal/00000002.history.zst"}, false, false},
	} {
		for _, f := range forms {
			disk := archivetest.NewMemory()
			lay(t, disk, c.there...)
			want := c.tree
			if f.layout == archive.Flat {
				want = c.flat
			}
			_, err := archive.Init(t.Context(), store(disk), identity(f))
			if (err == nil) != want {
				t.Errorf("%s, %v: got %v, want it taken: %v", c.what, f, err, want)
			}
			if _, stat := disk.Stat(t.Context(), "archive.json"); (stat == nil) != want {
				t.Errorf("%s, %v: archive.json: %v, want it there: %v", c.what, f, stat, want)
			}
		}
	}
}

func TestInitNeverTakesAnArchive(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), segments(1, 0x10, 1, 1)...)
		before, err := at(disk, archive.Options{}).Identity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = archive.Init(t.Context(), store(disk), identity(f))
		wantError(t, err, archive.ErrExists)
		if after, err := at(disk, archive.Options{}).Identity(t.Context()); err != nil || after.ID != before.ID {
			t.Errorf("%v: the id was %s and is %s, error %v", f, before.ID, after.ID, err)
		}
	}
}

func TestInitRefusesAnIdentityThatNoReaderTakes(t *testing.T) {
	for what, change := range map[string]func(*archive.Identity){
		"system identifier 0": func(id *archive.Identity) { id.SystemID = 0 },
		"PostgreSQL 12":       func(id *archive.Identity) { id.Major = 12 },
		"segment size":        func(id *archive.Identity) { id.SegmentSize = 3 << 20 },
		"layout":              func(id *archive.Identity) { id.Layout = "heap" },
		"codec":               func(id *archive.Identity) { id.Codec = "lz4" },
		"flat and compressed": func(id *archive.Identity) { id.Layout, id.Codec = archive.Flat, archive.Zstd },
	} {
		disk := archivetest.NewMemory()
		id := identity(forms[0])
		change(&id)
		if _, err := archive.Init(t.Context(), store(disk), id); err == nil {
			t.Errorf("%s: an archive was made", what)
		}
		if entries, err := disk.ReadDir(t.Context(), "."); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v was left, error %v", what, entries, err)
		}
	}
}

// The temporary file of archive.json lies in a directory of its own, which a
// tree has no more use for.
func TestInitLeavesNothingTemporary(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), segments(1, 0x10, 1, 1)...)
		_, err := disk.Stat(t.Context(), files.PendingDirectory)
		if gone := errors.Is(err, fs.ErrNotExist); gone != (f.layout == archive.Tree) {
			t.Errorf("%v: %s: %v", f, files.PendingDirectory, err)
		}
	}
}

// The first init dies at operation n. The second one finds what it left, says
// that this is an archive, and then the power fails.
func TestArchiveThatInitFoundSurvivesACrash(t *testing.T) {
	for _, f := range forms {
		for _, kind := range []archivetest.Fault{archivetest.Killed, archivetest.KilledAfter} {
			untilNoFault(t, func(n int) bool {
				disk := archivetest.NewMemory()
				faulty := archivetest.NewFaulty(disk, n, kind)
				_, _ = archive.Init(t.Context(), store(faulty), identity(f))
				made, err := archive.Init(t.Context(), store(disk), identity(f))
				if err != nil && !errors.Is(err, archive.ErrExists) {
					t.Fatalf("%v, %s fails: cannot be finished: %v", f, faulty.Failed(), err)
				}
				disk.Crash(nil)
				found, lost := at(disk, archive.Options{}).Identity(t.Context())
				if lost != nil || err == nil && found.ID != made.ID {
					t.Fatalf("%v, %s fails: init said %v of %q, found %q, error %v", f, faulty.Failed(), err, made.ID, found.ID, lost)
				}
				push(t, at(disk, archive.Options{}), segments(1, 0x10, 1, 1)...)
				return faulty.Fired()
			})
		}
	}
}

// nfs does what it is asked to, and says of some names that they were taken: it
// sent the call twice, and the first time counted.
func nfs(fsys files.FS, name string) files.FS {
	return hooked{FS: fsys, publish: func(_, to string, real func() error) error {
		err := real()
		if err == nil && to == name {
			return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
		}
		return err
	}}
}

func TestInitKnowsItsOwnFilesAgain(t *testing.T) {
	for _, f := range forms {
		for _, name := range []string{"archive.json", "wal/archive.id"} {
			disk := archivetest.NewMemory()
			made, err := archive.Init(t.Context(), store(nfs(disk, name)), identity(f))
			if err != nil {
				t.Errorf("%v, %s: %v", f, name, err)
			}
			disk.Crash(nil)
			if id, err := at(disk, archive.Options{}).Identity(t.Context()); err != nil || id.ID != made.ID {
				t.Errorf("%v, %s: made %q, found %q, error %v", f, name, made.ID, id.ID, err)
			}
		}
	}
}

// Two inits at the same time: one archive comes of it, and at most one says
// that it made it.
func TestOfTwoInitsOneMakesTheArchive(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		other := identity(f)
		other.CreatedBy = "the other one"
		meanwhile := func() error { _, err := archive.Init(t.Context(), store(disk), other); return err }
		late := hooked{FS: disk, publish: func(_, to string, real func() error) error {
			if to == "archive.json" {
				if err := meanwhile(); err != nil {
					t.Error(err)
				}
			}
			return real()
		}}
		_, err := archive.Init(t.Context(), store(late), identity(f))
		wantError(t, err, archive.ErrExists)
		id, err := at(disk, archive.Options{}).Identity(t.Context())
		if err != nil || id.CreatedBy != other.CreatedBy {
			t.Errorf("%v: got %+v, error %v, want the other one's", f, id, err)
		}
		if f.layout == archive.Tree {
			push(t, at(disk, archive.Options{}), segments(1, 0x10, 1, 1)...) // the marker is that of the identity
		}
	}
}

func TestInitReportsEveryFault(t *testing.T) {
	for _, f := range forms {
		untilNoFault(t, func(n int) bool {
			disk := archivetest.NewMemory()
			faulty := archivetest.NewFaulty(disk, n, archivetest.Refused)
			_, err := archive.Init(t.Context(), store(faulty), identity(f))
			tidying := strings.HasPrefix(faulty.Failed(), "remove ")
			if faulty.Fired() && !faulty.Harmless() && !tidying && err == nil {
				t.Errorf("%v: %s failed, and init said nothing", f, faulty.Failed())
			}
			return faulty.Fired()
		})
	}
}
