package ship_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/ship"
)

// world is one destination that was away, one that is there, and their queues.
type world struct {
	queues, a, b *archivetest.Memory
	all          []file
	acknowledged []file
}

// newWorld has two files in the queue of b already.
func newWorld(t *testing.T) *world {
	t.Helper()
	a, b := newSite(t), newSite(t)
	w := &world{queues: queues(t), a: a.Memory, b: b.Memory, all: segments(0x10, 4, 1)}
	b.setAway(errAway)
	for _, f := range w.all[:2] {
		mustSend(t, shipper(w.queues, a, b), f, ship.Delivered, ship.Queued)
	}
	w.acknowledged = w.all[:2:2]
	return w
}

// ship ships what is left until the first error.
func (w *world) ship(t *testing.T, s *ship.Shipper) {
	for _, f := range w.all[len(w.acknowledged):] {
		if _, err := send(t, s, f); err != nil {
			return
		}
		w.acknowledged = append(w.acknowledged, f)
	}
}

// wantSound checks, after a crash, that everything acknowledged is in each
// archive or whole in its queue, that nothing newer is in an archive than what
// waits for it, and that shipping again completes everything.
func (w *world) wantSound(t *testing.T) {
	t.Helper()
	for queue, site := range map[string]*archivetest.Memory{"a": w.a, "b": w.b} {
		for i, f := range w.acknowledged {
			queued, err := w.queues.Stat(t.Context(), queue+"/"+f.name.String())
			if err == nil && queued.Size() != int64(mb) {
				t.Errorf("%s: %s has %d bytes in its queue", queue, f.name, queued.Size())
			}
			if err != nil {
				wantHeld(t, site, f)
			}
			_, stored := site.Stat(t.Context(), f.name.String())
			for _, later := range w.all[i+1:] {
				if _, err := site.Stat(t.Context(), later.name.String()); err == nil && stored != nil {
					t.Errorf("%s: %s overtook %s", queue, later.name, f.name)
				}
			}
		}
	}
	s := shipper(w.queues, w.a, w.b)
	for _, f := range w.all[min(len(w.acknowledged), len(w.all)-1):] {
		mustSend(t, s, f, ship.Delivered, ship.Delivered)
	}
	wantHeld(t, w.a, w.all...)
	wantHeld(t, w.b, w.all...)
	wantQueued(t, w.queues, "a")
	wantQueued(t, w.queues, "b")
}

// Every operation on the queues, and every one on a destination, fails in each
// way in turn; then the power does, everywhere at once.
func TestEverythingAcknowledgedSurvivesAnyFaultAndACrash(t *testing.T) {
	step := stride(31)
	for _, where := range []string{"queues", "destination"} {
		for _, kind := range archivetest.Faults {
			t.Run(fmt.Sprint(where, " ", kind), func(t *testing.T) {
				t.Parallel()
				fired := true
				for n := 1; fired; n += step {
					for _, random := range crashes(n) {
						w := newWorld(t)
						fired = w.fail(t, where, n, kind)
						for _, disk := range []*archivetest.Memory{w.queues, w.a, w.b} {
							disk.Crash(random)
						}
						w.wantSound(t)
						if t.Failed() {
							t.Fatalf("operation %d", n)
						}
					}
					if n > 500 {
						t.Fatal("more than 500 operations")
					}
				}
			})
		}
	}
}

// crashes are the ways to lose power after operation n: everything that was not
// synced is lost, and for some of them also anything of it.
func crashes(n int) []*rand.Rand {
	if n%4 != 0 {
		return []*rand.Rand{nil}
	}
	return []*rand.Rand{nil, rand.New(rand.NewPCG(uint64(n), 1))}
}

// fail ships while operation n fails, and tells whether it came to that.
func (w *world) fail(t *testing.T, where string, n int, kind archivetest.Fault) (fired bool) {
	var disk ship.Disk = w.queues
	var b files.FS = w.b
	var faulty *archivetest.Faulty
	if where == "queues" {
		faulty = archivetest.NewFaulty(w.queues, n, kind)
		disk = faulty
	} else {
		faulty = archivetest.NewFaulty(w.b, n, kind)
		b = faulty
	}
	w.ship(t, shipper(disk, w.a, b))
	return faulty.Fired()
}

// stride is 1, or the one given for the race detector, which is slow and looks for
// something else.
func stride(short int) int {
	if testing.Short() {
		return short
	}
	return 1
}

// A process dies in the middle, and the next one goes on without a crash of the
// machine: it clears away what the other one left.
func TestNextCallClearsAwayWhatADeadOneLeft(t *testing.T) {
	dead := files.Writer{Host: "db1.0123", Boot: "b1", PIDNamespace: "p1", PID: 100, Alive: func(pid int) bool { return pid != 100 }}
	alive := dead
	alive.PID = 101
	for _, kind := range []archivetest.Fault{archivetest.Killed, archivetest.KilledAfter} {
		fired := true
		for n := 1; fired && n < 200; n += stride(11) {
			a := newSite(t)
			a.setAway(errAway)
			disk := queues(t)
			all := segments(0x10, 2, 1)
			faulty := archivetest.NewFaulty(disk, n, kind)
			s := shipper(faulty, a)
			s.Writer = dead
			_, _ = s.Ship(t.Context(), all[0].name, bytes.NewReader(all[0].content))
			fired = faulty.Fired()
			a.setAway(nil)
			s = shipper(disk, a)
			s.Writer = alive
			for _, f := range all {
				mustSend(t, s, f, ship.Delivered)
			}
			wantNothingTemporary(t, disk, "a")
			wantQueued(t, disk, "a")
			wantHeld(t, a, all...)
			if t.Failed() {
				t.Fatalf("%v, operation %d", kind, n)
			}
		}
	}
}
