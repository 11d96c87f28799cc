package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// mountAnswer is how long a file system may take to show that it is alive. One
// that takes longer hangs, or waits for an archive.
const mountAnswer = 5 * time.Second

// errSilent says that a file system has not answered in time.
var errSilent = fmt.Errorf("no answer within %s", mountAnswer)

// asked has do ask a file system, which may hang. What is left behind then ends
// with the process.
func asked[T any](patience time.Duration, do func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		value, err := do()
		got <- answer{value, err}
	}()
	select {
	case a := <-got:
		return a.value, a.err
	case <-time.After(patience):
		var none T
		return none, errSilent
	}
}

// life is what became of a mount's daemon.
type life int

const (
	alive  life = iota
	dead        // it has ended: everything is ENOTCONN
	silent      // it is there, or another one holds its connection, and does not answer
)

// lifeOf asks a mount whether anybody serves it. statfs is passed on to the
// daemon always; what stat(2) wants to know the kernel may remember of one that
// is dead. (A user's mount does not even tell root; that counts as alive.)
func lifeOf(dir string) life {
	_, err := asked(mountAnswer, func() (unix.Statfs_t, error) {
		var fs unix.Statfs_t
		return fs, unix.Statfs(dir, &fs)
	})
	switch {
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		return dead
	case errors.Is(err, errSilent):
		return silent
	}
	return alive
}

// realDirectory is the path of a directory without symbolic links, as the list
// of mounts has it. Its last element is not followed, unless it is a link: a
// mount that is dead or hangs must not be asked.
func realDirectory(dir string) (string, error) {
	full, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return asked(mountAnswer, func() (string, error) {
		if to, err := os.Readlink(full); err == nil {
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(full), to)
			}
			full = filepath.Clean(to)
		}
		if full == "/" {
			return full, nil
		}
		parent, err := filepath.EvalSymlinks(filepath.Dir(full))
		return filepath.Join(parent, filepath.Base(full)), err
	})
}

// mountPoint makes sure that an archive can be mounted on a directory, and
// returns its path. A dead mount of an earlier run is cleared.
func mountPoint(ctx context.Context, dir string, log *slog.Logger) (string, error) {
	point, err := realDirectory(dir)
	if err != nil {
		return "", missing(err, dir)
	}
	if err := clearDead(ctx, point, log); err != nil {
		return "", err
	}
	_, err = asked(mountAnswer, func() (struct{}, error) { return struct{}{}, mustBeEmpty(point) })
	return point, err
}

// moment is between two looks at what another process has.
const moment = 100 * time.Millisecond

// claim returns a directory, locked, on which an archive can be mounted. Others who
// are about to mount there are waited for.
func claim(ctx context.Context, point string, log *slog.Logger) (*os.File, error) {
	for over := time.Now().Add(mountAnswer); ; within(moment, func() { <-ctx.Done() }) {
		if _, err := mountPoint(ctx, point, log); err != nil {
			return nil, err
		}
		dir, err := asked(mountAnswer, func() (*os.File, error) { return lockDirectory(point) })
		switch {
		case err == nil: // what was mounted before we had the lock
			if _, err := mountPoint(ctx, point, log); err != nil {
				return nil, errors.Join(err, dir.Close())
			}
			return dir, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(over):
			return nil, fmt.Errorf("lock %s against others who mount there: %w", point, err)
		}
	}
}

func lockDirectory(point string) (*os.File, error) {
	dir, err := os.Open(point)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func missing(err error, dir string) error {
	if errors.Is(err, os.ErrNotExist) {
		return hint(fmt.Errorf("%s is not there", dir), "mkdir -p %s", dir)
	}
	return fmt.Errorf("%s: %w", dir, err)
}

// clearDead unmounts what a daemon has left behind that is dead. A mount that
// is alive is an error.
func clearDead(ctx context.Context, point string, log *slog.Logger) error {
	const most = 16 // mounts upon mounts
	for range most {
		all, err := readMounts()
		if err != nil {
			return err
		}
		m, found := mountedAt(all, point)
		if !found || !m.isPitr() {
			return nil
		}
		switch m.life() {
		case alive:
			return hint(fmt.Errorf("%s is mounted there already: %s", m.source, point), "pitr umount %s", point)
		case silent:
			return hint(fmt.Errorf("%s is mounted on %s and gives %w", m.source, point, errSilent),
				"%s", silentHint(m))
		}
		// Nobody can use a dead mount, so nobody loses anything by a lazy end of it.
		if err := unmount(ctx, point, detach); err != nil {
			return fmt.Errorf("clear the dead mount of an earlier run on %s: %w", point, err)
		}
		log.Warn("a dead mount of an earlier run was cleared", "dir", point, "source", m.source)
	}
	return fmt.Errorf("%s: more than %d dead mounts", point, most)
}

// mustBeEmpty refuses to hide files: somebody has written them while the archive was
// not mounted, or this is not the directory that was meant.
func mustBeEmpty(point string) error {
	info, err := os.Stat(point)
	if err != nil {
		return missing(err, point)
	}
	if !info.IsDir() {
		return hint(fmt.Errorf("%s is not a directory", point), "an archive is mounted on an empty directory")
	}
	d, err := os.Open(point)
	if err != nil {
		return err
	}
	defer d.Close()
	first, err := d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", point, err)
	}
	return hint(fmt.Errorf("%s is not empty: %s is in it", point, first[0]),
		"a mount would hide what is there; mount on an empty directory")
}
