package archivetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"time"

	"pitr/archive"
)

// Kind is a kind of store that the suite tries.
type Kind struct {
	// Open returns a new, empty store. Two calls give two stores.
	Open func(t *testing.T) archive.Store
	// AppendOnly: nothing that stands can be removed or moved.
	AppendOnly bool
}

// TestStore is what every store has to pass.
func TestStore(t *testing.T, k Kind) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, k Kind, s archive.Store)
	}{
		{"PutIsRead", testPutIsRead},
		{"PutNeverReplaces", testPutNeverReplaces},
		{"FailedWriteLeavesNothing", testFailedWrite},
		{"CancelledPutLeavesNothing", testCancelledPut},
		{"PutMakesOneDirectoryOnly", testPutMakesOneDirectory},
		{"AbsentIsSaid", testAbsent},
		{"FileInThePlaceOfADirectoryIsNotAbsence", testFileForDirectory},
		{"EndedContextIsNoAnswer", testEndedContext},
		{"OneOfManyWritersWins", testConcurrentPuts},
		{"ListHidesTemporaryFiles", testList},
		{"SyncOfFoundFile", testSync},
		{"RemoveAndMove", testRemoveAndMove},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := k.Open(t)
			c.test(t, k, s)
			nothingTemporary(t, s)
		})
	}
}

func put(s archive.Store, ctx context.Context, name string, content []byte) error {
	return s.Put(ctx, name, func(w io.Writer) error {
		for len(content) > 0 {
			n := min(len(content), 100_000)
			if _, err := w.Write(content[:n]); err != nil {
				return err
			}
			content = content[n:]
		}
		return nil
	})
}

func mustPut(t *testing.T, s archive.Store, name, content string) {
	t.Helper()
	if err := put(s, t.Context(), name, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

// read returns the content of a file, read at odd offsets.
func read(ctx context.Context, s archive.Store, name string) ([]byte, error) {
	f, err := s.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err == nil && f.Size() > 10 {
		part := make([]byte, 5)
		if _, err = f.ReadAt(part, 3); err == nil && !bytes.Equal(part, content[3:8]) {
			err = fmt.Errorf("read at 3: got %q, want %q", part, content[3:8])
		}
	}
	return content, errors.Join(err, f.Close())
}

func wantContent(t *testing.T, s archive.Store, name string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), s, name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes, error %v, want %d bytes", name, len(got), err, len(want))
	}
	info, err := s.Stat(t.Context(), name)
	if err != nil || info.Size() != int64(len(want)) || info.IsDir() {
		t.Errorf("%s: stat %v, error %v, want %d bytes", name, info, err, len(want))
	}
}

func wantAbsent(t *testing.T, s archive.Store, name string) {
	t.Helper()
	if _, err := s.Stat(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: stat gives %v, want fs.ErrNotExist", name, err)
	}
}

// nothingTemporary fails if a test left a temporary file behind.
func nothingTemporary(t *testing.T, s archive.Store) {
	t.Helper()
	for _, dir := range []string{".", "wal"} {
		left, err := s.Sweep(t.Context(), dir, time.Now().Add(time.Hour))
		if len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("temporary files left: %q, error %v", left, err)
		}
	}
}

func testPutIsRead(t *testing.T, _ Kind, s archive.Store) {
	for _, size := range []int{0, 1, 4096, 3_000_001} {
		name := fmt.Sprintf("wal/f%d", size)
		content := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		if err := put(s, t.Context(), name, content); err != nil {
			t.Fatal(err)
		}
		wantContent(t, s, name, content)
	}
}

func testPutNeverReplaces(t *testing.T, _ Kind, s archive.Store) {
	for _, name := range []string{"top", "wal/a"} {
		mustPut(t, s, name, "first")
		err := put(s, t.Context(), name, []byte("second"))
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("second put: got %v, want fs.ErrExist", err)
		}
		wantContent(t, s, name, []byte("first"))
	}
}

func testFailedWrite(t *testing.T, _ Kind, s archive.Store) {
	broken := errors.New("source is broken")
	err := s.Put(t.Context(), "wal/a", func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	wantAbsent(t, s, "wal/a")
	mustPut(t, s, "wal/a", "whole")
	wantContent(t, s, "wal/a", []byte("whole"))
}

func testCancelledPut(t *testing.T, _ Kind, s archive.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Put(ctx, "wal/a", func(w io.Writer) error {
		_, err := io.WriteString(w, "whole")
		cancel()
		return err
	})
	if err == nil {
		wantContent(t, s, "wal/a", []byte("whole"))
		return
	}
	wantAbsent(t, s, "wal/a")
}

func testPutMakesOneDirectory(t *testing.T, _ Kind, s archive.Store) {
	if err := put(s, t.Context(), "wal/x/a", []byte("a")); err == nil {
		t.Error("a put below a missing directory made two")
	}
	wantAbsent(t, s, "wal")
	mustPut(t, s, "wal/m", "m")
	mustPut(t, s, "wal/x/a", "a")
	wantContent(t, s, "wal/x/a", []byte("a"))
}

func testAbsent(t *testing.T, _ Kind, s archive.Store) {
	mustPut(t, s, "wal/a", "a")
	for _, name := range []string{"b", "wal/b", "wal/x/b"} {
		wantAbsent(t, s, name)
		if _, err := s.Open(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %s: got %v, want fs.ErrNotExist", name, err)
		}
		if err := s.Sync(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("sync %s: got %v, want fs.ErrNotExist", name, err)
		}
	}
	if _, err := s.List(t.Context(), "wal/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list: got %v, want fs.ErrNotExist", err)
	}
	if f, err := s.Open(t.Context(), "wal"); err == nil {
		t.Errorf("a directory opened as a file: %v", f.Close())
	}
}

