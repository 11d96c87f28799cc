package ship_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/ship"
)

func TestEachDestinationGetsEachFile(t *testing.T) {
	a, b := newSite(t), newSite(t)
	disk := queues(t)
	s := shipper(disk, a, b)
	all := append(segments(0x10, 3, 1), history(2))
	for _, f := range all {
		mustSend(t, s, f, ship.Delivered, ship.Delivered)
		mustSend(t, s, f, ship.Delivered, ship.Delivered) // PostgreSQL asks again after a crash
	}
	wantHeld(t, a, all...)
	wantHeld(t, b, all...)
	wantQueued(t, disk, "a")
	wantNothingTemporary(t, disk, "a", "b")
}

// One destination is down for 30 files and then back: both have everything, in
// order.
func TestWhatADestinationMissedGoesOutFirstAndInOrder(t *testing.T) {
	a, b := newSite(t), newSite(t)
	disk := queues(t)
	s := shipper(disk, a, b)
	all := segments(0x10, 32, 1)
	mustSend(t, s, all[0], ship.Delivered, ship.Delivered)
	b.setAway(errAway)
	for _, f := range all[1:31] {
		r := mustSend(t, s, f, ship.Delivered, ship.Queued)
		if !errors.Is(r[1].Reason, errAway) {
			t.Fatalf("got reason %v, want %v", r[1].Reason, errAway)
		}
	}
	wantQueued(t, disk, "b", all[1:31]...)
	wantQueued(t, disk, "a")
	wantNothingTemporary(t, disk, "a", "b")
	b.setAway(nil)
	r := mustSend(t, s, all[31], ship.Delivered, ship.Delivered)
	if r[1].Sent != 30 {
		t.Errorf("got %d queued files sent, want 30", r[1].Sent)
	}
	wantQueued(t, disk, "b")
	for _, site := range []*site{a, b} {
		if got := site.order(); !slices.Equal(got, names(all)) {
			t.Errorf("got order %q, want %q", got, names(all))
		}
		wantHeld(t, site, all...)
	}
}

