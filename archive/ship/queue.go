package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// What a queue's directory holds besides files of PostgreSQL.
const (
	lockFile  = ".lock"
	stateFile = ".state"
)

// Make makes the queues' directory, whose parent must be there, and one queue
// for each name. It may be run again, and its names are durable on return.
func Make(ctx context.Context, disk Disk, names []string) error {
	for _, dir := range append([]string{"."}, names...) {
		err := disk.Mkdir(ctx, dir)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := disk.Sync(ctx, dir); err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return disk.Sync(ctx, ".")
}

// folder makes the queue's directory if it is missing, and nothing above it.
func (l *lane) folder(ctx context.Context) error {
	err := l.Disk.Mkdir(ctx, l.Destination.Name)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return archive.WithHint(fmt.Errorf("the queues' directory is not there: %w", err),
			"is the file system of l_archivedir mounted? If it is new: cmd_archiver -I (slaves) or pitr init (archives)")
	}
	return fmt.Errorf("make its queue: %w", err)
}

// batch is how many names of a queue are looked at together.
const batch = 256

// line is a queue: how much waits, and what goes out next, in the archiver's
// order. However much waits, it holds no more than two batches of names.
type line struct {
	next  []wal.Name
	files int
	bytes int64 // if somebody wants to know
}

func (q *line) add(n wal.Name, bytes int64) {
	q.files++
	q.bytes += bytes
	q.next = append(q.next, n)
	if len(q.next) == 2*batch {
		q.cut()
	}
}

// cut keeps the first batch.
func (q *line) cut() {
	slices.SortFunc(q.next, wal.CompareArchiving)
	q.next = q.next[:min(len(q.next), batch)]
}

// waiting looks what is queued. It clears away what dead writers left.
func (l *lane) waiting(ctx context.Context) (line, error) {
	var q line
	unfinished := false
	changes := l.desk.changes()
	err := l.Disk.Visit(ctx, l.Destination.Name, func(e fs.DirEntry) error {
		unfinished = unfinished || strings.HasPrefix(e.Name(), files.TempPrefix)
		n, err := wal.ParseName(e.Name())
		if err != nil || e.IsDir() {
			return nil
		}
		q.add(n, l.size(n, e))
		return nil
	})
	if err != nil {
		return line{}, err
	}
	q.cut()
	l.desk.counted(q.bytes, changes)
	if unfinished {
		// What cannot be swept is no reason not to ship.
		_, _ = files.NewStore(unfinishedOnly{l.Disk}, l.Writer).Sweep(ctx, l.Destination.Name, time.Time{})
	}
	return q, nil
}

// size is how many bytes a queued file has, if a limit asks for it. A segment's
// follows from its name: to ask for each of many takes long.
func (l *lane) size(n wal.Name, e fs.DirEntry) int64 {
	if l.Limit.Bytes == 0 {
		return 0
	}
	if n.Kind() == wal.KindSegment && l.Cluster.SegmentSize > 0 {
		return int64(l.Cluster.SegmentSize)
	}
	info, err := e.Info()
	if err != nil {
		return 0 // gone
	}
	return info.Size()
}

// unfinishedOnly is a disk whose directories list what is unfinished and nothing
// else: a queue may hold any number of files.
type unfinishedOnly struct{ Disk }

func (u unfinishedOnly) ReadDir(ctx context.Context, name string) (found []fs.DirEntry, err error) {
	err = u.Visit(ctx, name, func(e fs.DirEntry) error {
		if strings.HasPrefix(e.Name(), files.TempPrefix) {
			found = append(found, e)
		}
		return nil
	})
	return found, err
}

// errFound ends a look at a queue.
var errFound = errors.New("a file waits")

// anything tells whether a queue holds a file. A queue that was never made holds
// none, if the queues' directory is there.
func (s *Shipper) anything(ctx context.Context, queue string) (bool, error) {
	err := s.Disk.Visit(ctx, queue, func(e fs.DirEntry) error {
		if _, err := wal.ParseName(e.Name()); err == nil && !e.IsDir() {
			return errFound
		}
		return nil
	})
	switch {
	case errors.Is(err, errFound):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		_, err = s.Disk.Stat(ctx, ".")
	}
	return false, err
}

// keep puts the call's file into the queue, durably.
func (l *lane) keep(ctx context.Context) error {
	at := l.at(l.name.String())
	store := files.NewStore(l.Disk, l.Writer)
	_, err := l.Disk.Stat(ctx, at)
	if errors.Is(err, fs.ErrNotExist) {
		half, full := l.fits(ctx)
		if full != nil {
			return full
		}
		if err = l.copy.place(ctx, at); err == nil {
			l.desk.add(l.src.Size())
			l.result.HalfFull = half
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("queue it: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("queue it: %w", err)
	}
	if err := l.mustBeSame(ctx, at); err != nil {
		return err
	}
	// Whoever put it there may have died before it was durable.
	return store.Sync(ctx, at)
}

// mustBeSame is archive.ErrConflict if other content waits under the name.
func (l *lane) mustBeSame(ctx context.Context, at string) error {
	f, err := l.Disk.Open(ctx, at)
	if err != nil {
		return fmt.Errorf("queued %s: %w", at, err)
	}
	defer f.Close()
	same, err := equal(ctx, f, l.src)
	if err != nil {
		return fmt.Errorf("queued %s: %w", at, err)
	}
	if same {
		return nil
	}
	return archive.WithHint(fmt.Errorf("%s: %w", at, errQueued),
		"nothing was changed: is it a copy that broke off, or do two servers share the queues' directory? Move it away when it is known to be needless; PostgreSQL brings its own again")
}

// errQueued is archive.ErrConflict in the words of a queue.
var errQueued = conflict{}

type conflict struct{}

func (conflict) Error() string        { return "the queue holds another file of this name" }
func (conflict) Is(target error) bool { return target == archive.ErrConflict }

// equal compares the content of two files, all of it.
func equal(ctx context.Context, a, b archive.Source) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	const piece = 256 << 10
	one, other := make([]byte, piece), make([]byte, piece)
	for at := int64(0); at < a.Size(); at += piece {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		n := min(piece, a.Size()-at)
		if err := errors.Join(readFull(a, one[:n], at), readFull(b, other[:n], at)); err != nil {
			return false, err
		}
		if !bytes.Equal(one[:n], other[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func readFull(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	return errors.Join(io.ErrUnexpectedEOF, err)
}
