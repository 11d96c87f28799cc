package ship_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pitr/archive"
	"pitr/archive/files"
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