func TestHistoriesLeaveTheQueueFirst(t *testing.T) {
	a := newSite(t)
	a.setAway(errAway)
	s := shipper(queues(t), a)
	all := append(segments(0x10, 3, 1), history(2))
	for _, f := range all {
		mustSend(t, s, f, ship.Queued)
	}
	a.setAway(nil)
	last := segments(0x10, 4, 1)[3]
	mustSend(t, s, last, ship.Delivered)
	want := append([]string{"00000002.history"}, append(names(all[:3]), last.name.String())...)
	if got := a.order(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestForeignFileGoesNowhere(t *testing.T) {
	a := newSite(t)
	a.setAway(errAway)
	disk := queues(t, "a")
	seg := segments(0x10, 2, 1)
	for what, f := range map[string]file{
		"cut short":      {seg[0].name, seg[0].content[:1000]},
		"another's name": {seg[1].name, seg[0].content},
		"no history":     {history(3).name, []byte("nonsense")},
	} {
		results, err := send(t, shipper(disk, a), f)
		if !errors.Is(err, archive.ErrForeign) || results[0].Outcome != ship.Lost || results[0].After != ship.Failed {
			t.Errorf("%s: got %v, %v, want %v", what, results, err, archive.ErrForeign)
		}
	}
	wantQueued(t, disk, "a")
}

// A queued file is never replaced, and the one that waits still goes out.
func TestQueueKeepsWhatItHas(t *testing.T) {
	a := newSite(t)
	a.setAway(errAway)
	disk := queues(t)
	s := shipper(disk, a)
	one, other := segments(0x10, 1, 1)[0], segments(0x10, 1, 2)[0]
	mustSend(t, s, one, ship.Queued)
	mustSend(t, s, one, ship.Queued)
	r, err := send(t, s, other)
	if !errors.Is(err, archive.ErrConflict) || r[0].Outcome != ship.Lost || r[0].After != ship.Failed {
		t.Errorf("got %+v, %v, want %v", r, err, archive.ErrConflict)
	}
	if !strings.Contains(hintsOf(err), "nothing was changed") {
		t.Errorf("got hints %q", hintsOf(err))
	}
	wantQueued(t, disk, "a", one)
	a.setAway(nil)
	// The archive has the first one now; the second one is kept until somebody decides.
	r = mustSend(t, s, other, ship.Queued)
	if !errors.Is(r[0].Reason, archive.ErrConflict) || r[0].After != ship.Failed {
		t.Errorf("got %+v, want a conflict", r[0])
	}
	wantQueued(t, disk, "a", other)
	wantHeld(t, a, one)
	// Nothing gets past it.
	next := segments(0x10, 2, 1)[1]
	mustSend(t, s, next, ship.Queued)
	wantQueued(t, disk, "a", other, next)
}

// What pitrtools left goes out; what it left half-copied stops the queue, is
// named, and stays.
func TestLeftoversOfPitrtools(t *testing.T) {
	a, b := newSite(t), newSite(t)
	disk := queues(t, "a", "b")
	all := segments(0x10, 5, 1)
	plant(t, disk, "a/README", []byte("ours"))
	for _, f := range all[:3] {
		plant(t, disk, "a/"+f.name.String(), f.content)
	}
	cut := file{all[0].name, all[0].content[:12345]}
	plant(t, disk, "b/"+cut.name.String(), cut.content)
	s := shipper(disk, a, b)
	r := mustSend(t, s, all[3], ship.Delivered, ship.Queued)
	if r[0].Sent != 3 || !slices.Equal(a.order(), names(all[:4])) {
		t.Errorf("got %d sent, order %q", r[0].Sent, a.order())
	}
	if !errors.Is(r[1].Reason, archive.ErrForeign) || !strings.Contains(r[1].Reason.Error(), "b/"+cut.name.String()) {
		t.Errorf("got reason %v, want the name of %s", r[1].Reason, cut.name)
	}
	if got := hintsOf(r[1].Reason); !strings.Contains(got, "move this one away") || strings.Contains(got, "Nothing was stored") {
		t.Errorf("got hints %q", got)
	}
	if r[1].After != ship.Failed {
		t.Errorf("got state %q, want %q", r[1].After, ship.Failed)
	}
	wantQueued(t, disk, "b", cut, all[3])
	read(t, disk, "a/README")
	// PostgreSQL has the same one still: it is not lost to know, and not replaced.
	if _, err := send(t, s, all[0]); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("got %v, want %v", err, archive.ErrConflict)
	}
	if err := disk.Remove(t.Context(), "b/"+cut.name.String()); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, all[4], ship.Delivered, ship.Delivered)
	wantHeld(t, b, all[3], all[4])
}

// full is a disk that has no room for a file.
type full struct{ ship.Disk }

type fullFile struct{ files.File }

func (f full) Create(ctx context.Context, name string) (files.File, error) {
	w, err := f.Disk.Create(ctx, name)
	return fullFile{w}, err
}

func (f fullFile) Write(p []byte) (int, error) {
	if len(p) < 10000 {
		return f.File.Write(p)
	}
	n, _ := f.File.Write(p[:5000])
	return n, syscall.ENOSPC
}

func TestFullQueueIsARefusalAndNothingElse(t *testing.T) {
	a, b := newSite(t), newSite(t)
	b.setAway(errAway)
	disk := queues(t)
	s := shipper(full{disk}, a, b)
	f := segments(0x10, 1, 1)[0]
	r, err := send(t, s, f)
	if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, errAway) {
		t.Errorf("got %v, want both reasons", err)
	}
	if r[0].Outcome != ship.Delivered || r[1].Outcome != ship.Lost || !r[1].Before.Worth(r[1].After) {
		t.Errorf("got %+v", r)
	}
	wantQueued(t, disk, "b")
	wantNothingTemporary(t, disk, "a", "b")
	// The next attempt tries again, and has nothing new to tell.
	r, err = send(t, s, f)
	if err == nil || r[1].Before.Worth(r[1].After) {
		t.Errorf("got %v, %+v", err, r[1])
	}
	b.setAway(nil)
	r = mustSend(t, s, f, ship.Delivered, ship.Delivered)
	if r[1].Before != ship.Failed || r[1].After != ship.OK {
		t.Errorf("got %+v", r[1])
	}
}