// operations are those that name one place, and change nothing that a test needs.
func operations(s archive.Store, name string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"open": func(ctx context.Context) error {
			f, err := s.Open(ctx, name)
			if err == nil {
				err = f.Close()
			}
			return err
		},
		"stat": func(ctx context.Context) error { _, err := s.Stat(ctx, name); return err },
		"list": func(ctx context.Context) error { _, err := s.List(ctx, name); return err },
		"sync": func(ctx context.Context) error { return s.Sync(ctx, name) },
		"put":  func(ctx context.Context) error { return put(s, ctx, name+"/a", []byte("a")) },
		"sweep": func(ctx context.Context) error {
			_, err := s.Sweep(ctx, name, time.Time{})
			return err
		},
	}
}

// A stray file where a directory ought to be proves nothing about what should
// be in it.
func testFileForDirectory(t *testing.T, _ Kind, s archive.Store) {
	mustPut(t, s, "wal/a", "a")
	for what, do := range operations(s, "wal/a/b") {
		if err := do(t.Context()); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			t.Errorf("%s below a file: got %v, want an error that says nothing of absence", what, err)
		}
	}
	if entries, err := s.List(t.Context(), "wal/a"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list of a file: got %d entries, error %v, want an error that says nothing of absence", len(entries), err)
	}
}

func testEndedContext(t *testing.T, k Kind, s archive.Store) {
	mustPut(t, s, "wal/a", "a")
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	for what, do := range operations(s, "wal/b") {
		if err := do(ctx); !errors.Is(err, enough) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s after the end: got %v, want %v alone", what, err, enough)
		}
	}
	if err := s.Move(ctx, "wal/a", "wal/c"); !k.AppendOnly && !errors.Is(err, enough) {
		t.Errorf("move after the end: got %v, want %v", err, enough)
	}
	if err := s.Remove(ctx, "wal/a"); !k.AppendOnly && !errors.Is(err, enough) {
		t.Errorf("remove after the end: got %v, want %v", err, enough)
	}
	wantContent(t, s, "wal/a", []byte("a"))
}

func testConcurrentPuts(t *testing.T, _ Kind, s archive.Store) {
	const writers = 8
	mustPut(t, s, "wal/m", "m")
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			errs[i] = put(s, t.Context(), "wal/x/a", bytes.Repeat([]byte{byte('a' + i)}, 300_000))
		})
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("writers %d and %d both stored the file", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("writer %d: got %v, want fs.ErrExist", i, err)
		}
	}
	if won < 0 {
		t.Fatal("nobody stored the file")
	}
	wantContent(t, s, "wal/x/a", bytes.Repeat([]byte{byte('a' + won)}, 300_000))
}

func testList(t *testing.T, _ Kind, s archive.Store) {
	mustPut(t, s, "wal/a", "a")
	err := s.Put(t.Context(), "wal/b", func(io.Writer) error {
		entries, err := s.List(t.Context(), "wal")
		if len(entries) != 1 {
			t.Errorf("during a put: %v, want a alone", entries)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.List(t.Context(), "wal")
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
		if info, err := e.Info(); err != nil || info.Size() != 1 && e.Name() == "a" {
			t.Errorf("%s: %v, error %v", e.Name(), info, err)
		}
	}
	if err != nil || len(entries) != 2 || !names["a"] || !names["b"] {
		t.Errorf("got %v, error %v, want a and b", names, err)
	}
	top, err := s.List(t.Context(), ".")
	if err != nil || len(top) != 1 || !top[0].IsDir() {
		t.Errorf("root: got %v, error %v, want the directory wal", top, err)
	}
}

func testSync(t *testing.T, _ Kind, s archive.Store) {
	mustPut(t, s, "top", "t")
	mustPut(t, s, "wal/a", "a")
	for _, name := range []string{"top", "wal/a"} {
		if err := s.Sync(t.Context(), name); err != nil {
			t.Errorf("sync %s: %v", name, err)
		}
	}
}

func testRemoveAndMove(t *testing.T, k Kind, s archive.Store) {
	mustPut(t, s, "wal/a", "a")
	mustPut(t, s, "wal/b", "b")
	if k.AppendOnly {
		if err := s.Remove(t.Context(), "wal/a"); err == nil {
			t.Error("remove succeeded on an append-only store")
		}
		if err := s.Move(t.Context(), "wal/a", "quarantine/a"); err == nil {
			t.Error("move succeeded on an append-only store")
		}
		wantContent(t, s, "wal/a", []byte("a"))
		return
	}
	if err := s.Move(t.Context(), "wal/a", "wal/b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("move onto a file: got %v, want fs.ErrExist", err)
	}
	wantContent(t, s, "wal/a", []byte("a"))
	wantContent(t, s, "wal/b", []byte("b"))
	if err := s.Move(t.Context(), "wal/a", "quarantine/a"); err != nil {
		t.Error(err)
	}
	wantAbsent(t, s, "wal/a")
	wantContent(t, s, "quarantine/a", []byte("a"))
	if err := s.Remove(t.Context(), "wal/b"); err != nil {
		t.Error(err)
	}
	wantAbsent(t, s, "wal/b")
	if err := s.Remove(t.Context(), "wal/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("second remove: got %v, want fs.ErrNotExist", err)
	}
}
