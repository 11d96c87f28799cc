package local_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pitr/archive/local"
)

func TestLinkNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	l := local.New(dir)
	for name, text := range map[string]string{"a": "1", "b": "2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Link(t.Context(), "a", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
	if err := errors.Join(l.Link(t.Context(), "a", "c"), l.Link(t.Context(), "a", "c")); err != nil {
		t.Errorf("the same link twice: %v", err)
	}
	if err := l.Replace(t.Context(), "b", "a"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "2", "c": "1"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestLockIsOneProcessAtATime(t *testing.T) {
	l := local.New(t.TempDir())
	release, err := l.Lock(t.Context(), ".lock")
	if err != nil {
		t.Fatal(err)
	}
	patience := errors.New("patience is over")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Millisecond, patience)
	defer cancel()
	if _, err := l.Lock(ctx, ".lock"); !errors.Is(err, patience) {
		t.Errorf("got %v, want %v", err, patience)
	}
	got := make(chan error, 1)
	go func() {
		again, err := l.Lock(t.Context(), ".lock")
		if err == nil {
			err = again()
		}
		got <- err
	}()
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("a lock that was released: %v", err)
	}
	if _, err := l.Lock(t.Context(), "missing/.lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

func TestVisitShowsEverythingOnce(t *testing.T) {
	root := t.TempDir()
	const count = 2000
	for i := range count {
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	err := local.New(root).Visit(t.Context(), ".", func(e fs.DirEntry) error { seen[e.Name()] = true; return nil })
	if err != nil || len(seen) != count {
		t.Errorf("got %d entries, %v, want %d", len(seen), err, count)
	}
	enough, shown := errors.New("enough"), 0
	err = local.New(root).Visit(t.Context(), ".", func(fs.DirEntry) error { shown++; return enough })
	if !errors.Is(err, enough) || shown != 1 {
		t.Errorf("got %d entries, %v", shown, err)
	}
	if err := local.New(root).Visit(t.Context(), "missing", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}
