package fusefs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// exchange sets a segment aside and pushes other sound content under its name.
func exchange(t *testing.T, a *pushed, name wal.Name) []byte {
	t.Helper()
	if _, err := a.Quarantine(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	_, other := archivetest.NewWAL(systemID, 15, 1, mb, 1, 8).Next()
	a.put(t, name, other)
	return other
}

func TestWhatWasExchangedIsNotServedFromTheCache(t *testing.T) {
	t.Parallel()
	for _, again := range []string{"the same mount", "another mount"} {
		a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 3)
		o := Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: t.TempDir()}}
		m := mountOn(t, o)
		first := parsedName(t, a.names[0])
		must(t, "cat", m.path(first.String()))
		other := exchange(t, a, first)
		if again == "another mount" {
			m.end(t)()
			m = mountOn(t, o)
		}
		if got := must(t, "cat", m.path(first.String())); got != string(other) {
			t.Errorf("%s: what was set aside is still served", again)
		}
	}
}

func TestPagesOfTwoContentsAreNotMixed(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 3)
	dir := t.TempDir()
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Cache: CacheOptions{Dir: dir}, Ahead: -1})
	m.refuse(true)
	first := parsedName(t, a.names[0])
	before := a.files[first.String()]
	must(t, "dd", "if="+m.path(first.String()), "bs=4096", "skip=250", "count=1", "of=/dev/null")
	found, _ := filepath.Glob(filepath.Join(dir, "*", "0*"))
	for _, f := range found { // as the cache does when it is full, or an operator
		os.Remove(f)
	}
	other := exchange(t, a, first)
	got := must(t, "cat", m.path(first.String()))
	if !bytes.Equal([]byte(got), before) && !bytes.Equal([]byte(got), other) {
		t.Error("pages of both")
	}
}

func TestACacheOfAnotherClusterIsNotServed(t *testing.T) {
	t.Parallel()
	dir, cache := t.TempDir(), t.TempDir()
	for i, id := range []uint64{systemID, systemID + 1} {
		w := archivetest.NewWAL(id, 15, 1, mb, 1, uint64(7+i))
		var name wal.Name
		var content []byte
		for range 3 {
			name, content = w.Next()
			if err := os.WriteFile(filepath.Join(dir, name.String()), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a := archive.New("file:///srv/flat", store(local.New(dir)), archive.Options{Layout: archive.Flat, GapIsEnd: true})
		m := mountOn(t, Options{Archives: archive.Set{a}, Cache: CacheOptions{Dir: cache}})
		if got := must(t, "cat", m.path(name.String())); got != string(content) {
			t.Errorf("cluster %d: other bytes than the directory has", i)
		}
		m.end(t)()
	}
}

// The end of a record that crosses into a segment cannot be verified without the
// segment before. What was served like that is looked at again when that is there.
func TestWhatCouldNotBeVerifiedYetIsNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := archivetest.NewWAL(systemID, 15, 1, mb, 1, 7)
	var names []wal.Name
	var contents [][]byte
	for range 4 {
		n, c := w.Next()
		names, contents = append(names, n), append(contents, c)
	}
	put := func(i int) {
		if err := os.WriteFile(filepath.Join(dir, names[i].String()), contents[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	contents[2][40+8] ^= 1 // in the end of the record that began in the segment before
	put(0)
	put(2)
	put(3)
	a := archive.New("flat", store(local.New(dir)), archive.Options{Layout: archive.Flat, GapIsEnd: true})
	m := mountOn(t, Options{Archives: archive.Set{a}, Ahead: -1})
	out, err := command(t, "cat", m.path(names[2].String()))
	t.Logf("without the segment before: %d bytes, %v", len(out), err)
	put(1)
	if out, err := command(t, "cat", m.path(names[2].String())); err == nil {
		t.Errorf("%d bytes of a segment that is damaged", len(out))
	}
	m.end(t)()
	m = mountOn(t, Options{Archives: archive.Set{a}, Ahead: -1})
	_, err = command(t, "cat", m.path(names[2].String()))
	t.Logf("with an empty cache: %v", err)
}
