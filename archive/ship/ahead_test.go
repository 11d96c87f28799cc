package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

// pgWAL is a pg_wal in memory.
type pgWAL struct {
	mu    sync.Mutex // guards the rest
	files map[wal.Name]pgFile
	ready []wal.Name
	open  int // files that nobody has closed
	// unreadable cannot be opened.
	unreadable wal.Name
}

type pgFile struct {
	*bytes.Reader
	version int
	closed  func()
}

func (f pgFile) Facts() any   { return f.version }
func (f pgFile) Close() error { f.closed(); return nil }

// newPGWAL has files that all wait to be archived.
func newPGWAL(all ...file) *pgWAL {
	w := &pgWAL{files: map[wal.Name]pgFile{}}
	for i, f := range all {
		w.put(f, i)
		w.ready = append(w.ready, f.name)
	}
	slices.SortFunc(w.ready, wal.CompareArchiving)
	return w
}

func (w *pgWAL) put(f file, version int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[f.name] = pgFile{Reader: bytes.NewReader(f.content), version: version}
}

func (w *pgWAL) Ready(_ context.Context, after wal.Name, most int) ([]wal.Name, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []wal.Name
	for _, n := range w.ready {
		if wal.CompareArchiving(n, after) > 0 && len(names) < most {
			names = append(names, n)
		}
	}
	return names, nil
}

func (w *pgWAL) Open(name wal.Name) (ship.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, ok := w.files[name]
	if name == w.unreadable {
		return nil, &fs.PathError{Op: "open", Path: name.String(), Err: fs.ErrPermission}
	}
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name.String(), Err: fs.ErrNotExist}
	}
	w.open++
	f.closed = func() { w.mu.Lock(); defer w.mu.Unlock(); w.open-- }
	return f, nil
}

// done is PostgreSQL's note that a file is archived.
func (w *pgWAL) done(name wal.Name) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = slices.DeleteFunc(w.ready, func(n wal.Name) bool { return n == name })
}

// form is one stored form of an archive.
type form struct {
	layout archive.Layout
	codec  archive.Codec
}

var forms = []form{{archive.Tree, archive.Zstd}, {archive.Flat, archive.None}}

// treeSite is a disk with an archive of a form.
func treeSite(t testing.TB, f form) *archivetest.Memory {
	t.Helper()
	disk := archivetest.NewMemory()
	id := archive.Identity{
		SystemID: systemID, Major: 15, SegmentSize: mb, Layout: f.layout, Codec: f.codec,
		Created: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), CreatedBy: "test",
	}
	if _, err := archive.Init(t.Context(), files.NewStore(disk, local.Writer()), id); err != nil {
		t.Fatal(err)
	}
	return disk
}

func archiveAt(fsys files.FS) *archive.Archive {
	return archive.New("memory", files.NewStore(fsys, local.Writer()), archive.Options{Cluster: cluster})
}

func wayInto(fsys files.FS) ship.Way {
	store := files.NewStore(fsys, local.Writer())
	a := archive.New("memory", store, archive.Options{Cluster: cluster})
	return ship.Way{Archive: a, Intake: archive.NewIntake(a, store)}
}

// engine is an agent's engine over archives that are there. Somebody closes it.
func engine(w ship.WAL, disks ...files.FS) *ship.Ahead {
	a := &ship.Ahead{WAL: w, Budget: time.Minute, Patience: 10 * time.Second}
	for _, d := range disks {
		a.Ways = append(a.Ways, wayInto(d))
	}
	return a
}

// pushAhead is one that ends with the test.
func pushAhead(t testing.TB, w ship.WAL, disks ...files.FS) *ship.Ahead {
	a := engine(w, disks...)
	t.Cleanup(func() { a.Close(context.Background()) })
	return a
}

