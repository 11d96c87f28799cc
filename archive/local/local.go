// Package local is a file system over a directory of this machine, or of one
// that is mounted here (NFS), for package files.
//
// What it makes inherits the access of the root directory and ignores the
// umask: see docs/format.md. It never makes a directory above the root.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"pitr/archive/files"
)

// FS is the tree below one directory. System calls under way cannot be
// cancelled: a call on a hanging disk returns when the disk does.
type FS struct {
	root string
}

var _ files.FS = FS{}

// New returns the tree below root, an absolute path. Nothing is touched yet.
func New(root string) FS { return FS{root: root} }

func (l FS) path(name string) string { return filepath.Join(l.root, filepath.FromSlash(name)) }

// Create makes a new file that can be read by whom the root directory can be
// read by, and written by its owner alone.
func (l FS) Create(ctx context.Context, name string) (files.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	root, err := os.Stat(l.root)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(l.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(root.Mode().Perm()&0o444 | 0o200); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// object is an open file with the size it had when it was opened.
type object struct {
	*os.File
	size int64
}

func (o object) Size() int64 { return o.size }

// Open opens a regular file; anything else is an error, and a named pipe does
// not block it.
func (l FS) Open(ctx context.Context, name string) (files.Object, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, err := os.OpenFile(l.path(name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) && l.revalidate(path.Dir(name)) {
		f, err = os.OpenFile(l.path(name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return object{f, info.Size()}, nil
}

// revalidate asks the file system for what a directory is now, and the ones
// above it: NFS answers from its cache for up to a minute, also that a file is
// not there which another host has stored since. It tells whether all of them
// could be asked.
func (l FS) revalidate(dir string) bool {
	var st unix.Statx_t
	all := true
	at := "."
	for _, element := range append([]string{"."}, strings.Split(dir, "/")...) {
		at = path.Join(at, element)
		all = unix.Statx(unix.AT_FDCWD, l.path(at), unix.AT_STATX_FORCE_SYNC, unix.STATX_MTIME, &st) == nil && all
	}
	return all
}

// Stat describes a file or directory.
func (l FS) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return os.Stat(l.path(name))
}

// ReadDir lists a directory, in the order of the file system.
func (l FS) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.revalidate(name)
	d, err := os.Open(l.path(name))
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	return entries, errors.Join(err, d.Close())
}

// Mkdir makes a directory with the mode of the root directory. The root itself
// is made with mode 0700, and its name is durable on return.
func (l FS) Mkdir(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if name == "." {
		return l.makeRoot()
	}
	root, err := os.Stat(l.root)
	if err != nil {
		return err
	}
	made := os.Mkdir(l.path(name), 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	// fs.ErrExist must not stand beside this error: it would be taken for
	// "all is well".
	if err := l.inherit(l.path(name), root.Mode()); err != nil {
		return err
	}
	return made
}

// inherit gives a directory the access of the root, also one that its maker
// died over. Somebody else's is left as it is.
func (l FS) inherit(dir string, root fs.FileMode) error {
	const access = fs.ModePerm | fs.ModeSetgid
	info, err := os.Stat(dir)
	if err != nil || info.Mode()&access == root&access {
		return err
	}
	if err := os.Chmod(dir, root&access); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func (l FS) makeRoot() error {
	made := os.Mkdir(l.root, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	// Also if it was there: its maker may have died before this.
	if err := syncPath(filepath.Dir(l.root)); err != nil {
		return err
	}
	return made
}

// Publish moves a file to a free name: renameat2 with RENAME_NOREPLACE, or,
// where the file system has no such thing (NFS), link and unlink.
func (l FS) Publish(ctx context.Context, from, to string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := unix.Renameat2(unix.AT_FDCWD, l.path(from), unix.AT_FDCWD, l.path(to), unix.RENAME_NOREPLACE)
	switch err {
	case unix.EINVAL, unix.ENOSYS, unix.ENOTSUP, unix.EPERM: // EPERM: what a container's filter says of a call it does not know
		return l.publishByLink(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: l.path(from), New: l.path(to), Err: err}
	}
	return nil
}

func (l FS) publishByLink(from, to string) error {
	err := os.Link(l.path(from), l.path(to))
	if errors.Is(err, fs.ErrExist) && l.same(from, to) {
		err = nil // NFS sent it twice, and the first time counted
	}
	if err != nil {
		return err
	}
	return os.Remove(l.path(from))
}

// same tells whether two names lead to one file.
func (l FS) same(one, other string) bool {
	a, err := os.Lstat(l.path(one))
	if err != nil {
		return false
	}
	b, err := os.Lstat(l.path(other))
	return err == nil && os.SameFile(a, b)
}

// Remove removes a file or an empty directory.
func (l FS) Remove(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return os.Remove(l.path(name))
}

// Sync syncs a file or a directory.
func (l FS) Sync(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return syncPath(l.path(name))
}

func syncPath(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Space tells how many bytes are free for this user on the root's file system,
// and the number of its device.
func (l FS) Space() (free int64, dev uint64, err error) {
	var st unix.Statfs_t
	var at unix.Stat_t
	err = unix.Statfs(l.root, &st)
	if err == nil {
		err = unix.Stat(l.root, &at)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", l.root, err)
	}
	return int64(st.Bavail) * st.Bsize, uint64(at.Dev), nil
}
