package files_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pitr/archive/archivetest"
	"pitr/archive/files"
)

// recorder is a file system that writes down what is done to it, and lets one
// step fail.
type recorder struct {
	files.FS
	did  *[]string
	fail string // what fails, by the beginning of its line
}

var errBroken = errors.New("broken")

func (r recorder) note(what string) error {
	*r.did = append(*r.did, what)
	if r.fail != "" && strings.HasPrefix(what, r.fail) {
		return errBroken
	}
	return nil
}

// generic puts "temp" in the place of a temporary name.
func generic(name string) string {
	if dir, base := path.Split(name); strings.HasPrefix(base, files.TempPrefix) && name != files.PendingDirectory {
		return dir + "temp"
	}
	return name
}

func (r recorder) Create(ctx context.Context, name string) (files.File, error) {
	if err := r.note("create " + generic(name)); err != nil {
		return nil, err
	}
	f, err := r.FS.Create(ctx, name)
	return recordedFile{f, r}, err
}

type recordedFile struct {
	files.File
	r recorder
}

func (f recordedFile) Sync() error  { return errors.Join(f.r.note("sync temp"), f.File.Sync()) }
func (f recordedFile) Close() error { return errors.Join(f.r.note("close temp"), f.File.Close()) }

func (r recorder) Mkdir(ctx context.Context, name string) error {
	if err := r.note("mkdir " + name); err != nil {
		return err
	}
	return r.FS.Mkdir(ctx, name)
}

func (r recorder) Publish(ctx context.Context, from, to string) error {
	if err := r.note("publish " + generic(from) + " " + to); err != nil {
		return err
	}
	return r.FS.Publish(ctx, from, to)
}

func (r recorder) Sync(ctx context.Context, name string) error {
	if err := r.note("sync " + name); err != nil {
		return err
	}
	return r.FS.Sync(ctx, name)
}

func (r recorder) Remove(ctx context.Context, name string) error {
	if err := r.note("remove " + generic(name)); err != nil {
		return err
	}
	return r.FS.Remove(ctx, name)
}

func host() files.Writer {
	return files.Writer{Host: "db1", Boot: "b1", PIDNamespace: "p1", PID: 100, Alive: func(pid int) bool { return pid == 100 }}
}

func put(t *testing.T, fsys files.FS, name string) error {
	return files.NewStore(fsys, host()).Put(t.Context(), name, func(w io.Writer) error {
		_, err := io.WriteString(w, name)
		return err
	})
}

// TestPutFollowsTheProtocol: the steps of "Putting a file" in docs/format.md.
func TestPutFollowsTheProtocol(t *testing.T) {
	for _, c := range []struct {
		name string
		want []string
	}{
		{"wal/d/f", []string{"create wal/temp", "sync temp", "close temp", "publish wal/temp wal/d/f", "mkdir wal/d", "publish wal/temp wal/d/f", "sync wal/d", "sync wal", "sync ."}},
		{"wal/f", []string{"create wal/temp", "mkdir wal", "create wal/temp", "sync temp", "close temp", "publish wal/temp wal/f", "sync wal", "sync ."}},
		{"f", []string{"create .tmp-pending/temp", "mkdir .tmp-pending", "create .tmp-pending/temp", "sync temp", "close temp", "publish .tmp-pending/temp f", "sync ."}},
	} {
		disk := archivetest.NewMemory()
		if strings.HasPrefix(c.name, "wal/d") {
			if err := disk.Mkdir(t.Context(), "wal"); err != nil {
				t.Fatal(err)
			}
		}
		var did []string
		if err := put(t, recorder{FS: disk, did: &did}, c.name); err != nil || !slices.Equal(did, c.want) {
			t.Errorf("%s: got %q, error %v\nwant %q", c.name, did, err, c.want)
		}
	}
}

// Whichever step fails, the put says so; before the file is published, nothing
// is left of it.
func TestPutReportsWhateverFails(t *testing.T) {
	for _, step := range []string{"mkdir wal/d", "create", "sync temp", "close temp", "publish", "sync wal", "sync ."} {
		disk := archivetest.NewMemory()
		if err := put(t, disk, "wal/before"); err != nil {
			t.Fatal(err)
		}
		var did []string
		err := put(t, recorder{disk, &did, step}, "wal/d/f")
		if !errors.Is(err, errBroken) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("%s fails: got %v, want %v alone", step, err, errBroken)
		}
		_, stat := disk.Stat(t.Context(), "wal/d/f")
		if published := step == "sync wal" || step == "sync ."; (stat == nil) != published {
			t.Errorf("%s fails: the file is there: %v, want %v", step, stat == nil, published)
		}
		wantNothingTemporary(t, disk, "wal")
	}
}

func wantNothingTemporary(t *testing.T, fsys files.FS, dir string) {
	t.Helper()
	entries, err := fsys.ReadDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), files.TempPrefix) {
			t.Errorf("%s is left", e.Name())
		}
	}
}

