package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"pitr/archive/wal"
)

// PGWAL is pg_wal of a data directory.
type PGWAL struct {
	// Dir is its path.
	Dir string
}

// statusBatch is how many names of archive_status are looked at together.
const statusBatch = 1024

// Ready lists files that PostgreSQL wants archived (archive_status/NAME.ready), in
// the order in which it does that (pgarch.c): the first ones that come after a
// name, at most so many. Memory is bounded by most, not by what waits.
func (w PGWAL) Ready(ctx context.Context, after wal.Name, most int) ([]wal.Name, error) {
	d, err := os.Open(filepath.Join(w.Dir, "archive_status"))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var first []wal.Name
	for ctx.Err() == nil {
		names, err := d.Readdirnames(statusBatch)
		for _, name := range names {
			name, ready := strings.CutSuffix(name, ".ready")
			if !ready {
				continue
			}
			if n, err := wal.ParseName(name); err == nil && wal.CompareArchiving(n, after) > 0 {
				first = append(first, n)
			}
		}
		slices.SortFunc(first, wal.CompareArchiving)
		first = first[:min(len(first), most)]
		if errors.Is(err, io.EOF) {
			return first, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, context.Cause(ctx)
}

// Mark is a name in archive_status: a file of pg_wal that waits to be archived, or
// that PostgreSQL takes for archived.
type Mark struct {
	Name wal.Name
	Done bool
	// At is since when it waits, or is done: the archiver renames .ready to .done,
	// which changes the ctime alone.
	At time.Time
}

// Marks shows what is in archive_status, in no order, and keeps none of it: what it
// takes does not grow with the directory. What vanishes meanwhile is passed over.
func (w PGWAL) Marks(ctx context.Context, visit func(Mark)) error {
	d, err := os.Open(filepath.Join(w.Dir, "archive_status"))
	if err != nil {
		return err
	}
	defer d.Close()
	for ctx.Err() == nil {
		names, err := d.Readdirnames(statusBatch)
		for _, name := range names {
			if m, ok := w.mark(name); ok {
				visit(m)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func (w PGWAL) mark(entry string) (Mark, bool) {
	name, ready := strings.CutSuffix(entry, ".ready")
	name, done := strings.CutSuffix(name, ".done")
	n, err := wal.ParseName(name)
	if err != nil || ready == done {
		return Mark{}, false
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(w.Dir, "archive_status", entry), &st); err != nil {
		return Mark{}, false
	}
	at := st.Mtim
	if done {
		at = st.Ctim
	}
	return Mark{Name: n, Done: done, At: time.Unix(at.Unix())}, true
}

// File is a file of pg_wal, open for reading.
type File struct {
	*os.File
	info fs.FileInfo
}

// Size is the file's size in bytes when it was opened.
func (f File) Size() int64 { return f.info.Size() }

// Facts says which file this is, and in which state it was opened: equal for two
// looks between which nobody wrote to it or put another one in its place.
func (f File) Facts() any { return factsOf(f.info) }

type facts struct {
	dev, ino          uint64
	size              int64
	modified, changed syscall.Timespec
}

func factsOf(info fs.FileInfo) any {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return new(int) // equal to nothing
	}
	return facts{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// Open opens a file of pg_wal.
func (w PGWAL) Open(name wal.Name) (File, error) {
	path := filepath.Join(w.Dir, name.String())
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return File{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return File{}, errors.Join(err, f.Close())
	}
	return File{f, info}, nil
}
