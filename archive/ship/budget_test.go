package ship_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive/files"
	"pitr/archive/ship"
)

// mute takes its time to say that it is away.
type mute struct{ *site }

func (m mute) Open(ctx context.Context, name string) (files.Object, error) {
	m.mu.Lock()
	away := m.away
	m.mu.Unlock()
	if away != nil {
		time.Sleep(3 * time.Second)
	}
	return m.site.Open(ctx, name)
}

// One that was silent is left in peace; one that says no at once is asked again
// at every call.
func TestDestinationThatWasSilentRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, disk := newSite(t), queues(t)
		back := time.Duration(0) // by how much the clock was set back
		s, quick := shipper(disk, mute{a}), shipper(disk, a)
		for _, each := range []*ship.Shipper{s, quick} {
			each.Patience, each.Rest = 4*time.Second, 20*time.Second
			each.Now = func() time.Time { return time.Now().Add(-back) }
		}
		all := segments(0x10, 6, 1)
		a.setAway(errAway)
		mustSend(t, quick, all[0], ship.Queued)
		a.setAway(nil)
		mustSend(t, quick, all[1], ship.Delivered)

		a.setAway(errAway)
		mustSend(t, s, all[2], ship.Queued)
		a.setAway(nil)
		time.Sleep(19 * time.Second)
		r := mustSend(t, s, all[3], ship.Queued)
		if r[0].Before.Worth(r[0].After) || !strings.Contains(r[0].Reason.Error(), "failed 19s ago") {
			t.Errorf("got %+v", r[0])
		}
		time.Sleep(time.Second)
		mustSend(t, s, all[4], ship.Delivered)
		// A clock that was set back is no reason to wait.
		a.setAway(errAway)
		mustSend(t, s, all[5], ship.Queued)
		a.setAway(nil)
		back = time.Hour
		more := segments(0x20, 1, 2)
		mustSend(t, s, more[0], ship.Delivered)
		wantHeld(t, a, append(all, more...)...)
	})
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
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %s, want %s", took, time.Second)
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
