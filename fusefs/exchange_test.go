package fusefs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
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

// A history may change its size with its content: the kernel must not keep the old one.
func TestAHistoryThatWasExchangedIsWholeAgain(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, mb, 3)
		m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
		name := wal.HistoryName(2)
		for i, text := range []string{"", "1\t0/2345678\tno recovery target specified, and more than before\n", "1\t0/2345678\tx\n"} {
			if i > 0 {
				if _, err := a.Quarantine(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				wantFails(t, "No such file", "cat", m.path(name.String()))
				a.put(t, name, []byte(text))
			}
			wantContent(t, m.path(name.String()), a.files[name.String()])
		}
	}
}

// Who has the old file open reads on in it, and who opens it then reads the new one.
func TestWhoHasTheOldFileOpenReadsOnInIt(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"passed through", "served", "in parts"} {
		a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 3)
		m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Ahead: -1})
		m.refuse(way == "served")
		if way == "in parts" {
			m.tree.source.limit.Store(int64(mb) / 2)
		}
		first := parsedName(t, a.names[0])
		before := a.files[first.String()]
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `exec 3< "$1"; echo open; read x; cat <&3`, "sh", m.path(first.String()))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		other := exchange(t, a, first)
		wantContent(t, m.path(first.String()), other)
		fmt.Fprintln(in)
		if got, err := io.ReadAll(lines); err != nil || !bytes.Equal(got, before) {
			t.Errorf("%s: %d bytes of the old one, %v", way, len(got), err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// Of two archives that differ, the second one serves while the first is away.
func TestAnotherArchivesContentIsAnotherFile(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 3)
	b := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 3)
	first := parsedName(t, a.names[0])
	other := exchange(t, b, first)
	h := &hooked{FS: a.fsys}
	m := mountOn(t, Options{Archives: archive.Set{a.through(h), b.Archive}, Ahead: -1})
	m.refuse(true)
	same := m.path(a.names[1])
	wantContent(t, same, a.files[a.names[1]])
	for range 2 {
		h.set(nil)
		wantContent(t, m.path(first.String()), a.files[first.String()])
		h.set(cut)
		wantContent(t, m.path(first.String()), other)
		wantContent(t, same, a.files[a.names[1]])
	}
	fetches := m.tree.source.health.fetches.Load()
	for range 2 {
		h.set(nil)
		wantContent(t, same, a.files[a.names[1]])
		h.set(cut)
		wantContent(t, same, a.files[a.names[1]])
	}
	if again := m.tree.source.health.fetches.Load() - fetches; again > 1 {
		t.Errorf("the same content was fetched %d times more", again)
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
