package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pitr/archive/files"
	"pitr/archive/local"
)

// asked is a server that writes down, in words, what it is asked to do.
type asked struct {
	mu   sync.Mutex // guards what
	what []string
}

func (a *asked) see(p []byte) []byte {
	const rename, remove, extended = 18, 13, 200
	word := map[byte]string{fxpWrite: "write", rename: "rename", remove: "remove"}[p[0]]
	if p[0] == extended {
		n := binary.BigEndian.Uint32(p[5:9])
		word = strings.TrimSuffix(string(p[9:9+n]), "@openssh.com")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if word != "" && (len(a.what) == 0 || word != "write" || a.what[len(a.what)-1] != "write") {
		a.what = append(a.what, word)
	}
	return nil
}

// A put is synced, then linked, then every directory is synced, before it
// returns; nothing is ever renamed.
func TestPutFollowsTheProtocol(t *testing.T) {
	var seen asked
	s := newServer(t, betweenPackets(seen.see))
	store := files.NewStore(s.newFS(), local.Writer())
	content := bytes.Repeat([]byte("x"), 1<<20)
	put := func(name string) error {
		return store.Put(t.Context(), name, func(w io.Writer) error { _, err := w.Write(content); return err })
	}
	for _, name := range []string{"wal/a", "wal/d/b", "wal/d/c"} {
		seen.what = nil
		if err := put(name); err != nil {
			t.Fatal(err)
		}
		got := slices.DeleteFunc(seen.what, func(w string) bool { return w == "remove" })
		want := []string{"write", "fsync", "hardlink"}
		if name == "wal/d/b" {
			want = append(want, "hardlink") // the directory was made in between
		}
		for range strings.Count(name, "/") + 1 {
			want = append(want, "fsync")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	seen.what = nil
	if err := put("wal/a"); !errors.Is(err, fs.ErrExist) || slices.Contains(seen.what, "rename") {
		t.Errorf("got %v, %q, want %v and no rename", err, seen.what, fs.ErrExist)
	}
}

// OpenSSH says "no such file" of a link that leads nowhere, and of one that leads
// to itself.
func TestLinkThatLeadsNowhereIsNotAbsence(t *testing.T) {
	s := newServer(t, openSSH)
	f := s.newFS()
	for name, target := range map[string]string{"dangling": "nothing", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(s.root(), name)); err != nil {
			t.Fatal(err)
		}
		for _, asked := range []string{name, name + "/below"} {
			_, stat := f.Stat(t.Context(), asked)
			_, open := f.Open(t.Context(), asked)
			_, list := f.ReadDir(t.Context(), asked)
			for what, err := range map[string]error{"stat": stat, "open": open, "list": list, "sync": f.Sync(t.Context(), asked)} {
				if err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s of %s: got %v, want an error that says nothing of absence", what, asked, err)
				}
			}
		}
	}
}
