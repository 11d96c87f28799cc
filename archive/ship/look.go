package ship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"pitr/archive/wal"
)

// Queue is what lies in the queue of one destination.
type Queue struct {
	Files int   // of PostgreSQL, waiting
	Bytes int64 // of these; other queues may share them
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
	var q Queue
	err := disk.Visit(ctx, name, func(e fs.DirEntry) error { q.add(e); return nil })
	if err != nil {
		return Queue{}, fmt.Errorf("queue %s: %w", name, err)
	}
	was := readNote(ctx, disk, path.Join(name, stateFile))
	q.State, q.Since, q.Reason = was.State, was.Since, was.Reason
	return q, nil
}

// Has tells whether a file waits in a queue.
func Has(ctx context.Context, disk Disk, queue string, file wal.Name) (bool, error) {
	_, err := disk.Stat(ctx, path.Join(queue, file.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
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
	q.Bytes += info.Size()
}
