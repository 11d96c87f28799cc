package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/wal"
)

// onDisk is what lies in a cache directory: its files, and their bytes.
func onDisk(t *testing.T, dir string) (files []string, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				files, bytes = append(files, path), bytes+info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // what is being fetched gets its name meanwhile
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, bytes
}

func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 12)
	cache := t.TempDir()
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: cache, Bytes: 4 << 20}})
	for range 2 {
		for _, name := range a.names {
			wantContent(t, m.path(name), a.files[name])
			if _, bytes := onDisk(t, cache); bytes > 4<<20 {
				t.Fatalf("%d bytes in the cache", bytes)
			}
		}
	}
	files, bytes := onDisk(t, cache)
	if len(files) < 3 || bytes > 4<<20 {
		t.Errorf("%d files, %d bytes in the cache", len(files), bytes)
	}
	m.end(t)()
	if held := m.tree.source.cache.held(); held != bytesOf(t, files) {
		t.Errorf("%d bytes are counted, %d are there", held, bytesOf(t, files))
	}
	smaller := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: cache, Bytes: 2 << 20}})
	if _, bytes := onDisk(t, cache); bytes > 2<<20 {
		t.Errorf("%d bytes in a cache that is smaller now", bytes)
	}
	wantContent(t, smaller.path(a.names[0]), a.files[a.names[0]])
}

func bytesOf(t *testing.T, files []string) (sum int64) {
	t.Helper()
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += costOf(info.Size())
	}
	return sum
}

func TestFilesOfTheCacheAreNobodyElses(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 1)
	cache := filepath.Join(t.TempDir(), "made", "here")
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: cache}})
	wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
	files, _ := onDisk(t, cache)
	if len(files) != 1 {
		t.Fatalf("got %q", files)
	}
	for path, want := range map[string]fs.FileMode{files[0]: 0o400, filepath.Dir(files[0]): 0o700, cache: 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// counting counts how often files of PostgreSQL are opened.
func counting(a *pushed) (*archive.Archive, *atomic.Int64) {
	var n atomic.Int64
	h := &hooked{FS: a.fsys, hook: func(_ context.Context, op, name string) error {
		base, _, _ := strings.Cut(path.Base(name), ".")
		if _, there := a.files[base]; there && op == "open" {
			n.Add(1)
		}
		return nil
	}}
	return a.through(h), &n
}

func TestARestartUsesTheCache(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 4)
	through, opened := counting(a)
	cache := CacheOptions{Dir: t.TempDir()}
	for range 2 {
		m := mountOn(t, Options{Archives: archive.Set{through}, Cache: cache})
		for _, name := range a.names[:4] {
			wantContent(t, m.path(name), a.files[name])
		}
		m.end(t)()
	}
	if got := opened.Load(); got != 4 {
		t.Errorf("segments were opened %d times, want once each", got)
	}
}

func TestATornFileOfTheCacheIsFound(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 4)
	cache := CacheOptions{Dir: t.TempDir()}
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: cache})
	for _, name := range a.names[:4] {
		wantContent(t, m.path(name), a.files[name])
	}
	m.end(t)()
	files, _ := onDisk(t, cache.Dir)
	for i, f := range files {
		switch {
		case i == 0:
			err := os.WriteFile(f, nil, 0) // as after a crash, before anything was written
			if os.Chmod(f, 0o600) != nil || err != nil {
				t.Fatal(err)
			}
		case i == 1:
			if err := os.WriteFile(f, make([]byte, mb), 0); err != nil { // only the length was
				t.Fatal(err)
			}
		case i == 2:
			flip(t, f, 777)
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(files[0]), tempPrefix+"9"), []byte("half"), 0o400); err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(cache.Dir, "notes.txt")
	if err := os.WriteFile(stranger, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	m = mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: cache})
	for _, name := range a.names[:4] {
		wantContent(t, m.path(name), a.files[name])
	}
	if files, _ := onDisk(t, cache.Dir); len(files) != 5 {
		t.Errorf("got %q, want four segments and what is not ours", files)
	}
}

