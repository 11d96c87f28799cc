package prefetch

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// hung does not come back from opening one file, until it is told to.
type hung struct {
	*counting
	name string
	back chan struct{}
}

func (h hung) Open(ctx context.Context, name string) (files.Object, error) {
	if strings.HasPrefix(filepath.Base(name), h.name) {
		<-h.back
	}
	return h.counting.Open(ctx, name)
}

// Who asks for what is on its way waits no longer for its next byte than it was told.
func TestASegmentThatHangsIsAskedForAnew(t *testing.T) {
	all := segments(1, 0x10, 3)
	a, disk := holding(t, all...)
	h := hung{disk, all[1].name.String(), make(chan struct{})}
	ways := 0
	r := newReader(t)
	r.Connect = func() Source {
		if ways++; ways == 1 { // the first one is asked over
			return Source{archive.Set{a}, func() {}}
		}
		return Source{archive.Set{archiveOn(h)}, func() {}}
	}
	want(t, r, all[0])
	f, _, err := r.Get(t.Context(), all[1].name, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	close(h.back)
	want(t, r, all[2])
}

// A connection may be dead without a word. After a doubt nobody uses it any more, and
// it is closed when the last one has left it.
func TestADoubtIsTheEndOfAConnection(t *testing.T) {
	all := segments(1, 0x10, 6)
	a, disk := holding(t, all...)
	var mu sync.Mutex
	made, closed := 0, 0
	r := newReader(t)
	r.Connect = func() Source {
		mu.Lock()
		defer mu.Unlock()
		made++
		return Source{archive.Set{a}, func() { mu.Lock(); defer mu.Unlock(); closed++ }}
	}
	count := func() (int, int) { mu.Lock(); defer mu.Unlock(); return made, closed }
	want(t, r, all[:2]...)
	settled(t, r)
	if m, c := count(); m != 2 || c != 0 {
		t.Errorf("made %d, closed %d, want one for questions and one for the rest", m, c)
	}
	if _, err := get(t, r, wal.SegmentName(1, 0x99, mb)); !errors.Is(err, archive.ErrAbsent) {
		t.Errorf("got %v, want %v", err, archive.ErrAbsent)
	}
	if m, c := count(); m != 2 || c != 0 {
		t.Errorf("an answer: made %d, closed %d", m, c)
	}
	errAway := errors.New("not a byte")
	disk.setAway(errAway)
	for range 2 {
		if _, err := get(t, r, all[0].name); !errors.Is(err, errAway) {
			t.Errorf("got %v, want %v", err, errAway)
		}
	}
	if m, c := count(); m != 3 || c != 2 {
		t.Errorf("two doubts: made %d, closed %d", m, c)
	}
	disk.setAway(nil)
	want(t, r, all...)
	r.Close()
	if m, c := count(); m != c {
		t.Errorf("at the end: made %d, closed %d", m, c)
	}
}

// slow is a disk on which segments wait to be opened until they are let in.
type slow struct {
	*counting
	let chan struct{}
	at  *atomic.Int64 // that wait
}

func (s slow) Open(ctx context.Context, name string) (files.Object, error) {
	if _, err := wal.ParseName(strings.TrimSuffix(filepath.Base(name), ".zst")); err == nil {
		s.at.Add(1)
		<-s.let
		s.at.Add(-1)
	}
	return s.counting.Open(ctx, name)
}

// A slow line belongs to what PostgreSQL waits for.
func TestNothingIsFetchedAheadOfAQuestion(t *testing.T) {
	all := segments(1, 0x10, 8)
	_, disk := holding(t, all...)
	s := slow{disk, make(chan struct{}), new(atomic.Int64)}
	r := newReader(t, archiveOn(s))
	done := make(chan struct{})
	go func() {
		defer close(done)
		want(t, r, all[0])
	}()
	ahead := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.underWay()
	}
	for end := time.Now().Add(time.Minute); s.at.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the question is not asked")
		}
	}
	// Whatever wants more meanwhile: the end of an earlier fetch, another call.
	r.Start(all[0].name)
	if n := ahead(); n != 0 {
		t.Errorf("%d are fetched ahead of the question", n)
	}
	s.let <- struct{}{}
	<-done
	if n := ahead(); n != 1 { // until it is known how long one takes
		t.Errorf("%d are fetched ahead after it, want one", n)
	}
	close(s.let)
	want(t, r, all...)
}

// What every archive lacks by itself, and another one helps out with, is told of.
func TestReadingAheadNamesWhatAnArchiveLacks(t *testing.T) {
	all := segments(1, 0x10, 6)
	_, gap := holding(t, slices.Concat(all[:2], all[4:])...)
	_, whole := holding(t, all...)
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, nil))
	logged := func(fsys files.FS) *archive.Archive {
		return archive.New("memory", files.NewStore(fsys, local.Writer()), archive.Options{Cluster: cluster, Log: log})
	}
	r := newReader(t, logged(gap), logged(whole))
	want(t, r, all[0])
	settled(t, r)
	want(t, r, all[1:]...)
	settled(t, r)
	for _, f := range all[2:4] {
		if !strings.Contains(said.String(), f.name.String()) {
			t.Errorf("not a word of %s: %s", f.name, &said)
		}
	}
}

// Of a raw segment into which a record crosses, the segment before vouches for. While
// that is not there, nothing does.
func TestWhatCannotBeVerifiedYetIsNotKept(t *testing.T) {
	all := segments(1, 0x10, 3)
	disk := newCounting()
	id := archive.Identity{SystemID: systemID, Major: 15, SegmentSize: mb, Layout: archive.Flat, Codec: archive.None, CreatedBy: "test", Created: time.Unix(1, 0)}
	if _, err := archive.Init(t.Context(), files.NewStore(disk, local.Writer()), id); err != nil {
		t.Fatal(err)
	}
	a := archiveOn(disk)
	bad := slices.Clone(all[1].content)
	bad[60] ^= 1
	f, err := disk.Create(t.Context(), all[1].name.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bad); err != nil {
		t.Fatal(err)
	}
	push(t, a, all[2])
	r := newReader(t, a)
	r.Start(all[0].name)
	if got := settled(t, r); len(got) > 0 {
		t.Errorf("kept: %q", got)
	}
	push(t, a, all[0])
	want(t, r, all[0])
	if _, err := get(t, r, all[1].name); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("got %v, want %v", err, archive.ErrDamaged)
	}
}
