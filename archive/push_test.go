package archive_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// earlyEnd is a file of which less can be read than its size says.
type earlyEnd struct {
	*bytes.Reader
	size int64
}

func (e earlyEnd) Size() int64  { return e.size }
func (e earlyEnd) Close() error { return nil }

// label is a backup label file, with a comment of some length.
func label(t testing.TB, comment int) file {
	return file{parsed(t, "000000010000000000000010.00000028.backup"), []byte(
		"START WAL LOCATION: 0/1000028 (file 000000010000000000000010)\nLABEL: " + strings.Repeat("x", comment) + "\n")}
}

// everyKind is one file of every kind.
func everyKind(t testing.TB) []file {
	partial := segments(1, 0x11, 1, 1)[0]
	partial.name = partial.name.Partial()
	return []file{segments(1, 0x10, 1, 1)[0], partial, history(3, "1\t0/1234568\tx\n2\t0/2234568\tno recovery target specified\n"), label(t, 10)}
}

// A source that ends early is a disk that fails, not a shorter file: neither is
// it stored, nor does it count as another one than the whole that is there.
func TestSourceThatEndsEarlyIsNotStored(t *testing.T) {
	for _, f := range forms {
		for _, one := range everyKind(t) {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			short := earlyEnd{bytes.NewReader(one.content[:len(one.content)*2/3]), int64(len(one.content))}
			_, err := a.Push(t.Context(), one.name, short)
			if err == nil || errors.Is(err, archive.ErrConflict) {
				t.Errorf("%v, %s: got %v, want a doubt", f, one.name, err)
			}
			wantStored(t, a)
			push(t, a, one)
			_, err = a.Push(t.Context(), one.name, short)
			if err == nil || errors.Is(err, archive.ErrConflict) {
				t.Errorf("%v, %s, where the whole one is: got %v, want a doubt", f, one.name, err)
			}
			wantStored(t, a, one.name)
			wantFile(t, a, one)
		}
	}
}

// wantStored compares what an archive lists, in any order.
func wantStored(t testing.TB, a *archive.Archive, want ...wal.Name) {
	t.Helper()
	entries, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []wal.Name
	for _, e := range entries {
		got = append(got, e.Name)
	}
	byName := func(a, b wal.Name) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(got, byName)
	slices.SortFunc(want, byName)
	if !slices.Equal(got, want) {
		t.Errorf("got %v in the archive, want %v", got, want)
	}
}

// mounted is a directory on which a file system lies until it is gone: then
// what was below it appears.
type mounted struct {
	files.FS
	below files.FS
}

// The file system goes away after it was looked at: what is put then lands in
// the empty place below, and PostgreSQL must not be told that it is safe.
func TestPushIntoAPlaceThatWentAwayIsNotAcknowledged(t *testing.T) {
	one := segments(1, 0x10, 1, 1)[0]
	for _, f := range forms {
		for _, empty := range []bool{true, false} {
			disk, below := archivetest.NewMemory(), archivetest.NewMemory()
			newArchive(t, disk, f, archive.Options{})
			if !empty { // another archive's marker
				newArchive(t, below, f, archive.Options{})
			} else if f.layout == archive.Tree {
				if err := below.Mkdir(t.Context(), "wal"); err != nil {
					t.Fatal(err)
				}
			}
			shown := &mounted{disk, below}
			sees := hooked{FS: shown, readDir: func(name string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error) {
				if name == "wal" || strings.HasPrefix(name, files.TempPrefix) { // where a push sweeps
					shown.FS = shown.below
				}
				return real()
			}}
			_, err := at(sees, archive.Options{}).Push(t.Context(), one.name, one.source())
			want := archive.ErrNoIdentity
			if !empty {
				want = archive.ErrIdentity
			}
			wantError(t, err, want)
			wantStored(t, at(disk, archive.Options{}))
		}
	}
}

