package standby

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"pitr/archive/wal"
)

// restore copies the file, and tries again with growing pauses, the first of
// them zero (RestoreWALFileForRecovery).
func (p *pgStandby) restore(ctx context.Context) bool {
	p.debugf("running restore:      ")
	for pauses := 0; pauses <= p.retries; pauses++ {
		if pauses > 0 && sleep(ctx, time.Duration(pauses-1)*p.pause) != nil {
			break
		}
		if p.historyIsAbsent() {
			break
		}
		err := copyWhole(ctx, p.source(), p.target, p.size)
		if err == nil {
			p.debugf("OK\n")
			return true
		}
		if ctx.Err() != nil {
			break
		}
		p.std.warnf("%v\n", p.errorf("could not copy file \"%s\" to \"%s\": %v", p.source(), p.target, err))
	}
	p.debugf("not restored\n")
	return false
}

// historyIsAbsent saves the retries for files that may not exist at all.
func (p *pgStandby) historyIsAbsent() bool {
	if !isKind(p.next, wal.KindHistory) {
		return false
	}
	_, err := os.Stat(p.source())
	return errors.Is(err, os.ErrNotExist)
}

// copyWhole copies one file to a temporary name and renames it. size is what
// the file must have; 0 is any. The new file has the permissions of the old
// one, less the umask, and may at least be written by its owner: PostgreSQL
// opens segments for writing when it syncs them.
func copyWhole(ctx context.Context, from, to string, size wal.SegmentSize) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := replaceable(to); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(to), ".tmp-"+rand.Text())
	dst, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	err = fill(ctx, dst, src, size)
	if err = errors.Join(err, dst.Close()); err == nil {
		err = os.Rename(temp, to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// replaceable keeps a rename from replacing what a copy would have written
// through: a device, above all /dev/null in the hands of root.
func replaceable(file string) error {
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is there and is not a regular file", file)
	}
	return nil
}

// fill copies in portions, so that the end of ctx is seen between two.
func fill(ctx context.Context, dst, src *os.File, size wal.SegmentSize) error {
	const portion = 1 << 20
	for copied := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.CopyN(dst, src, portion)
		copied += n
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			return err
		case size != 0 && copied != int64(size):
			return fmt.Errorf("it has %d bytes and not %d: it changed during the copy", copied, int64(size))
		}
		return nil
	}
}
