package ship_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"

	"pitr/archive/ship"
)

// counting is a disk that counts how often a directory is looked through.
type counting struct {
	ship.Disk
	looks atomic.Int64
	free  int64
}

func (c *counting) Visit(ctx context.Context, name string, visit func(fs.DirEntry) error) error {
	c.looks.Add(1)
	return c.Disk.Visit(ctx, name, visit)
}

func (c *counting) Space() (free int64, dev uint64, err error) { return c.free, 1, nil }

func TestFullQueueRefusesAndKeepsWhatItHas(t *testing.T) {
	a, b := newSite(t), newSite(t)
	disk := queues(t)
	s := shipper(disk, a, b)
	s.Limit = ship.Limit{Bytes: 4 * int64(mb)}
	b.setAway(errAway)
	all := segments(0x10, 6, 1)
	for i, f := range all[:4] {
		// A call is a process of its own: none knows what the last one counted.
		r := mustSend(t, shipperLike(s), f, ship.Delivered, ship.Queued)
		if r[1].HalfFull != (i == 2) || r[0].HalfFull {
			t.Errorf("file %d: got half full %t, %t", i, r[0].HalfFull, r[1].HalfFull)
		}
	}
	r, err := send(t, s, all[4])
	if !errors.Is(err, ship.ErrFull) || r[0].Outcome != ship.Delivered || r[1].Outcome != ship.Lost || r[1].After != ship.Failed {
		t.Errorf("got %+v, %v, want %v", r, err, ship.ErrFull)
	}
	if !strings.Contains(hintsOf(err), "raise queue_max") || !strings.Contains(err.Error(), "4.0 MB wait") {
		t.Errorf("got %v, hints %q", err, hintsOf(err))
	}
	// What waits already is no second time too much.
	mustSend(t, s, all[3], ship.Delivered, ship.Queued)
	wantQueued(t, disk, "b", all[:4]...)
	wantNothingTemporary(t, disk, "a", "b")
	b.setAway(nil)
	r = mustSend(t, s, all[4], ship.Delivered, ship.Delivered)
	if r[1].After != ship.OK {
		t.Errorf("got %+v", r[1])
	}
	wantHeld(t, b, all[:5]...)
	// It has room again.
	b.setAway(errAway)
	mustSend(t, s, all[5], ship.Delivered, ship.Queued)
}

func shipperLike(s *ship.Shipper) *ship.Shipper {
	return &ship.Shipper{Cluster: s.Cluster, Destinations: s.Destinations, Disk: s.Disk, Writer: s.Writer, Patience: s.Patience, Limit: s.Limit}
}

func TestRoomIsKeptFreeForOthers(t *testing.T) {
	a := newSite(t)
	a.setAway(errAway)
	disk := &counting{Disk: queues(t), free: 5*int64(mb) - 1}
	s := shipper(disk, a)
	s.Limit = ship.Limit{Free: 4 * int64(mb)}
	f := segments(0x10, 1, 1)[0]
	_, err := send(t, s, f)
	if !errors.Is(err, ship.ErrFull) || !strings.Contains(hintsOf(err), "make room in l_archivedir") {
		t.Errorf("got %v, hints %q", err, hintsOf(err))
	}
	wantQueued(t, disk, "a")
	disk.free++
	mustSend(t, s, f, ship.Queued)
}

// A process that ships many files does not look through the queue for each.
func TestCountIsKept(t *testing.T) {
	a := newSite(t)
	a.setAway(errAway)
	disk := &counting{Disk: queues(t)}
	s := shipper(disk, a)
	s.Limit = ship.Limit{Bytes: 1 << 40}
	all := segments(0x10, 8, 1)
	mustSend(t, s, all[0], ship.Queued)
	before := disk.looks.Load()
	for _, f := range all[1:] {
		mustSend(t, s, f, ship.Queued)
	}
	if got := disk.looks.Load() - before; got != 0 {
		t.Errorf("got %d looks", got)
	}
}