func TestPutTellsOfATemporaryFileItCannotRemove(t *testing.T) {
	var did []string
	disk := archivetest.NewMemory()
	broken := errors.New("source is broken")
	err := files.NewStore(recorder{disk, &did, "remove"}, host()).Put(t.Context(), "wal/f", func(io.Writer) error { return broken })
	if !errors.Is(err, broken) || !errors.Is(err, errBroken) {
		t.Errorf("got %v, want both errors", err)
	}
}

// The new name is durable before the old one is gone: in between the file has
// both, not none.
func TestMoveSyncsTheNewNameFirst(t *testing.T) {
	disk := archivetest.NewMemory()
	for _, name := range []string{"wal/m", "wal/d/f"} {
		if err := put(t, disk, name); err != nil {
			t.Fatal(err)
		}
	}
	var did []string
	store := files.NewStore(recorder{FS: disk, did: &did}, host())
	want := []string{"publish wal/d/f wal/q/f", "mkdir wal/q", "publish wal/d/f wal/q/f", "sync wal/q", "sync wal", "sync .", "sync wal/d", "sync wal", "sync ."}
	if err := store.Move(t.Context(), "wal/d/f", "wal/q/f"); err != nil || !slices.Equal(did, want) {
		t.Errorf("got %q, error %v\nwant %q", did, err, want)
	}
	disk.Crash(nil)
	if _, err := disk.Stat(t.Context(), "wal/q/f"); err != nil {
		t.Errorf("after a crash: %v", err)
	}
	if _, err := disk.Stat(t.Context(), "wal/d/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name came back: %v", err)
	}
}

func TestMoveReportsWhateverFails(t *testing.T) {
	for _, step := range []string{"mkdir", "publish", "sync q", "sync wal"} {
		disk := archivetest.NewMemory()
		if err := put(t, disk, "wal/f"); err != nil {
			t.Fatal(err)
		}
		var did []string
		err := files.NewStore(recorder{disk, &did, step}, host()).Move(t.Context(), "wal/f", "q/f")
		if !errors.Is(err, errBroken) {
			t.Errorf("%s fails: got %v, want %v", step, err, errBroken)
		}
	}
}

// deadName is a temporary name of a process of this host that is gone.
func deadName() string {
	dead := host()
	dead.PID = 77
	return dead.NewTempName()
}

func TestSweepRemovesWhatDeadWritersLeftAndNothingElse(t *testing.T) {
	disk := archivetest.NewMemory()
	dead := deadName()
	alive := host().NewTempName()
	for _, name := range []string{"wal/f", "wal/" + dead, "wal/" + alive} {
		w, err := create(t, disk, name)
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	store := files.NewStore(disk, host())
	if got, err := store.Sweep(t.Context(), "wal", time.Time{}); err != nil || !slices.Equal(got, []string{"wal/" + dead}) {
		t.Errorf("got %q, error %v, want the dead writer's", got, err)
	}
	if got, err := store.Sweep(t.Context(), "wal", time.Now().Add(time.Hour)); err != nil || !slices.Equal(got, []string{"wal/" + alive}) {
		t.Errorf("by age: got %q, error %v, want the other one too", got, err)
	}
}

// create makes a file and its directory.
func create(t *testing.T, fsys files.FS, name string) (files.File, error) {
	if err := fsys.Mkdir(t.Context(), path.Dir(name)); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return fsys.Create(t.Context(), name)
}

// faster removes what another one is about to remove.
type faster struct{ files.FS }

func (f faster) Remove(ctx context.Context, name string) error {
	if err := f.FS.Remove(ctx, name); err != nil {
		return err
	}
	return f.FS.Remove(ctx, name)
}

func TestTwoSweepersDoNotStopEachOther(t *testing.T) {
	disk := archivetest.NewMemory()
	for range 2 {
		w, err := create(t, disk, "wal/"+deadName())
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := files.NewStore(faster{disk}, host()).Sweep(t.Context(), "wal", time.Time{})
	if err != nil || len(got) > 0 {
		t.Errorf("got %q, error %v, want nothing removed and no error", got, err)
	}
	wantNothingTemporary(t, disk, "wal")
}

func TestSweepTellsWhatItCouldNotRemove(t *testing.T) {
	disk := archivetest.NewMemory()
	w, err := create(t, disk, "wal/"+deadName())
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	var did []string
	if _, err := files.NewStore(recorder{disk, &did, "remove"}, host()).Sweep(t.Context(), "wal", time.Time{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
}

// While a file of the root is written, its temporary file lies where sweepers of
// the root find it, and where a listing of the root does not show it.
func TestTemporaryFilesOfTheRootLieInADirectoryOfTheirOwn(t *testing.T) {
	disk := archivetest.NewMemory()
	store := files.NewStore(disk, host())
	err := store.Put(t.Context(), "f", func(io.Writer) error {
		pending, err := disk.ReadDir(t.Context(), files.PendingDirectory)
		if err != nil || len(pending) != 1 {
			t.Errorf("got %v in %s, error %v, want one file", pending, files.PendingDirectory, err)
		}
		top, err := store.List(t.Context(), ".")
		if err != nil || len(top) > 0 {
			t.Errorf("got %v in the root, error %v, want nothing", top, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	wantNothingTemporary(t, disk, files.PendingDirectory)
}
