package ship_test

import (
	"bytes"
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// TestAheadWaitsForTheHistory: what follows on another timeline is not published
// before PostgreSQL has asked for that one's history. If it is another server's,
// nothing of ours lies behind it.
func TestAheadWaitsForTheHistory(t *testing.T) {
	g := archivetest.NewWAL(systemID, 15, 2, mb, 0x12, 1)
	next, content := g.Next()
	s := newSite(t)
	other := file{history(2).name, []byte("1\t0/1080000\tno recovery target specified\n")}
	if _, err := pushAhead(t, newPGWAL(other), s).Push(t.Context(), other.name); err != nil {
		t.Fatal(err)
	}
	first := segments(0x10, 2, 1)
	w := newPGWAL(first[0], first[1], history(2), file{next, content})
	a := pushAhead(t, w, s)
	if _, err := a.Push(t.Context(), first[0].name); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return !a.Busy() && len(s.order()) >= 3 })
	if _, err := a.Push(t.Context(), history(2).name); err == nil {
		t.Error("another server's history is taken for ours")
	}
	a.Close(t.Context())
	if got := s.order(); slices.ContainsFunc(got, func(name string) bool { return strings.Contains(name, next.String()) }) {
		t.Errorf("%s lies behind another server's history: %q", next, got)
	}
}

// TestAheadStoresAPartialBesideTheFinishedOne, as a call without an agent does.
func TestAheadStoresAPartialBesideTheFinishedOne(t *testing.T) {
	whole := segments(0x11, 1, 1)[0]
	cut := file{whole.name, slices.Clone(whole.content)}
	clear(cut.content[archivetest.Boundary(t, whole.name, whole.content)%wal.LSN(mb):])
	for _, f := range forms {
		disk := treeSite(t, f)
		if _, err := archiveAt(disk).Push(t.Context(), whole.name, bytes.NewReader(whole.content)); err != nil {
			t.Fatal(err)
		}
		a := pushAhead(t, newPGWAL(cut), disk)
		for range 2 {
			done, err := a.Push(t.Context(), cut.name)
			if err != nil || done[0].As != cut.name.Partial() {
				t.Errorf("%v: got %+v, %v, want a .partial", f, done, err)
			}
		}
	}
}

// hungPublish is a disk that answers everything but one request.
type hungPublish struct{ files.FS }

func (h hungPublish) Publish(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestAnArchiveThatOnlyAnswersIsFailing: a probe proves that it is there, and not
// that it takes files.
func TestAnArchiveThatOnlyAnswersIsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := segments(0x10, 1, 1)[0]
		a := pushAhead(t, newPGWAL(first), hungPublish{newSite(t)})
		for range 2 {
			if _, err := a.Push(t.Context(), first.name); err == nil {
				t.Fatal("it took the file")
			}
			for range 60 {
				time.Sleep(time.Second)
				if s := a.States()[0]; !s.Failing {
					t.Fatalf("it has taken nothing: %+v", s)
				}
			}
			if s := a.States()[0]; !s.Down.IsZero() {
				t.Errorf("it answers: %+v", s)
			}
		}
	})
}

// forgetful is a disk that loses one file as soon as a later one has its name.
type forgetful struct {
	files.FS
	lost wal.Name

	mu    sync.Mutex // guards later
	later chan struct{}
	there bool // lost was published
}

func (f *forgetful) Publish(ctx context.Context, from, to string) error {
	err := f.FS.Publish(ctx, from, to)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch lost := strings.HasPrefix(path.Base(to), f.lost.String()); {
	case err != nil:
	case lost:
		f.there = true
	case f.there && f.later != nil:
		close(f.later)
		f.later = nil
	}
	return err
}

func (f *forgetful) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	if !strings.HasPrefix(path.Base(name), f.lost.String()) {
		return f.FS.Stat(ctx, name)
	}
	f.mu.Lock()
	later, there := f.later, f.there
	f.mu.Unlock()
	if there && later != nil {
		select {
		case <-later:
		case <-time.After(5 * time.Second): // it was not ahead
		}
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// TestAheadAnswersForNothingBehindAFileThatFailed: what is published already, and
// comes after a file that turns out to be lost, is not what the archive has last.
func TestAheadAnswersForNothingBehindAFileThatFailed(t *testing.T) {
	all := segments(0x10, 6, 1)
	lost := all[2].name
	f := &forgetful{FS: newSite(t), lost: lost, later: make(chan struct{})}
	w := newPGWAL(all...)
	a := pushAhead(t, w, f)
	for _, one := range all[:2] {
		if _, err := a.Push(t.Context(), one.name); err != nil {
			t.Fatal(err)
		}
		w.done(one.name)
	}
	if _, err := a.Push(t.Context(), lost); err == nil {
		t.Error("the file is gone, and was answered for")
	}
	until(t, func() bool { return !a.Busy() })
	if s := a.States()[0]; !s.Failing || s.Last != all[1].name || s.ErrFile != lost {
		t.Errorf("got %+v, want %s as the last, and that %s failed", s, all[1].name, lost)
	}
}

// TestAnArchiveThatIsLeftAloneIsNotDown: PostgreSQL asks for something else while
// an archive is being opened slowly.
func TestAnArchiveThatIsLeftAloneIsNotDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := segments(0x10, 1, 1)[0]
		h := &hanging{FS: newSite(t)}
		h.set(true)
		a := pushAhead(t, newPGWAL(first, history(2)), h)
		ctx, leave := context.WithTimeout(t.Context(), 6*time.Second)
		defer leave()
		if _, err := a.Push(ctx, first.name); err == nil {
			t.Fatal("it hangs, and took the file")
		}
		h.set(false)
		if _, err := a.Push(t.Context(), history(2).name); err != nil {
			t.Errorf("%v; %+v", err, a.States())
		}
		a.Close(context.Background())
		synctest.Wait()
	})
}
