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
			"is the file system of l_archivedir mounted? If it is new: cmd_archiver -I")
	}
	return fmt.Errorf("make its queue: %w", err)
}

// waiting lists what is queued, in the archiver's order. It clears away what
// dead writers left.
func (l *lane) waiting(ctx context.Context) ([]wal.Name, error) {
	entries, err := l.Disk.ReadDir(ctx, l.Destination.Name)
	if err != nil {
		return nil, err
	}
	var names []wal.Name
	unfinished := false
	for _, e := range entries {
		unfinished = unfinished || strings.HasPrefix(e.Name(), files.TempPrefix)
		if n, err := wal.ParseName(e.Name()); err == nil && !e.IsDir() {
			names = append(names, n)
		}
	}
	if unfinished {
		// What cannot be swept is no reason not to ship.
		_, _ = files.NewStore(l.Disk, l.Writer).Sweep(ctx, l.Destination.Name, time.Time{})
	}
	slices.SortFunc(names, wal.CompareArchiving)
	return names, nil
}

// keep puts the call's file into the queue, durably.
func (l *lane) keep(ctx context.Context) error {
	at := l.at(l.name.String())
	store := files.NewStore(l.Disk, l.Writer)
	_, err := l.Disk.Stat(ctx, at)
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.copy.place(ctx, at); err == nil {
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