func TestStatesAreToldOnce(t *testing.T) {
	a := newSite(t)
	s := shipper(queues(t), a)
	all := segments(0x10, 6, 1)
	told := func(r []ship.Result) bool { return r[0].Before.Worth(r[0].After) }
	if told(mustSend(t, s, all[0], ship.Delivered)) {
		t.Error("a first success was worth telling")
	}
	a.setAway(errAway)
	if !told(mustSend(t, s, all[1], ship.Queued)) || told(mustSend(t, s, all[2], ship.Queued)) {
		t.Error("a destination that went away: want it told once")
	}
	a.setAway(nil)
	if !told(mustSend(t, s, all[3], ship.Delivered)) || told(mustSend(t, s, all[4], ship.Delivered)) {
		t.Error("a destination that came back: want it told once")
	}
}

// A note that makes no sense never stops anything.
func TestUnreadableNoteIsNoNote(t *testing.T) {
	for _, text := range []string{"", "{", `{"state":"fine"}`, strings.Repeat(" ", 1<<20)} {
		disk := queues(t, "a")
		plant(t, disk, "a/.state", []byte(text))
		a := newSite(t)
		a.setAway(errAway)
		all := segments(0x10, 2, 1)
		r := mustSend(t, shipper(disk, a), all[0], ship.Queued)
		if r[0].Before != ship.Unknown || !r[0].Before.Worth(r[0].After) {
			t.Errorf("%.20q: got %+v", text, r[0])
		}
		r = mustSend(t, shipper(disk, a), all[1], ship.Queued)
		if r[0].Before != ship.Behind {
			t.Errorf("%.20q: the note was not replaced: %+v", text, r[0])
		}
	}
}

func TestDestinationThatFailedRests(t *testing.T) {
	a := newSite(t)
	s := shipper(queues(t), a)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	s.Now, s.Rest = func() time.Time { return now }, 20*time.Second
	all := segments(0x10, 5, 1)
	a.setAway(errAway)
	mustSend(t, s, all[0], ship.Queued)
	a.setAway(nil)
	now = now.Add(19 * time.Second)
	r := mustSend(t, s, all[1], ship.Queued)
	if r[0].Before.Worth(r[0].After) || !strings.Contains(r[0].Reason.Error(), "failed 19s ago") {
		t.Errorf("got %+v", r[0])
	}
	now = now.Add(time.Second)
	mustSend(t, s, all[2], ship.Delivered)
	// A clock that was set back is no reason to wait.
	a.setAway(errAway)
	mustSend(t, s, all[3], ship.Queued)
	a.setAway(nil)
	now = now.Add(-time.Hour)
	mustSend(t, s, all[4], ship.Delivered)
	wantHeld(t, a, all...)
}

// The lock is held by another process: the file is queued, and told to nobody.
func TestAnotherProcessShips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk := newSite(t), queues(t, "a")
		release, err := disk.Lock(t.Context(), "a/.lock")
		if err != nil {
			t.Fatal(err)
		}
		all := segments(0x10, 2, 1)
		start := time.Now()
		s := shipper(disk, a)
		s.Patience = 10 * time.Second
		r := mustSend(t, s, all[0], ship.Queued)
		if took := time.Since(start); took != s.Patience {
			t.Errorf("took %s, want %s", took, s.Patience)
		}
		if r[0].After != ship.Unknown {
			t.Errorf("got state %q", r[0].After)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		mustSend(t, s, all[1], ship.Delivered)
		wantHeld(t, a, all...)
	})
}

