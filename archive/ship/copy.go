package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"syscall"

	"pitr/archive"
	"pitr/archive/files"
)

// copyOnce is the one durable copy of a call's file that its queues share. It
// is made when the first of them needs it.
type copyOnce struct {
	disk   Disk
	writer files.Writer
	src    archive.Source
	// room is an error if so many bytes more are too many.
	room func(bytes int64) error

	mu   sync.Mutex // guards temp, while the copy is made too: the others need it
	temp string     // its name, once it is whole and durable
}

// place gives the copy a name in a queue, durably: fs.ErrExist if it is taken.
func (c *copyOnce) place(ctx context.Context, at string) error {
	temp, err := c.made(ctx)
	if err != nil {
		return err
	}
	err = c.disk.Link(ctx, temp, at)
	if noLinks(err) {
		if err := c.room(c.src.Size()); err != nil {
			return err
		}
		return files.NewStore(c.disk, c.writer).Put(ctx, at, func(w io.Writer) error { return archive.Copy(ctx, w, c.src) })
	}
	if err != nil {
		return err
	}
	for _, dir := range []string{path.Dir(at), "."} {
		if err := c.disk.Sync(ctx, dir); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
	}
	return nil
}

// noLinks tells whether two names for one file are more than can be had here.
func noLinks(err error) bool {
	for _, e := range []error{syscall.EXDEV, syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS, syscall.EMLINK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// made returns the name of the copy, which is whole and durable.
func (c *copyOnce) made(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.temp != "" {
		return c.temp, nil
	}
	if err := c.room(c.src.Size()); err != nil {
		return "", err
	}
	temp := c.writer.NewTempName()
	if err := c.make(ctx, temp); err != nil {
		// At once: a full disk may need the room for more than this.
		return "", errors.Join(err, ignoreAbsent(c.disk.Remove(context.WithoutCancel(ctx), temp)))
	}
	c.temp = temp
	return temp, nil
}

func (c *copyOnce) make(ctx context.Context, temp string) error {
	f, err := c.disk.Create(ctx, temp)
	if err != nil {
		return err
	}
	if err := archive.Copy(ctx, f, c.src); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync: %w", err), f.Close())
	}
	return f.Close()
}

// drop removes the copy's own name; the queues have theirs. One that cannot be
// removed is swept by a later call.
func (c *copyOnce) drop(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.temp != "" {
		_ = c.disk.Remove(context.WithoutCancel(ctx), c.temp)
	}
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
