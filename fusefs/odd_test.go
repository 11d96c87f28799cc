package fusefs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/local"
	"pitr/archive/wal"
)

func TestAFlatDirectoryWithoutIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := archivetest.NewWAL(systemID, 15, 1, mb, 1, 7)
	contents := map[string][]byte{}
	var last string
	for range 4 {
		name, content := w.Next()
		last = name.String()
		contents[last] = content
		if err := os.WriteFile(filepath.Join(dir, last), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	growing := filepath.Join(dir, last)
	if err := os.Truncate(growing, 1000); err != nil { // it is being copied
		t.Fatal(err)
	}
	a := archive.New("flat", store(local.New(dir)), archive.Options{Layout: archive.Flat, GapIsEnd: true})
	m := mountOn(t, Options{Archives: archive.Set{a}})
	if got := must(t, "ls", "-A", m.path("")); strings.Contains(got, "archive.json") || strings.Count(got, "\n") != 4 {
		t.Errorf("ls: got %q", got)
	}
	for name, content := range contents {
		if name != last {
			wantContent(t, m.path(name), content)
		}
	}
	if got := must(t, "stat", "-c", "%s", m.path(last)); got != "1000\n" {
		t.Errorf("got %q bytes of what is being copied", got)
	}
	wantFails(t, "Input/output error", "cat", m.path(last))
	if err := os.WriteFile(growing, contents[last], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := must(t, "stat", "-c", "%s", m.path(last)); got != "1048576\n" {
		t.Errorf("got %q bytes of what was copied", got)
	}
	wantContent(t, m.path(last), contents[last])
	wantFails(t, "No such file", "stat", m.path("0000000100000000000000AA"))
}

// PostgreSQL must not take a segment that was set aside for the end of its WAL; the
// proof that it was there goes through the mount.
func TestWhatWasSetAsideIsAGapOverTheMountToo(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, mb, 3)
		last := parsedName(t, a.names[2])
		if _, err := a.Quarantine(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
		if got := child(t, "fetch", m.path(""), last.String()); got != "gap" {
			t.Errorf("%s: got %s, want a gap", f, got)
		}
		if got := child(t, "fetch", m.path(""), wal.SegmentName(1, 4, mb).String()); got != "absent" {
			t.Errorf("%s: got %s, want absent", f, got)
		}
		if got := must(t, "ls", "-A", m.path("")); strings.Contains(got, "quarantine") {
			t.Errorf("%s: it is listed: %s", f, got)
		}
		if got := must(t, "ls", "-l", m.path("quarantine")); !strings.Contains(got, last.String()+".") {
			t.Errorf("%s: got %s", f, got)
		}
	}
}

func TestAnArchiveThatCannotBeAskedIsNotMounted(t *testing.T) {
	t.Parallel()
	needsFUSE(t)
	good := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	none := archive.New("none", store(archivetest.NewMemory()), archive.Options{})
	otherDisk := archivetest.NewMemory()
	id := archive.Identity{SystemID: 5, Major: 15, SegmentSize: mb, Layout: archive.Tree, Codec: archive.Zstd, CreatedBy: "test"}
	if _, err := archive.Init(t.Context(), store(otherDisk), id); err != nil {
		t.Fatal(err)
	}
	other := archive.New("other", store(otherDisk), archive.Options{})
	for _, tt := range []struct {
		set  archive.Set
		want error
	}{
		{archive.Set{none}, archive.ErrNoIdentity},
		{archive.Set{good.Archive, other}, archive.ErrIdentity},
		{archive.Set{good.Archive, none}, nil},
	} {
		dir := t.TempDir()
		s, err := Mount(t.Context(), dir, Options{Archives: tt.set, Cache: CacheOptions{Dir: t.TempDir()}})
		if !errors.Is(err, tt.want) {
			t.Errorf("got %v, want %v", err, tt.want)
		}
		if s != nil {
			if err := errors.Join(s.Unmount(), s.Close(context.Background())); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := Mount(t.Context(), "/no/such/directory", Options{Archives: archive.Set{good.Archive}, Cache: CacheOptions{Dir: t.TempDir()}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsInTheCacheNeedsNoArchive(t *testing.T) {
	t.Parallel()
	a, h, m := faulty(t, Options{OnError: Fail, Ahead: 3})
	wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
	wantContent(t, m.path(a.names[1]), a.files[a.names[1]])
	for _, ahead := range a.names[2:4] {
		waitFor(t, func() bool { return m.tree.source.cache.has(parsedName(t, ahead)) })
	}
	h.set(cut)
	wantContent(t, m.path(a.names[2]), a.files[a.names[2]])
	wantContent(t, m.path(a.names[3]), a.files[a.names[3]])
}

func TestWhatWasRemovedIsAbsentWhateverTheKernelRemembers(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 3)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	for _, name := range a.names[:3] { // a gap, and then the end
		must(t, "stat", m.path(name))
		if err := a.fsys.Remove(t.Context(), "wal/0000000100000000/"+name+".zst"); err != nil {
			t.Fatal(err)
		}
		if name != a.names[2] { // with the last one goes the proof that it holds WAL
			wantFails(t, "No such file", "cat", m.path(name))
		}
	}
}

// Whoever recovers decides what is the end of WAL: a mount that took a torn segment
// for it would decide for all of them.
func TestATornLastSegmentIsEIOWhateverTheArchiveSays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := archivetest.NewWAL(systemID, 15, 1, mb, 1, 7)
	var last string
	for range 3 {
		name, content := w.Next()
		last = name.String()
		if last == wal.SegmentName(1, 3, mb).String() {
			clear(content[mb/2:])
		}
		if err := os.WriteFile(filepath.Join(dir, last), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := archive.New("flat", store(local.New(dir)), archive.Options{Layout: archive.Flat, GapIsEnd: true})
	m := mountOn(t, Options{Archives: archive.Set{a}, OnError: Fail})
	wantFails(t, "Input/output error", "cat", m.path(last))
}

// An archive that keeps silent does not hold up what is in the cache, nor does it tell
// that for longer than it takes to find out.
func TestASilentArchiveDoesNotHoldTheCacheUp(t *testing.T) {
	t.Parallel()
	a, h, m := faulty(t, Options{Ahead: -1})
	for _, name := range a.names[:3] {
		wantContent(t, m.path(name), a.files[name])
	}
	h.set(func(ctx context.Context, op, name string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	lookups := m.tree.source.health.lookups.Load()
	for _, name := range a.names[:3] {
		wantContent(t, m.path(name), a.files[name])
	}
	if m.tree.source.silent.Load() == 0 || m.tree.source.health.lookups.Load() == lookups {
		t.Error("it was not asked")
	}
	if got := m.tree.source.health.fetches.Load(); got != 3 {
		t.Errorf("%d fetches", got)
	}
	h.set(nil)
}