// What cannot be read may be the same file: that is neither a conflict nor a
// reason to store another one.
func TestStoredFileThatCannotBeReadIsADoubt(t *testing.T) {
	for _, f := range forms {
		for _, one := range everyKind(t) {
			for what, broken := range map[string]func(files.FS, string) files.FS{"not opened": unreadable, "cut while it is read": cutShort} {
				disk := archivetest.NewMemory()
				push(t, newArchive(t, disk, f, archive.Options{}), one)
				if what != "not opened" && f.codec == archive.Zstd {
					continue // there it is damage: the end of the file is missing
				}
				_, err := at(broken(disk, stored(f, one.name)), archive.Options{}).Push(t.Context(), one.name, one.source())
				if err == nil || errors.Is(err, archive.ErrConflict) {
					t.Errorf("%v, %s, %s: got %v, want a doubt", f, one.name, what, err)
				}
				wantStored(t, at(disk, archive.Options{}), one.name)
			}
		}
	}
}

// cutShort lets only the beginning of one file be read.
func cutShort(fsys files.FS, cut string) files.FS {
	return hooked{FS: fsys, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
		o, err := real()
		if err != nil || name != cut {
			return o, err
		}
		part, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()*2/3))
		return earlyEnd{bytes.NewReader(part), o.Size()}, err
	}}
}

// Histories and labels are read into memory: they are small, or no such files.
func TestHugeHistoriesAndLabelsAreRefused(t *testing.T) {
	text := "1\t0/1234568\tx\n" + strings.Repeat("# comment\n", 1<<20/10)
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		push(t, a, label(t, 1<<19))
		for _, one := range []file{history(2, text), label(t, 1<<20)} {
			_, err := a.Push(t.Context(), one.name, one.source())
			wantError(t, err, archive.ErrForeign)
		}
		wantStored(t, a, label(t, 0).name)
	}
}

// Damage in a segment is PostgreSQL's own: it is stored, and told of each time.
func TestPushTellsWhatTheRecordsLookLike(t *testing.T) {
	damaged := segments(1, 0x10, 1, 1)[0]
	damaged.content[mb/2] ^= 1
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		for i, found := range []bool{false, true} {
			done, err := a.Push(t.Context(), damaged.name, damaged.source())
			if err != nil || done.Walk.Status != wal.Damaged || done.Found != found || done.As != damaged.name {
				t.Errorf("%v, push %d: got %+v, error %v, want damage to be told", f, i, done, err)
			}
		}
		sound := segments(1, 0x11, 1, 1)[0]
		if done, err := a.Push(t.Context(), sound.name, sound.source()); err != nil || done.Walk.Status != wal.Complete || done.Walk.Records == 0 {
			t.Errorf("%v: got %+v, error %v, want a complete walk", f, done, err)
		}
	}
}

// besidePath is where a partial lies that was stored beside another one.
func besidePath(t testing.TB, disk files.FS, f form, name wal.Name) string {
	t.Helper()
	dir := path.Dir(stored(f, name))
	entries, err := disk.ReadDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if full := path.Join(dir, e.Name()); strings.Contains(full, ".partial.") && full != stored(f, name) {
			return full
		}
	}
	t.Fatalf("nothing lies beside %s", name)
	return ""
}

// twoPartials are what two standbys push that were promoted in one segment.
func twoPartials() (ours, theirs file) {
	ours, theirs = segments(1, 0x11, 1, 1)[0], segments(1, 0x11, 1, 2)[0]
	ours.name, theirs.name = ours.name.Partial(), theirs.name.Partial()
	return ours, theirs
}

func TestDamagedPartialBesideIsAConflict(t *testing.T) {
	ours, theirs := twoPartials()
	for _, f := range forms {
		for what, change := range map[string]func([]byte) []byte{
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
			"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		} {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, ours, theirs)
			beside := besidePath(t, disk, f, ours.name)
			rewrite(t, disk, beside, change)
			_, err := a.Push(t.Context(), theirs.name, theirs.source())
			wantError(t, err, archive.ErrConflict)
			if !strings.Contains(err.Error(), beside) || hintOf(err) == "" {
				t.Errorf("%v, %s: %v has HINT %q, want %s in it", f, what, err, hintOf(err), beside)
			}
			drop(t, disk, beside)
			push(t, a, theirs)
		}
	}
}