// slow takes its time to publish each file.
type slow struct {
	*site
	each time.Duration
}

func (s slow) Publish(ctx context.Context, from, to string) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(s.each):
	}
	return s.site.Publish(ctx, from, to)
}

// A long queue is worked on for Patience at each call, and no call takes longer
// than that and one file.
func TestLongQueueDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSite(t)
		a.setAway(errAway)
		s := shipper(queues(t), slow{a, 3 * time.Second})
		s.Patience, s.Rest = 10*time.Second, 20*time.Second
		all := segments(0x10, 10, 1)
		for _, f := range all[:7] {
			mustSend(t, s, f, ship.Queued)
		}
		a.setAway(nil)
		time.Sleep(s.Rest)
		for i, want := range []int{4, 4, 1} { // 7 wait, then 4, then 1
			start := time.Now()
			outcome := ship.Queued
			if i == 2 {
				outcome = ship.Delivered
			}
			r := mustSend(t, s, all[7+i], outcome)
			if r[0].Sent != want || time.Since(start) > s.Patience+3*time.Second {
				t.Errorf("call %d: %d sent in %s, want %d", i, r[0].Sent, time.Since(start), want)
			}
		}
		if got := a.order(); !slices.Equal(got, names(all)) {
			t.Errorf("got %q, want %q", got, names(all))
		}
	})
}

// hung never answers.
type hung struct{ *site }

func (h hung) Open(ctx context.Context, _ string) (files.Object, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// hungUpload answers, and then takes a file for ever.
type hungUpload struct{ *site }

func (h hungUpload) Publish(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestHangingDestinationEndsInItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, c := range map[string]struct {
			fsys files.FS
			want time.Duration
		}{
			"connecting": {hung{newSite(t)}, 10 * time.Second},
			"sending":    {hungUpload{newSite(t)}, 45 * time.Second},
		} {
			s := shipper(queues(t), newSite(t), c.fsys)
			s.Patience = 10 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			start := time.Now()
			f := segments(0x10, 1, 1)[0]
			r, err := s.Ship(ctx, f.name, bytes.NewReader(f.content))
			if err != nil || r[0].Outcome != ship.Delivered || r[1].Outcome != ship.Queued {
				t.Errorf("%s: got %+v, %v", what, r, err)
			}
			if took := time.Since(start); took < c.want || took > c.want+time.Second {
				t.Errorf("%s: took %s, want %s", what, took, c.want)
			}
			cancel()
		}
	})
}

// stuck is a disk that hangs in the system, where nothing can cancel it.
type stuck struct {
	ship.Disk
	release chan struct{}
}

func (s stuck) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	<-s.release
	return s.Disk.Stat(ctx, name)
}

func TestHangingQueueEndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSite(t)
		a.setAway(errAway)
		disk := stuck{queues(t), make(chan struct{})}
		defer close(disk.release)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		f := segments(0x10, 1, 1)[0]
		// Another one that has it is not called lost because this one hangs.
		r, err := shipper(disk, a, newSite(t)).Ship(ctx, f.name, bytes.NewReader(f.content))
		if err == nil || r[0].Outcome != ship.Lost || r[0].After != ship.Failed || r[1].Outcome != ship.Delivered {
			t.Errorf("got %+v, %v", r, err)
		}
		if took := time.Since(start); took > time.Minute+2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// What a call came to whose time was over is written down, so that the next one
// has nothing new to tell.
func TestStateIsNotedWhenTheTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk := newSite(t), queues(t)
		a.setAway(errAway)
		f := segments(0x10, 1, 1)[0]
		for i := range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			s := shipper(slowQueue{disk}, a)
			r, err := s.Ship(ctx, f.name, bytes.NewReader(f.content))
			if err == nil || r[0].After != ship.Failed || r[0].Before.Worth(r[0].After) != (i == 0) {
				t.Errorf("call %d: got %+v, %v", i, r, err)
			}
			cancel()
		}
	})
}

