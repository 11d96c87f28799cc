package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Unnamed makes a file in a directory that has no name there. Nobody else sees
// it, and it is gone with its last descriptor, whatever becomes of its process.
// Its blocks are the directory's file system's all the same.
func Unnamed(dir string) (*os.File, error) {
	// The umask that PostgreSQL sets decides about the group.
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "(unnamed)")), nil
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) {
		return nil, &os.PathError{Op: "make a file in", Path: dir, Err: err}
	}
	// A file system that cannot do it, NFS for one. Without its name such a file
	// cannot get another one: Adopt copies it.
	f, err := os.OpenFile(filepath.Join(dir, Writer().NewTempName()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Adopt makes a file that Unnamed made, in this process or another one, appear
// under the name dest, whole and at once. A file that stands there is replaced.
// Where it cannot have a name, on another file system for one, it is copied. The
// caller closes f in any case, and nobody writes to it any more.
func Adopt(f *os.File, dest string) error {
	if err := likeOurs(f); err != nil {
		return err
	}
	unnamed := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err := unix.Linkat(unix.AT_FDCWD, unnamed, unix.AT_FDCWD, dest, unix.AT_SYMLINK_FOLLOW)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EEXIST) {
		temp := filepath.Join(filepath.Dir(dest), Writer().NewTempName())
		if err = unix.Linkat(unix.AT_FDCWD, unnamed, unix.AT_FDCWD, temp, unix.AT_SYMLINK_FOLLOW); err == nil {
			if err = os.Rename(temp, dest); err == nil {
				return nil
			}
			return errors.Join(about(err, temp, dest), ignoreAbsent(unix.Unlink(temp)))
		}
	}
	return copyTo(f, dest)
}

// copyTo copies an unnamed file. What it was verified for is what was written, so its
// disk must have it: over NFS only a sync tells.
func copyTo(f *os.File, dest string) error {
	info, err := f.Stat()
	if err = errors.Join(err, f.Sync()); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	return Handover(dest)(func(w io.Writer) error {
		n, err := io.Copy(w, io.NewSectionReader(f, 0, info.Size()))
		if err == nil && n < info.Size() {
			err = fmt.Errorf("it ended after %d of %d bytes", n, info.Size())
		}
		return err
	})
}

// likeOurs gives a file the access that one of this process would have: another
// one, with another umask, may have made it.
func likeOurs(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	if want := uint32(0o640 &^ mask); st.Mode&0o777 != want {
		return unix.Fchmod(int(f.Fd()), want)
	}
	return nil
}
