package fusefs

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// hold makes the directory, and locks it.
func (c *cache) hold() error {
	if err := makeSafe(c.root); err != nil {
		return err
	}
	lock, err := os.OpenFile(c.root, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrCacheInUse
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cache %s: %w", c.root, err), lock.Close())
	}
	if err := makeSafe(c.dir); err != nil {
		return errors.Join(err, lock.Close())
	}
	c.lock = lock
	return nil
}

// makeAgain makes what somebody deleted. If the directory itself was, another
// mount may have it by now.
func (c *cache) makeAgain() error {
	c.holding.Lock()
	defer c.holding.Unlock()
	if c.lock == nil {
		return errClosed
	}
	was, err := c.lock.Stat()
	if err != nil {
		return err
	}
	is, err := os.Lstat(c.root)
	if err == nil && os.SameFile(was, is) {
		return makeSafe(c.dir)
	}
	old := c.lock
	if err := c.hold(); err != nil {
		return err
	}
	return old.Close()
}

// close gives the directory up. Files that are open are those of who uses them.
func (c *cache) close() error {
	c.holding.Lock()
	defer c.holding.Unlock()
	if c.lock == nil {
		return nil
	}
	// A process that begins at this moment has a copy of the descriptor until it is
	// another program.
	err := errors.Join(unix.Flock(int(c.lock.Fd()), unix.LOCK_UN), c.lock.Close())
	c.lock = nil
	return err
}

// makeSafe makes a directory, or sees that nobody else can put anything into the one
// that is there: he would decide what PostgreSQL replays.
func makeSafe(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	switch owner := ownerOf(info); {
	case !info.IsDir():
		return fmt.Errorf("cache %s: %w: it is not a directory itself", dir, ErrCacheUnsafe)
	case owner != os.Geteuid():
		return fmt.Errorf("cache %s: %w: it belongs to user %d, and this is user %d", dir, ErrCacheUnsafe, owner, os.Geteuid())
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("cache %s: %w: its mode is %04o", dir, ErrCacheUnsafe, info.Mode().Perm())
	}
	return nil
}

func ownerOf(info os.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

// fileState is what changes when somebody writes to a file, or puts another one in its
// place.
type fileState struct {
	inode        uint64
	mtime, ctime syscall.Timespec
}

func stateOf(f *os.File) (fileState, error) {
	info, err := f.Stat()
	if err != nil {
		return fileState{}, err
	}
	return stateIn(info), nil
}

func stateIn(info os.FileInfo) fileState {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileState{}
	}
	return fileState{s.Ino, s.Mtim, s.Ctim}
}

// errNotOurs says that a file of the cache is none.
var errNotOurs = errors.New("not a file of this cache")

// openOurs opens a file of the cache, if it can be that by its kind, owner and size.
func openOurs(path string, size int64) (*os.File, fileState, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileState{}, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != size || ownerOf(info) != os.Geteuid()) {
		err = errNotOurs
	}
	if err != nil {
		return nil, fileState{}, errors.Join(err, f.Close())
	}
	return f, stateIn(info), nil
}