// until waits for what is about to happen in the background.
func until(t testing.TB, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !happened(); {
		if time.Now().After(end) {
			t.Fatal("waited 5m in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

// archiver does what PostgreSQL's does: file by file, until one fails.
func archiver(t testing.TB, a *ship.Ahead, w *pgWAL, all []file) (archived []file, err error) {
	for i, f := range all {
		if _, err := a.Push(t.Context(), f.name); err != nil {
			return all[:i], err
		}
		w.done(f.name)
	}
	return all, nil
}

func wantArchived(t testing.TB, fsys files.FS, all ...file) {
	t.Helper()
	for _, f := range all {
		if got, err := fetched(t, fsys, f.name); err != nil || !bytes.Equal(got, f.content) {
			t.Errorf("%s: got %d bytes, error %v, want what was pushed", f.name, len(got), err)
		}
	}
}

func fetched(t testing.TB, fsys files.FS, name wal.Name) ([]byte, error) {
	var got bytes.Buffer
	err := archiveAt(fsys).Fetch(t.Context(), name, time.Minute, func(write func(io.Writer) error) error {
		got.Reset()
		return write(&got)
	})
	return got.Bytes(), err
}

// wantNoHole checks that no file is to be seen whose predecessor is not.
func wantNoHole(t testing.TB, fsys files.FS, all []file) {
	t.Helper()
	entries, err := archiveAt(fsys).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there := map[wal.Name]bool{}
	for _, e := range entries {
		there[e.Name] = true
	}
	for i, f := range all[1:] {
		if there[f.name] && !there[all[i].name] {
			t.Errorf("%s is there, and %s before it is not", f.name, all[i].name)
		}
	}
}

// wal40 is a history and more segments than go ahead at a time.
func wal40() []file { return append([]file{history(2)}, segments(0x10, 40, 1)...) }

func TestAheadPublishesInTheArchiversOrder(t *testing.T) {
	for _, afar := range []bool{false, true} {
		s := newSite(t)
		var disk files.FS = s
		if afar {
			disk = archivetest.Distant{FS: s}
		}
		all := wal40()
		w := newPGWAL(all...)
		a := pushAhead(t, w, disk)
		if got, err := archiver(t, a, w, all); err != nil {
			t.Fatalf("far %v: %d files, then %v", afar, len(got), err)
		}
		wantArchived(t, s, all...)
		if got, want := s.order(), names(all); !slices.Equal(got, want) {
			t.Errorf("far %v: published %q, want %q", afar, got, want)
		}
		a.Close(t.Context())
		if w.open != 0 {
			t.Errorf("%d files of pg_wal are still open", w.open)
		}
	}
}

// What PostgreSQL did not ask for yet is on its way when it asks for the first.
func TestAheadGoesAhead(t *testing.T) {
	s := newSite(t)
	all := segments(0x10, 100, 1)
	w := newPGWAL(all...)
	a := pushAhead(t, w, s)
	if _, err := a.Push(t.Context(), all[0].name); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return len(s.order()) >= 30 })
	a.Close(t.Context())
	if n := len(s.order()); n > 40 {
		t.Errorf("%d files were published when PostgreSQL had asked for one: memory and time have no bound", n)
	}
}

// Whatever fails: what was acknowledged survives a crash, nothing is published
// behind a file that is not there, and archiving goes on.
func TestAheadSurvivesEveryFault(t *testing.T) {
	all := append([]file{history(2)}, segments(0x10, 3, 1)...)
	for _, f := range forms {
		for _, kind := range archivetest.Faults {
			for _, afar := range []bool{false, true} {
				t.Run(fmt.Sprint(f.layout, kind, afar), func(t *testing.T) {
					t.Parallel()
					step := 1
					if testing.Short() {
						step = 7
					}
					for n := 1; faultAhead(t, f, kind, afar, n, all); n += step {
						if n > 1000 {
							t.Fatal("more than 1000 operations")
						}
					}
				})
			}
		}
	}
}

func faultAhead(t *testing.T, f form, kind archivetest.Fault, afar bool, n int, all []file) (fired bool) {
	disk := treeSite(t, f)
	faulty := archivetest.NewFaulty(disk, n, kind)
	var at files.FS = faulty
	if afar {
		at = archivetest.Distant{FS: faulty}
	}
	w := newPGWAL(all...)
	a := engine(w, at)
	got, err := archiver(t, a, w, all)
	wantNoHole(t, disk, all)
	if err != nil && (kind == archivetest.Refused || kind == archivetest.Unconfirmed) {
		rest, err := archiver(t, a, w, all[len(got):]) // a fault is over when PostgreSQL asks again
		if got = all[:len(got)+len(rest)]; err != nil {
			t.Errorf("%s failed once, and then %v", faulty.Failed(), err)
		}
	}
	a.Close(t.Context())
	var random *rand.Rand // every other time: not all that was not synced is lost
	if n%2 == 0 {
		random = rand.New(rand.NewPCG(uint64(n), 1))
	}
	disk.Crash(random)
	wantArchived(t, disk, got...)
	// An agent that follows completes it.
	w = newPGWAL(all...)
	next := engine(w, disk)
	if _, err := archiver(t, next, w, all); err != nil {
		t.Errorf("after %s failed and a crash: %v", faulty.Failed(), err)
	}
	next.Close(t.Context())
	wantArchived(t, disk, all...)
	if t.Failed() {
		t.Fatalf("operation %d, %s", n, faulty.Failed())
	}
	return faulty.Fired()
}

// hookedCreate counts what is begun to be stored.
type hookedCreate struct {
	files.FS
	created func()
}

func (h hookedCreate) Create(ctx context.Context, name string) (files.File, error) {
	h.created()
	return h.FS.Create(ctx, name)
}

func TestAheadStopsAtAConflict(t *testing.T) {
	all, others := segments(0x10, 20, 1), segments(0x10, 20, 2)
	for _, f := range forms {
		disk := treeSite(t, f)
		if _, err := archiveAt(disk).Push(t.Context(), others[5].name, bytes.NewReader(others[5].content)); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		created := 0
		at := hookedCreate{disk, func() { mu.Lock(); created++; mu.Unlock() }}
		w := newPGWAL(all...)
		a := pushAhead(t, w, at)
		got, err := archiver(t, a, w, all)
		if len(got) != 5 || !errors.Is(err, archive.ErrConflict) {
			t.Fatalf("%d files were archived, then %v; want 5 and a conflict", len(got), err)
		}
		until(t, func() bool { return !a.Busy() }) // what was ahead of it is dropped
		// PostgreSQL asks again and again. Nothing else is sent for that.
		for range 3 {
			mu.Lock()
			created = 0
			mu.Unlock()
			if _, err := a.Push(t.Context(), all[5].name); !errors.Is(err, archive.ErrConflict) {
				t.Fatalf("asked again: %v, want a conflict", err)
			}
			until(t, func() bool { return !a.Busy() })
			mu.Lock()
			if created > 1 {
				t.Errorf("%d files were sent for one that is refused", created)
			}
			mu.Unlock()
		}
		entries, err := archiveAt(disk).List(t.Context())
		if err != nil || len(entries) != 6 {
			t.Errorf("the archive has %d files, error %v, want 5 of ours and the one that stood there", len(entries), err)
		}
	}
}

// A file that has changed since it was read is not the one that the archive has.
func TestAheadAnswersForTheFileThatItRead(t *testing.T) {
	all, others := segments(0x10, 10, 1), segments(0x10, 10, 2)
	s := newSite(t)
	w := newPGWAL(all...)
	a := pushAhead(t, w, s)
	if _, err := a.Push(t.Context(), all[0].name); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return len(s.order()) == len(all) })
	w.put(all[1], 100) // touched
	if _, err := a.Push(t.Context(), all[1].name); err != nil {
		t.Errorf("the same content, touched: %v", err)
	}
	w.put(others[2], 101)
	if _, err := a.Push(t.Context(), all[2].name); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("other content: %v, want a conflict", err)
	}
}

