package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// told collects what a Drainer tells.
type told struct {
	mu  sync.Mutex // guards all
	all []ship.Result
}

func (l *told) changed(r ship.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r)
}

// states are the changes, in order.
func (l *told) states() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.all {
		all = append(all, fmt.Sprintf("%s: %s", r.Destination, r.After))
	}
	return all
}

// start runs a Drainer until the test, or who calls stop, ends it.
func start(t *testing.T, s *ship.Shipper) (d *ship.Drainer, says *told, stop func()) {
	t.Helper()
	says = &told{}
	d = &ship.Drainer{Shipper: s, Workers: 4, Wait: 20 * time.Second, Budget: time.Minute, Changed: says.changed}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return d, says, stop
}

func TestDrainerEmptiesTheQueuesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, disk := newSite(t), newSite(t), queues(t)
		s := shipper(disk, a, b)
		b.setAway(errAway)
		all := append(segments(0x10, 6, 1), history(2))
		for _, f := range all[:4] {
			mustSend(t, s, f, ship.Delivered, ship.Queued)
		}
		d, says, _ := start(t, s)
		if !d.Waiting(t.Context()) {
			t.Error("nothing waits, it says")
		}
		synctest.Wait()
		// It has failed once. What comes now is queued without asking.
		start := time.Now()
		for _, f := range all[4:] {
			r := mustSend(t, s, f, ship.Delivered, ship.Queued)
			if r[1].After != ship.Behind || r[1].Before != ship.Behind {
				t.Errorf("got %+v", r[1])
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("took %s", took)
		}
		b.setAway(nil)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		wantQueued(t, disk, "b")
		wantHeld(t, b, all...)
		want := append([]string{"00000002.history"}, names(all[:6])...)
		if got := b.order(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := says.states(); !slices.Equal(got, []string{"b: ok"}) || says.all[0].Sent != 7 || says.all[0].File != all[5].name {
			t.Errorf("got %q, %+v", got, says.all)
		}
		if d.Waiting(t.Context()) {
			t.Error("something waits, it says")
		}
		// Nothing waits: what comes now is delivered by the call.
		next := segments(0x10, 7, 1)[6]
		mustSend(t, s, next, ship.Delivered, ship.Delivered)
	})
}

// What a call queues is sent without anybody asking, and so is what another
// process has put there, a little later.
func TestDrainerSeesWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk := newSite(t), queues(t)
		s := shipper(disk, a)
		all := segments(0x10, 3, 1)
		_, says, _ := start(t, s)
		synctest.Wait()
		a.setAway(errAway)
		mustSend(t, s, all[0], ship.Queued)
		synctest.Wait() // it was woken, and has failed
		a.setAway(nil)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		wantHeld(t, a, all[0])
		if got := says.states(); !slices.Equal(got, []string{"a: ok"}) {
			t.Errorf("got %q", got)
		}
		plant(t, disk, "a/"+all[1].name.String(), all[1].content)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		wantHeld(t, a, all[:2]...)
	})
}

// attempts is a destination that is away, and notes when it was asked.
type attempts struct {
	*site
	mu sync.Mutex // guards at
	at []time.Time
}

func (a *attempts) Open(ctx context.Context, name string) (files.Object, error) {
	a.mu.Lock()
	if len(a.at) == 0 || a.at[len(a.at)-1] != time.Now() {
		a.at = append(a.at, time.Now())
	}
	a.mu.Unlock()
	return a.site.Open(ctx, name)
}

func TestDestinationThatFailsIsTriedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk := &attempts{site: newSite(t)}, queues(t, "a")
		f := segments(0x10, 1, 1)[0]
		plant(t, disk, "a/"+f.name.String(), f.content)
		a.setAway(errAway)
		d, says, stop := start(t, shipper(disk, a))
		for range 30 * 60 {
			time.Sleep(time.Second)
			d.Poke() // hurries nothing
		}
		stop()
		var waits []time.Duration
		for i := range a.at[1:] {
			waits = append(waits, a.at[i+1].Sub(a.at[i]))
		}
		const w = 20 * time.Second
		if want := []time.Duration{w, 2 * w, 4 * w, 8 * w, 8 * w}; len(waits) < 6 || !slices.Equal(waits[:5], want) || waits[len(waits)-1] != 8*w {
			t.Errorf("got %v, want %v", waits, want)
		}
		if got := says.states(); !slices.Equal(got, []string{"a: queued"}) || !errors.Is(says.all[0].Reason, errAway) || says.all[0].File != f.name {
			t.Errorf("got %q, %+v", got, says.all)
		}
	})
}