func TestTheCacheMayBeDeletedAtAnyTime(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 4)
	cache := filepath.Join(t.TempDir(), "cache")
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: cache}})
	read := func(names ...string) {
		t.Helper()
		for _, name := range names {
			wantContent(t, m.path(name), a.files[name])
		}
	}
	read(a.names[:2]...)
	files, _ := onDisk(t, cache)
	for _, f := range files { // its files
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	read(a.names[:3]...)
	if err := os.RemoveAll(filepath.Dir(files[0])); err != nil { // the directory of the archive
		t.Fatal(err)
	}
	read(a.names[:3]...)
	if err := os.RemoveAll(cache); err != nil { // all of it
		t.Fatal(err)
	}
	read(a.names...)
	if files, _ := onDisk(t, cache); len(files) < 4 {
		t.Errorf("it is not used any more: %q", files)
	}
	if _, err := openCache(CacheOptions{Dir: cache, Bytes: 1 << 30}, strings.Repeat("0", keyLength)); err == nil {
		t.Error("it is not locked any more")
	}
	m.end(t)()
	if held := m.tree.source.cache.held(); held != 4*int64(mb)+4096 {
		t.Errorf("%d bytes are counted", held)
	}
}

func TestTwoMountsDoNotShareACache(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 1)
	cache := CacheOptions{Dir: t.TempDir()}
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: cache})
	dir := t.TempDir()
	_, err := Mount(t.Context(), dir, Options{Archives: archive.Set{a.Archive}, Cache: cache})
	if err == nil || !strings.Contains(err.Error(), "another mount uses it") || !strings.Contains(err.Error(), cache.Dir) {
		t.Errorf("got %v", err)
	}
	m.end(t)()
	mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: cache})
}

// smallDisk is a file system of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	needsFUSE(t)
	dir := t.TempDir()
	if err := syscall.Mount("small", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Fatal(err) // who can mount with FUSE can mount this
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestAFullDiskMakesRoomOrIsEIO(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 8)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: smallDisk(t, "3500k")}, OnError: Fail, Ahead: -1})
	for _, name := range a.names {
		wantContent(t, m.path(name), a.files[name])
	}
	m.end(t)()
	m = mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: smallDisk(t, "900k")}, OnError: Fail, Ahead: -1})
	wantFails(t, "Input/output error", "cat", m.path(a.names[0]))
	if log := m.log.String(); !strings.Contains(log, "no space left on device") {
		t.Errorf("no reason in the log: %s", log)
	}
	wantContent(t, m.path("00000002.history"), a.files["00000002.history"])
}

func TestFilesThatAreOpenStayReadable(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"passed through", "served"} {
		a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 8)
		cache := t.TempDir()
		m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: cache, Bytes: 2 << 20}})
		m.refuse(way == "served")
		script := `exec 3< "$1"; shift; for f in "$@"; do cat "$f" > /dev/null; done; rm -rf "$CACHE"/*; cat <&3`
		cmd := []string{"env", "CACHE=" + cache, "sh", "-c", script, "sh"}
		for _, name := range a.names {
			cmd = append(cmd, m.path(name))
		}
		if got := must(t, cmd[0], cmd[1:]...); got != string(a.files[a.names[0]]) {
			t.Errorf("%s: got %d bytes", way, len(got))
		}
	}
}

func TestATornFileInTheCacheTellsNoSize(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 1)
	a.put(t, wal.HistoryName(4), []byte("1\t0/4000000\tx\n2\t0/5000000\tx\n3\t0/6000000\tx\n"))
	dir := t.TempDir()
	o := Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: dir}}
	m := mountOn(t, o)
	must(t, "cat", m.path("00000004.history"))
	m.end(t)()
	found, _ := filepath.Glob(filepath.Join(dir, "*", "00000004.history.*"))
	if err := os.Truncate(strings.Join(found, ""), 14); err != nil {
		t.Fatal(err)
	}
	m = mountOn(t, o)
	m.refuse(true)
	wantContent(t, m.path("00000004.history"), a.files["00000004.history"])
}