// PostgreSQL may ask for any file at any time: a history comes between.
func TestAheadFollowsPostgreSQL(t *testing.T) {
	all := segments(0x10, 30, 1)
	s := newSite(t)
	w := newPGWAL(all...)
	a := pushAhead(t, w, s)
	h := history(3)
	w.put(h, 1000)
	order := slices.Concat(all[:3], []file{h}, all[3:5], []file{all[29]}, all[5:29])
	if got, err := archiver(t, a, w, order); err != nil {
		t.Fatalf("%d files, then %v", len(got), err)
	}
	wantArchived(t, s, order...)
}

// An archive that fails does not make the others compare what they have.
func TestAheadAsksOnlyWhereAFileIsMissing(t *testing.T) {
	all := segments(0x10, 5, 1)
	good, bad := newSite(t), newSite(t)
	var mu sync.Mutex
	created := 0
	w := newPGWAL(all...)
	a := pushAhead(t, w, hookedCreate{good, func() { mu.Lock(); created++; mu.Unlock() }}, bad)
	bad.setAway(errAway)
	for try := range 3 {
		if _, err := a.Push(t.Context(), all[0].name); !errors.Is(err, errAway) {
			t.Fatalf("got %v, want %v", err, errAway)
		}
		until(t, func() bool { return !a.Busy() })
		mu.Lock()
		if try > 0 && created > 0 {
			t.Errorf("a file was sent again to the archive that has it")
		}
		created = 0
		mu.Unlock()
	}
	wantArchived(t, good, all[0])
	bad.setAway(nil)
	if _, err := archiver(t, a, w, all); err != nil {
		t.Fatal(err)
	}
	wantArchived(t, good, all...)
	wantArchived(t, bad, all...)
}