// A conflict needs somebody, and is told once; the queue stands behind it.
func TestDrainerStopsAtAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk := newSite(t), queues(t, "a")
		all, other := segments(0x10, 3, 1), segments(0x10, 3, 2)
		mustSend(t, shipper(disk, a), other[1], ship.Delivered)
		for _, f := range all {
			plant(t, disk, "a/"+f.name.String(), f.content)
		}
		_, says, _ := start(t, shipper(disk, a))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		wantQueued(t, disk, "a", all[1:]...)
		if got := says.states(); !slices.Equal(got, []string{"a: failed"}) || !errors.Is(says.all[0].Reason, archive.ErrConflict) || says.all[0].File != all[1].name {
			t.Errorf("got %q, %+v", got, says.all)
		}
		// While it is away too, it is still that somebody has to act.
		a.setAway(errAway)
		time.Sleep(10 * time.Minute)
		if got := says.states(); len(got) != 1 {
			t.Errorf("got %q", got)
		}
		a.setAway(nil)
		if err := disk.Remove(t.Context(), "a/"+all[1].name.String()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got, want := a.order(), []string{other[1].name.String(), all[0].name.String(), all[2].name.String()}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := says.states(); !slices.Equal(got, []string{"a: failed", "a: ok"}) {
			t.Errorf("got %q", got)
		}
	})
}

// While the drainer waits for a destination no call does.
func TestCallsDoNotWaitForTheDrainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, away := range map[string]files.FS{"connecting": hung{newSite(t)}, "sending": hungUpload{newSite(t)}} {
			a, disk := newSite(t), queues(t, "b")
			all := segments(0x10, 3, 1)
			plant(t, disk, "b/"+all[0].name.String(), all[0].content)
			s := shipper(disk, a, away)
			d, says, stop := start(t, s)
			time.Sleep(5 * time.Second)
			begin := time.Now()
			mustSend(t, s, all[1], ship.Delivered, ship.Queued)
			if took := time.Since(begin); took > 0 {
				t.Errorf("%s: took %s", what, took)
			}
			// Another process has no way to know, and waits for the lock a while.
			mustSend(t, shipper(disk, a, away), all[2], ship.Delivered, ship.Queued)
			if took := time.Since(begin); took != time.Second {
				t.Errorf("%s: another process: took %s", what, took)
			}
			time.Sleep(time.Minute)
			if got := says.states(); !slices.Equal(got, []string{"b: queued"}) {
				t.Errorf("%s: got %q", what, got)
			}
			if !d.Waiting(t.Context()) {
				t.Errorf("%s: nothing waits, it says", what)
			}
			stop()
			wantQueued(t, disk, "b", all...)
		}
	})
}

// crowd counts how many destinations are sent to at the same time.
type crowd struct {
	mu        sync.Mutex // guards the rest
	now, most int
}

type inCrowd struct {
	*site
	*crowd
}

func (c inCrowd) Publish(ctx context.Context, from, to string) error {
	c.crowd.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.crowd.mu.Unlock()
	time.Sleep(10 * time.Second)
	c.crowd.mu.Lock()
	c.now--
	c.crowd.mu.Unlock()
	return c.site.Publish(ctx, from, to)
}

// No more than Workers at a time, and one with a long queue lets the others have
// their turn.
func TestDrainerTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := segments(0x10, 20, 1)
		disk, c := queues(t, "a", "b", "c"), &crowd{}
		var sites []files.FS
		for i, count := range []int{20, 20, 1} {
			sites = append(sites, inCrowd{newSite(t), c})
			for _, f := range all[:count] {
				plant(t, disk, string(rune('a'+i))+"/"+f.name.String(), f.content)
			}
		}
		d := &ship.Drainer{Shipper: shipper(disk, sites...), Workers: 2, Wait: 20 * time.Second, Budget: time.Minute}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Run(ctx) }()
		time.Sleep(3 * time.Minute)
		wantQueued(t, disk, "c")
		time.Sleep(5 * time.Minute)
		cancel()
		<-done
		wantQueued(t, disk, "a")
		wantQueued(t, disk, "b")
		if c.most != 2 {
			t.Errorf("got %d at a time, want 2", c.most)
		}
	})
}

// deaf is a disk that hangs in the system over one file, where nothing ends it.
type deaf struct {
	ship.Disk
	over    string
	release chan struct{}
}

func (d deaf) Open(ctx context.Context, name string) (files.Object, error) {
	if name == d.over {
		<-d.release
	}
	return d.Disk.Open(ctx, name)
}

func TestQueueThatHangsInTheSystemKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSite(t), newSite(t)
		f := segments(0x10, 1, 1)[0]
		disk := deaf{queues(t, "a", "b"), "a/" + f.name.String(), make(chan struct{})}
		plant(t, disk, "a/"+f.name.String(), f.content)
		plant(t, disk, "b/"+f.name.String(), f.content)
		says := &told{}
		d := &ship.Drainer{Shipper: shipper(disk, a, b), Workers: 1, Wait: 20 * time.Second, Budget: time.Minute, Changed: says.changed}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		wantHeld(t, b, f)
		if got := says.states(); !slices.Equal(got, []string{"a: queued", "b: ok"}) && !slices.Equal(got, []string{"b: ok", "a: queued"}) {
			t.Errorf("got %q", got)
		}
		begin := time.Now()
		cancel()
		<-done
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("ending took %s", took)
		}
		close(disk.release)
		synctest.Wait()
	})
}

func TestWaitingIsSaidOfWhatCannotBeSeen(t *testing.T) {
	disk := queues(t)
	d := &ship.Drainer{Shipper: shipper(disk, newSite(t))}
	if d.Waiting(t.Context()) {
		t.Error("something waits in a queue that was never made")
	}
	plant(t, disk, "README", []byte("ours"))
	if err := disk.Mkdir(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if d.Waiting(t.Context()) {
		t.Error("something waits in an empty queue")
	}
	f := segments(0x10, 1, 1)[0]
	plant(t, disk, "a/"+f.name.String(), f.content)
	if !d.Waiting(t.Context()) {
		t.Error("nothing waits")
	}
	d = &ship.Drainer{Shipper: shipper(local.New(t.TempDir()+"/not-mounted"), newSite(t))}
	if !d.Waiting(t.Context()) {
		t.Error("nothing waits in a place that is not there")
	}
	d = &ship.Drainer{Shipper: shipper(archivetest.NewFaulty(queues(t, "a"), 1, archivetest.Refused), newSite(t))}
	if !d.Waiting(t.Context()) {
		t.Error("nothing waits in a place that cannot be read")
	}
}

// Each operation on the queue fails in each way; then the power does.
func TestDrainerLosesNothing(t *testing.T) {
	for _, kind := range archivetest.Faults {
		fired := true
		for n := 1; fired && n < 300; n += stride(7) {
			synctest.Test(t, func(t *testing.T) {
				a, disk := newSite(t), queues(t)
				all := segments(0x10, 3, 1)
				a.setAway(errAway)
				for _, f := range all {
					mustSend(t, shipper(disk, a), f, ship.Queued)
				}
				a.setAway(nil)
				faulty := archivetest.NewFaulty(disk, n, kind)
				_, _, stop := start(t, shipper(faulty, a))
				time.Sleep(5 * time.Second)
				synctest.Wait()
				stop()
				fired = faulty.Fired()
				disk.Crash(nil)
				a.Crash(nil)
				for i, f := range all {
					if _, err := disk.Stat(t.Context(), "a/"+f.name.String()); errors.Is(err, fs.ErrNotExist) {
						wantHeld(t, a, f)
					}
					if got := a.order(); len(got) > i && got[i] != f.name.String() {
						t.Errorf("got order %q", got)
					}
				}
				_, _, stop = start(t, shipper(disk, a))
				time.Sleep(5 * time.Second)
				stop()
				wantHeld(t, a, all...)
				wantQueued(t, disk, "a")
				if t.Failed() {
					t.Fatalf("%v, operation %d", kind, n)
				}
			})
		}
		if fired {
			t.Error("more than 300 operations")
		}
	}
}

// On a real disk, more files than are looked at together, and calls meanwhile.
func TestDrainerAndCallsOnARealDisk(t *testing.T) {
	disk, a := local.New(t.TempDir()), newSite(t)
	if err := ship.Make(t.Context(), disk, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	const count = 700
	for tli := wal.TimelineID(2); tli < 2+count; tli++ {
		f := history(tli)
		plant(t, disk, "a/"+f.name.String(), f.content)
	}
	s := shipper(disk, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := &ship.Drainer{Shipper: s, Workers: 1, Wait: time.Second, Budget: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	for _, f := range segments(0x10, 5, 1) {
		if _, err := s.Ship(ctx, f.name, bytes.NewReader(f.content)); err != nil {
			t.Error(err)
		}
	}
	for d.Waiting(ctx) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	<-done
	got := a.order()
	if len(got) != count+5 || !slices.IsSorted(got[:count]) || !strings.HasPrefix(got[count], "00000001000000") {
		t.Errorf("got %d files, the last ones %q", len(got), got[max(0, len(got)-6):])
	}
}
