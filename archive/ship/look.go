package ship

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"pitr/archive/wal"
)

// Queue is what lies in the queue of one destination.
type Queue struct {
	Files int        // of PostgreSQL, waiting
	Names []wal.Name // of these, in no order
	Bytes int64      // of these; other queues may share them
	// First is the one that is shipped next, and Oldest when the one was queued
	// that has waited longest.
	First  wal.Name
	Oldest time.Time
	// Unknown is how many other names are there, which are never shipped.
	Unknown int
	// State is what the destination was after the last call, since when and
	// why.
	State  State
	Since  time.Time
	Reason string
}

// Look looks at a queue, and takes nothing from it.
func Look(ctx context.Context, disk Disk, name string) (Queue, error) {
	entries, err := disk.ReadDir(ctx, name)
	if err != nil {
		return Queue{}, fmt.Errorf("queue %s: %w", name, err)
	}
	l := &lane{shipment: &shipment{Shipper: Shipper{Disk: disk}}, Destination: Destination{Name: name}}
	was := l.readNote(ctx)
	q := Queue{State: was.State, Since: was.Since, Reason: was.Reason}
	for _, e := range entries {
		q.add(e)
	}
	return q, nil
}

func (q *Queue) add(e fs.DirEntry) {
	n, err := wal.ParseName(e.Name())
	info, gone := e.Info()
	switch {
	case gone != nil, e.Name()[0] == '.':
		return
	case err != nil || e.IsDir():
		q.Unknown++
		return
	}
	if q.Files == 0 || wal.CompareArchiving(n, q.First) < 0 {
		q.First = n
	}
	if q.Files == 0 || info.ModTime().Before(q.Oldest) {
		q.Oldest = info.ModTime()
	}
	q.Files++
	q.Names = append(q.Names, n)
	q.Bytes += info.Size()
}
