package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Link gives a file another, free name: fs.ErrExist if it is taken. Both names
// are equal from then on; neither is durable before its directory is synced.
func (l FS) Link(ctx context.Context, from, to string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := os.Link(l.path(from), l.path(to))
	if errors.Is(err, os.ErrExist) && l.same(from, to) {
		return nil // NFS sent it twice, and the first time counted
	}
	return err
}

// Replace moves a file to a name, free or not, in one atomic step.
func (l FS) Replace(ctx context.Context, from, to string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return os.Rename(l.path(from), l.path(to))
}

// visitPiece is how many entries of a directory are read at a time.
const visitPiece = 512

// Visit shows each entry of a directory, in the order of the file system, and
// keeps none: what it takes does not grow with the directory. An error of visit
// ends it, and is returned.
func (l FS) Visit(ctx context.Context, name string, visit func(fs.DirEntry) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.revalidate(name)
	d, err := os.Open(l.path(name))
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(visitPiece)
		for _, e := range entries {
			if err := visit(e); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// lockPause is how long a lock that is taken is left alone before it is tried
// again: flock(2) itself cannot be told to wait only so long.
const lockPause = 25 * time.Millisecond

// Lock takes the lock of a name among all processes of this machine, and waits
// for it until ctx ends. The file under this name stays, empty; what holds the
// lock is an open file of this process, so that a dead one holds none.
func (l FS) Lock(ctx context.Context, name string) (release func() error, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, err := os.OpenFile(l.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func lock(ctx context.Context, f *os.File) error {
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