// One encoding serves archives of several forms.
func TestAheadServesArchivesOfAnyForm(t *testing.T) {
	all := wal40()
	var disks []files.FS
	for _, f := range append(forms, form{archive.Tree, archive.None}, form{archive.Tree, archive.Zstd}) {
		disks = append(disks, archivetest.Distant{FS: treeSite(t, f)})
	}
	w := newPGWAL(all...)
	if got, err := archiver(t, pushAhead(t, w, disks...), w, all); err != nil {
		t.Fatalf("%d files, then %v", len(got), err)
	}
	for _, d := range disks {
		wantArchived(t, d, all...)
	}
}

// hanging does not answer, or only when its context ends.
type hanging struct {
	files.FS
	mu    sync.Mutex // guards hangs
	hangs bool
}

func (h *hanging) set(hangs bool) { h.mu.Lock(); defer h.mu.Unlock(); h.hangs = hangs }

func (h *hanging) Open(ctx context.Context, name string) (files.Object, error) {
	h.mu.Lock()
	hangs := h.hangs
	h.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return h.FS.Open(ctx, name)
}

func TestAnArchiveThatIsSilentIsDownUntilItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := segments(0x10, 4, 1)
		s := newSite(t)
		disk := &hanging{FS: s}
		w := newPGWAL(all...)
		a := pushAhead(t, w, disk)
		disk.set(true)
		if _, err := a.Push(t.Context(), all[0].name); err == nil {
			t.Fatal("pushed into an archive that hangs")
		}
		began := time.Now()
		_, err := a.Push(t.Context(), all[0].name)
		if err == nil || !strings.Contains(err.Error(), "has not answered since") || time.Since(began) > time.Second {
			t.Errorf("got %v after %s, want to hear at once that it is down", err, time.Since(began))
		}
		if states := a.States(); states[0].Down.IsZero() {
			t.Errorf("got %+v, want it down", states[0])
		}
		disk.set(false)
		time.Sleep(40 * time.Second) // the longest pause of the probe, and its own patience
		if _, err := archiver(t, a, w, all); err != nil {
			t.Errorf("it answers again, and a push says %v", err)
		}
		if states := a.States(); !states[0].Down.IsZero() || states[0].Failing || states[0].Last != all[3].name {
			t.Errorf("got %+v, want it up with the last file", states[0])
		}
		a.Close(t.Context())
		synctest.Wait()
	})
}