// slowQueue takes longer for a file than anybody waits.
type slowQueue struct{ ship.Disk }

func (s slowQueue) Link(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A call that a signal ends says nothing of the destination.
func TestCancelledCallChangesNoState(t *testing.T) {
	disk := queues(t, "a")
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("ended by a signal")
	cancel(over)
	f := segments(0x10, 1, 1)[0]
	r, err := shipper(disk, newSite(t)).Ship(ctx, f.name, bytes.NewReader(f.content))
	if !errors.Is(err, over) || r[0].Outcome != ship.Lost || r[0].Before.Worth(r[0].After) {
		t.Errorf("got %+v, %v", r, err)
	}
}

// On a real disk: links share the space, modes are private, and a missing
// directory is never made.
func TestQueuesOnARealDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "queues")
	a, b := newSite(t), newSite(t)
	a.setAway(errAway)
	b.setAway(errAway)
	s := shipper(local.New(root), a, b)
	all := segments(0x10, 2, 1)
	r, err := send(t, s, all[0])
	if err == nil || r[0].Outcome != ship.Lost || !strings.Contains(hintsOf(err), "mounted") {
		t.Errorf("got %+v, %v, want a refusal", r, err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the queues' directory was made")
	}
	for range 2 {
		if err := ship.Make(t.Context(), s.Disk, []string{"a"}); err != nil {
			t.Fatal(err)
		}
	}
	mustSend(t, s, all[0], ship.Queued, ship.Queued)
	one, err := os.Stat(filepath.Join(root, "a", all[0].name.String()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Stat(filepath.Join(root, "b", all[0].name.String()))
	if err != nil {
		t.Fatal(err)
	}
	if links := one.Sys().(*syscall.Stat_t).Nlink; !os.SameFile(one, other) || links != 2 {
		t.Errorf("got %d links, want 2 that are one file", links)
	}
	for _, dir := range []string{root, filepath.Join(root, "a"), filepath.Join(root, "b")} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: got mode %v, %v, want 0700", dir, info.Mode(), err)
		}
	}
	q, err := ship.Look(t.Context(), s.Disk, "a")
	if err != nil || q.Files != 1 || q.Bytes != int64(mb) || q.First != all[0].name || q.State != ship.Behind || q.Unknown != 0 {
		t.Errorf("got %+v, %v", q, err)
	}
	a.setAway(nil)
	b.setAway(nil)
	mustSend(t, s, all[1], ship.Delivered, ship.Delivered)
	wantHeld(t, a, all...)
	wantHeld(t, b, all...)
	wantNothingTemporary(t, s.Disk, "a", "b")
}

// linkless is a disk that knows no links.
type linkless struct{ ship.Disk }

func (linkless) Link(context.Context, string, string) error {
	return &os.LinkError{Op: "link", Err: syscall.EPERM}
}

func TestQueueWithoutLinksHoldsCopies(t *testing.T) {
	a, b := newSite(t), newSite(t)
	a.setAway(errAway)
	b.setAway(errAway)
	disk := queues(t)
	s := shipper(linkless{disk}, a, b)
	f := segments(0x10, 1, 1)[0]
	mustSend(t, s, f, ship.Queued, ship.Queued)
	mustSend(t, s, f, ship.Queued, ship.Queued)
	disk.Crash(nil)
	wantQueued(t, disk, "a", f)
	wantQueued(t, disk, "b", f)
	wantNothingTemporary(t, disk, "a", "b")
}

// Two calls at once: nothing is lost, and what is published is in order.
func TestTwoCallsAtOnce(t *testing.T) {
	root := t.TempDir()
	a := newSite(t)
	all := segments(0x10, 12, 1)
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			for i := half; i < len(all); i += 2 {
				if _, err := send(t, shipper(local.New(root), a), all[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantHeld(t, a, all...)
	wantQueued(t, local.New(root), "a")
	wantNothingTemporary(t, local.New(root), "a")
}