func TestPartialIsStoredBesideADamagedOne(t *testing.T) {
	ours, _ := twoPartials()
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, ours)
		rewrite(t, disk, stored(f, ours.name), func(b []byte) []byte { return b[:len(b)/2] })
		push(t, a, ours)
		besidePath(t, disk, f, ours.name)
	}
}

// As with any file: whoever stored it may have died before it was durable.
func TestPartialFoundBesideSurvivesACrash(t *testing.T) {
	ours, theirs := twoPartials()
	for _, f := range forms {
		for _, kind := range []archivetest.Fault{archivetest.Killed, archivetest.KilledAfter} {
			untilNoFault(t, func(n int) bool {
				disk := archivetest.NewMemory()
				push(t, newArchive(t, disk, f, archive.Options{}), ours)
				faulty := archivetest.NewFaulty(disk, n, kind)
				pushAll(t, at(faulty, archive.Options{}), []file{theirs})
				push(t, at(disk, archive.Options{}), theirs)
				disk.Crash(nil)
				besidePath(t, disk, f, ours.name)
				return faulty.Fired()
			})
		}
	}
}

func TestPushSweepsWhatDeadWritersLeft(t *testing.T) {
	dead := local.Writer()
	if dead.Host == "" {
		t.Skip("this machine has no id, so nobody is proven dead: write /etc/machine-id")
	}
	dead.PID = 1 << 30 // more than any system has
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		all := segments(1, 0x10, 2, 1)
		push(t, a, all[0])
		dir := "wal"
		if f.layout == archive.Flat {
			dir = files.PendingDirectory
		}
		plant(t, disk, path.Join(dir, dead.NewTempName()), []byte("half"))
		push(t, a, all[1])
		if entries, err := disk.ReadDir(t.Context(), dir); err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
			return strings.HasPrefix(e.Name(), files.TempPrefix)
		}) {
			t.Errorf("%v: %v is left, error %v, want no temporary file", f, entries, err)
		}
	}
}

func TestPushToASetTellsEveryError(t *testing.T) {
	one := segments(1, 0x10, 1, 1)[0]
	whole := func() *archive.Archive { return newArchive(t, archivetest.NewMemory(), forms[0], archive.Options{}) }
	missing := at(archivetest.NewMemory(), archive.Options{})
	conflict := whole()
	push(t, conflict, segments(1, 0x10, 1, 2)...)
	for _, c := range []struct {
		set  archive.Set
		want []error
	}{
		{archive.Set{whole(), whole()}, nil},
		{archive.Set{missing, whole()}, []error{archive.ErrNoIdentity}},
		{archive.Set{whole(), missing}, []error{archive.ErrNoIdentity}},
		{archive.Set{missing, conflict}, []error{archive.ErrNoIdentity, archive.ErrConflict}},
		{archive.Set{conflict, missing}, []error{archive.ErrNoIdentity, archive.ErrConflict}},
	} {
		_, err := c.set.Push(t.Context(), one.name, one.source())
		if (err == nil) != (len(c.want) == 0) {
			t.Errorf("got %v, want %v", err, c.want)
		}
		for _, want := range c.want {
			wantError(t, err, want)
		}
	}
	if _, err := (archive.Set{}).Push(t.Context(), one.name, one.source()); err == nil {
		t.Error("a push to no archive at all succeeded")
	}
}

// Status 2, which Go's own end by a panic has, would tell PostgreSQL that a
// recovery is over.
func TestPanicIsAnError(t *testing.T) {
	one := segments(1, 0x10, 1, 1)[0]
	a := at(hooked{FS: archivetest.NewMemory(), open: func(string, func() (files.Object, error)) (files.Object, error) {
		panic("a slip of ours")
	}}, archive.Options{})
	_, pushed := a.Push(t.Context(), one.name, one.source())
	fetched := a.Fetch(t.Context(), one.name, patience, func(write func(io.Writer) error) error { return write(io.Discard) })
	for _, err := range []error{pushed, fetched} {
		if err == nil || !strings.Contains(err.Error(), "internal error: a slip of ours") || errors.Is(err, archive.ErrAbsent) {
			t.Errorf("got %v, want an internal error", err)
		}
	}
}