// big is segments whose encoded form is more than an encoding keeps, and an archive
// for them.
const big = 8 * mb

func bigSegments(count int) (all []file) {
	w := archivetest.NewWAL(systemID, 15, 1, big, 0x10, 1)
	for range count {
		name, content := w.Next()
		all = append(all, file{name, content})
	}
	return all
}

func bigEngine(t testing.TB, w ship.WAL, over ...func(files.FS) files.FS) *ship.Ahead {
	t.Helper()
	a := &ship.Ahead{WAL: w, Budget: time.Minute, Patience: 10 * time.Second}
	for _, wrap := range over {
		disk := wrap(archivetest.NewMemory())
		id := archive.Identity{
			SystemID: systemID, Major: 15, SegmentSize: big, Layout: archive.Tree, Codec: archive.Zstd,
			Created: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), CreatedBy: "test",
		}
		store := files.NewStore(disk, local.Writer())
		if _, err := archive.Init(t.Context(), store, id); err != nil {
			t.Fatal(err)
		}
		at := archive.New("memory", store, archive.Options{Cluster: archive.Cluster{SystemID: systemID, Major: 15, SegmentSize: big}})
		a.Ways = append(a.Ways, ship.Way{Archive: at, Intake: archive.NewIntake(at, store)})
	}
	t.Cleanup(func() { a.Close(context.Background()) })
	return a
}

// lazy takes each megabyte of what is written in its time, or until ctx ends.
type lazy struct {
	files.FS
	mb time.Duration
}

type lazyFile struct {
	files.File
	ctx context.Context
	mb  time.Duration
}

func (l lazy) Create(ctx context.Context, name string) (files.File, error) {
	f, err := l.FS.Create(ctx, name)
	return lazyFile{f, ctx, l.mb}, err
}

func (f lazyFile) Write(p []byte) (int, error) {
	select {
	case <-time.After(f.mb * time.Duration(len(p)) / (1 << 20)):
		return f.File.Write(p)
	case <-f.ctx.Done():
		return 0, context.Cause(f.ctx)
	}
}

// An archive that takes a file at once is not blamed for one that holds it up.
func TestAheadBlamesNobodyForAnother(t *testing.T) {
	good := func(fsys files.FS) files.FS { return lazy{fsys, time.Millisecond} }
	for _, where := range []string{"opened", "written"} {
		synctest.Test(t, func(t *testing.T) {
			all := bigSegments(2)
			w := newPGWAL(all...)
			silent := &hanging{}
			a := bigEngine(t, w, good, func(fsys files.FS) files.FS {
				silent.FS = fsys
				if where == "written" {
					return lazy{fsys, 24 * time.Hour}
				}
				return silent
			})
			silent.set(true)
			began := time.Now()
			_, err := a.Push(t.Context(), all[0].name)
			if took := time.Since(began); err == nil || took < a.Budget/2 || took > a.Budget+2*time.Second {
				t.Errorf("%s: got %v after %s, want the silent one's error", where, err, took)
			}
			if s := a.States()[0]; !s.Down.IsZero() || s.Failing || s.Err != nil || s.Last != all[0].name {
				t.Errorf("%s: the one that waited: got %+v, want it up with the file", where, s)
			}
			if s := a.States()[1]; s.Down.IsZero() || !s.Failing {
				t.Errorf("%s: the silent one: got %+v, want it down", where, s)
			}
			a.Close(t.Context())
			synctest.Wait()
		})
	}
}

// lateLabels is an archive that takes its time to give a .backup its name.
type lateLabels struct{ lazy }

func (l lateLabels) Publish(ctx context.Context, from, to string) error {
	err := l.FS.Publish(ctx, from, to)
	if err == nil && strings.Contains(to, ".backup") {
		time.Sleep(40 * time.Second)
	}
	return err
}