func TestACacheFileThatChangedOnDiskIsNotServed(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 1)
	dir := t.TempDir()
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: dir}})
	must(t, "cat", m.path(a.names[0]))
	found, _ := filepath.Glob(filepath.Join(dir, "*", a.names[0]+".*"))
	flip(t, strings.Join(found, ""), 5000)
	wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
}

func TestACacheThatOthersMayWriteToIsRefused(t *testing.T) {
	t.Parallel()
	needsFUSE(t)
	key := strings.Repeat("0", keyLength)
	for what, spoil := range map[string]func(root string) error{
		"mode":            func(root string) error { return os.Chmod(root, 0o770) },
		"mode of all":     func(root string) error { return os.Chmod(root, 0o702) },
		"owner":           func(root string) error { return os.Chown(root, 65534, 0) },
		"inner mode":      func(root string) error { return os.Chmod(filepath.Join(root, key), 0o770) },
		"inner owner":     func(root string) error { return os.Chown(filepath.Join(root, key), 65534, 0) },
		"symbolic link":   func(root string) error { return errors.Join(os.Rename(root, root+"2"), os.Symlink(root+"2", root)) },
		"inner link":      func(root string) error { return errors.Join(os.Remove(root+"/"+key), os.Symlink("/tmp", root+"/"+key)) },
		"not a directory": func(root string) error { return errors.Join(os.RemoveAll(root), os.WriteFile(root, nil, 0o600)) },
	} {
		root := filepath.Join(t.TempDir(), "cache")
		c, err := openCache(CacheOptions{Dir: root, Bytes: 1 << 20}, key)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.close(), spoil(root)); err != nil {
			t.Fatal(err)
		}
		_, err = openCache(CacheOptions{Dir: root, Bytes: 1 << 20}, key)
		if what == "not a directory" && err != nil {
			continue // in whatever words
		}
		if !errors.Is(err, ErrCacheUnsafe) {
			t.Errorf("%s: got %v, want %v", what, err, ErrCacheUnsafe)
		}
	}
}

// What somebody else put there, under the right name and with the right content even,
// is fetched anew.
func TestAFileOfAnotherUserInTheCacheIsNotServed(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	cache := CacheOptions{Dir: t.TempDir()}
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: cache, Ahead: -1})
	for _, name := range a.names[:2] {
		wantContent(t, m.path(name), a.files[name])
	}
	files, _ := onDisk(t, cache.Dir)
	away := filepath.Join(t.TempDir(), "away")
	err := errors.Join(os.Chown(files[0], 65534, 65534), os.Rename(files[1], away), os.Symlink(away, files[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range a.names[:2] {
		wantContent(t, m.path(name), a.files[name])
	}
	if got := m.tree.source.health.fetches.Load(); got != 4 {
		t.Errorf("%d fetches, want both files fetched again", got)
	}
}

// A cache whose disk is full says nothing of the archives.
func TestAFullDiskIsNotTheArchivesFault(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	b := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	through, opened := counting(b)
	m := mountOn(t, Options{
		Archives: archive.Set{a.Archive, through}, Cache: CacheOptions{Dir: smallDisk(t, "900k")}, OnError: Fail, Ahead: -1,
	})
	wantFails(t, "Input/output error", "cat", m.path(a.names[0]))
	for _, h := range m.tree.source.health.report(m.tree.source.cache).Archives {
		if h.LastError != "" || !h.Up && h.Name == a.Name() && h.LastSuccess != nil {
			t.Errorf("%+v", h)
		}
	}
	if opened.Load() != 0 {
		t.Errorf("the other archive was asked for it %d times", opened.Load())
	}
}
