package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive/files"
)

// Handover returns what makes a fetched file appear under the name dest, whole
// and at once, or not at all. A file that stands there is replaced. The bytes
// wait under a temporary name beside it; those of calls that died before are
// removed first. Nothing is synced: PostgreSQL syncs what it keeps.
func Handover(dest string) func(write func(io.Writer) error) error {
	return func(write func(io.Writer) error) error {
		return handOver(dest, write, os.Rename)
	}
}

// HandoverNew is Handover for a name that must be free: fs.ErrExist otherwise.
func HandoverNew(dest string) func(write func(io.Writer) error) error {
	return func(write func(io.Writer) error) error {
		return handOver(dest, write, func(from, to string) error {
			return FS{filepath.Dir(dest)}.Publish(context.Background(), filepath.Base(from), filepath.Base(to))
		})
	}
}

func handOver(dest string, write func(io.Writer) error, publish func(from, to string) error) error {
	dir := filepath.Dir(dest)
	writer := Writer()
	// What cannot be swept is no reason not to hand over.
	_, _ = files.NewStore(FS{dir}, writer).Sweep(context.Background(), ".", time.Time{})
	temp := filepath.Join(dir, writer.NewTempName())
	// The umask that PostgreSQL sets decides about the group.
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	err = write(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = publish(temp, dest)
	}
	if err != nil {
		return errors.Join(about(err, temp, dest), ignoreAbsent(unix.Unlink(temp)))
	}
	return nil
}

// about makes an error one of dest: that of a temporary name would be another
// one at each attempt, and says nothing to anybody.
func about(err error, temp, dest string) error {
	var p *fs.PathError
	if errors.As(err, &p) && p.Path == temp {
		p.Path = dest
	}
	return err
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