// labels are small files of the timeline, before its first segment.
func labels(t testing.TB, count int) (all []file) {
	for n := range count {
		segment := wal.SegmentName(1, wal.SegmentNumber(n+1), big)
		start, err := segment.Start(big)
		if err != nil {
			t.Fatal(err)
		}
		name, err := wal.ParseName(segment.String() + ".00000028.backup")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{name, fmt.Appendf(nil, "START WAL LOCATION: %s (file %s)\nLABEL: x\n", start+0x28, segment)})
	}
	return all
}

// A file has its turn sooner in one archive than in another one, and waits for that
// beyond its own time.
func TestAheadWaitsForOneThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := append(labels(t, 3), bigSegments(1)...)
		w := newPGWAL(all...)
		a := bigEngine(t, w,
			func(fsys files.FS) files.FS { return lazy{fsys, time.Millisecond} },
			func(fsys files.FS) files.FS { return lateLabels{lazy{fsys, 12 * time.Second}} },
		)
		if got, err := archiver(t, a, w, all); err != nil {
			t.Errorf("%d files, then %v", len(got), err)
		}
		a.Close(t.Context())
		synctest.Wait()
	})
}

// A call that is given up leaves its file under way; the next one finds it.
func TestAheadOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := segments(0x10, 1, 1)
		s := newSite(t)
		disk := &hanging{FS: s}
		disk.set(true)
		w := newPGWAL(all...)
		a := pushAhead(t, w, disk)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Push(ctx, all[0].name); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want its caller's end", err)
		}
		if !a.Busy() {
			t.Error("the file is not under way any more")
		}
		a.Close(t.Context())
		if _, err := a.Push(t.Context(), all[0].name); err == nil {
			t.Error("pushed by an agent that has ended")
		}
		synctest.Wait()
	})
}

// narrow is a disk whose line takes so long for each file of 1 MB, shared by all that
// are sent at a time.
type narrow struct {
	files.FS
	each time.Duration
	line chan struct{}
}

type narrowFile struct {
	files.File
	s *narrow
}

func (s *narrow) Create(ctx context.Context, name string) (files.File, error) {
	f, err := s.FS.Create(ctx, name)
	return narrowFile{f, s}, err
}

func (f narrowFile) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), 16<<10)
		f.s.line <- struct{}{}
		time.Sleep(f.s.each * time.Duration(n) / (1 << 20))
		<-f.s.line
		rest = rest[n:]
	}
	return f.File.Write(p)
}

// A line on which a file takes a good part of push_timeout is not shared by so many
// that none arrives in time.
func TestAheadKeepsToWhatTheLineCarries(t *testing.T) {
	for _, each := range []time.Duration{100 * time.Millisecond, 6 * time.Second, 12 * time.Second, 20 * time.Second, 40 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			all := segments(0x10, 25, 1)
			disk := &narrow{FS: treeSite(t, form{archive.Flat, archive.None}), each: each, line: make(chan struct{}, 1)}
			w := newPGWAL(all...)
			a := pushAhead(t, w, disk)
			began := time.Now()
			for _, f := range all {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // push_timeout
				if _, err := a.Push(ctx, f.name); err != nil {
					t.Errorf("%s a file: %s: %v", each, f.name, err)
				}
				cancel()
				w.done(f.name)
			}
			if took, want := time.Since(began), each*time.Duration(len(all)); took > want*3/2+time.Minute {
				t.Errorf("%s a file: %d took %s, one by one they take %s", each, len(all), took, want)
			}
			a.Close(t.Context())
			synctest.Wait()
		})
	}
}

// What was settled a while ago is asked for again before it is answered for.
func TestAheadDoesNotTrustItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := segments(0x10, 5, 1)
		old := treeSite(t, forms[0])
		swap := &swapped{}
		swap.set(old)
		w := newPGWAL(all...)
		a := pushAhead(t, w, swap)
		if _, err := a.Push(t.Context(), all[0].name); err != nil {
			t.Fatal(err)
		}
		w.done(all[0].name)
		until(t, func() bool { return !a.Busy() })
		time.Sleep(time.Minute)
		// The archive's host is set back, or another archive stands in its place.
		fresh := treeSite(t, forms[0])
		swap.set(fresh)
		if got, err := archiver(t, a, w, all[1:]); err != nil {
			t.Errorf("%d files, then %v", len(got), err)
		}
		wantArchived(t, fresh, all[1:]...)
		a.Close(t.Context())
		synctest.Wait()
	})
}

// swapped is a disk in whose place another one can be put.
type swapped struct {
	mu sync.Mutex // guards FS
	files.FS
}

func (s *swapped) set(fsys files.FS) { s.mu.Lock(); defer s.mu.Unlock(); s.FS = fsys }
func (s *swapped) now() files.FS     { s.mu.Lock(); defer s.mu.Unlock(); return s.FS }

func (s *swapped) Create(ctx context.Context, n string) (files.File, error) {
	return s.now().Create(ctx, n)
}
func (s *swapped) Open(ctx context.Context, n string) (files.Object, error) {
	return s.now().Open(ctx, n)
}
func (s *swapped) Stat(ctx context.Context, n string) (fs.FileInfo, error) {
	return s.now().Stat(ctx, n)
}
func (s *swapped) ReadDir(ctx context.Context, n string) ([]fs.DirEntry, error) {
	return s.now().ReadDir(ctx, n)
}
func (s *swapped) Mkdir(ctx context.Context, n string) error { return s.now().Mkdir(ctx, n) }
func (s *swapped) Publish(ctx context.Context, from, to string) error {
	return s.now().Publish(ctx, from, to)
}
func (s *swapped) Remove(ctx context.Context, n string) error { return s.now().Remove(ctx, n) }
func (s *swapped) Sync(ctx context.Context, n string) error   { return s.now().Sync(ctx, n) }

// A mark without a file is passed over; a file that cannot be read is not.
func TestAheadLeavesNoHoleBehindAFileItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := segments(0x10, 10, 1)
		s := newSite(t)
		w := newPGWAL(all...)
		w.mu.Lock()
		delete(w.files, all[2].name)
		w.unreadable = all[5].name
		w.mu.Unlock()
		a := pushAhead(t, w, s)
		if _, err := a.Push(t.Context(), all[0].name); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it would not come back from a loop without end
		if got, want := s.order(), names(slices.Concat(all[:2], all[3:5])); !slices.Equal(got, want) {
			t.Errorf("published %q, want %q", got, want)
		}
		if _, err := a.Push(t.Context(), all[5].name); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v, want %v", err, fs.ErrPermission)
		}
		a.Close(t.Context())
		synctest.Wait()
	})
}

// A removal that hangs keeps nobody.
func TestAheadDoesNotWaitForRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, others := segments(0x10, 6, 1), segments(0x10, 6, 2)
		disk := &stuckRemovals{FS: treeSite(t, forms[0])}
		if _, err := archiveAt(disk).Push(t.Context(), others[0].name, bytes.NewReader(others[0].content)); err != nil {
			t.Fatal(err)
		}
		w := newPGWAL(all...)
		a := pushAhead(t, w, disk)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			if _, err := a.Push(ctx, all[0].name); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("got %v, want a conflict", err)
			}
			cancel()
		}
		a.Close(t.Context())
		close(disk.release())
		synctest.Wait()
	})
}

// stuckRemovals never comes back from removing something.
type stuckRemovals struct {
	files.FS
	once sync.Once
	end  chan struct{}
}

func (s *stuckRemovals) release() chan struct{} {
	s.once.Do(func() { s.end = make(chan struct{}) })
	return s.end
}

func (s *stuckRemovals) Remove(ctx context.Context, name string) error {
	<-s.release()
	return s.FS.Remove(ctx, name)
}
