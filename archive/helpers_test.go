package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

const (
	systemID = 7301234567890123456
	mb       = wal.SegmentSize(1 << 20)
	patience = time.Minute
)

// form is one stored form of an archive.
type form struct {
	layout archive.Layout
	codec  archive.Codec
}

func (f form) String() string { return string(f.layout) + "-" + string(f.codec) }

var forms = []form{{archive.Tree, archive.Zstd}, {archive.Tree, archive.None}, {archive.Flat, archive.None}}

// places are where a file system lies. Far away an archive is asked several
// things at the same time.
var places = map[string]func(files.FS) files.FS{
	"near": func(fsys files.FS) files.FS { return fsys },
	"far":  afar,
}

func afar(fsys files.FS) files.FS { return archivetest.Distant{FS: fsys} }

func identity(f form) archive.Identity {
	return archive.Identity{
		SystemID: systemID, Major: 15, SegmentSize: mb, Layout: f.layout, Codec: f.codec,
		Created: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), CreatedBy: "test",
	}
}

// newArchive makes an archive in fsys.
func newArchive(t testing.TB, fsys files.FS, f form, opts archive.Options) *archive.Archive {
	t.Helper()
	if _, err := archive.Init(t.Context(), store(fsys), identity(f)); err != nil {
		t.Fatal(err)
	}
	return at(fsys, opts)
}

func store(fsys files.FS) *files.Store { return files.NewStore(fsys, local.Writer()) }

// at is the archive in fsys as a client of the cluster sees it.
func at(fsys files.FS, opts archive.Options) *archive.Archive {
	if opts.Cluster == (archive.Cluster{}) {
		opts.Cluster = archive.Cluster{SystemID: systemID, Major: 15, SegmentSize: mb}
	}
	return archive.New("memory", store(fsys), opts)
}

// file is a file of pg_wal.
type file struct {
	name    wal.Name
	content []byte
}

func (f file) source() archive.Source { return bytes.NewReader(f.content) }

func segments(tli wal.TimelineID, first wal.SegmentNumber, count int, seed uint64) []file {
	w := archivetest.NewWAL(systemID, 15, tli, mb, first, seed)
	var all []file
	for range count {
		name, content := w.Next()
		all = append(all, file{name, content})
	}
	return all
}

func history(tli wal.TimelineID, text string) file {
	return file{wal.HistoryName(tli), []byte(text)}
}

func push(t testing.TB, a *archive.Archive, all ...file) {
	t.Helper()
	for _, f := range all {
		if _, err := a.Push(t.Context(), f.name, f.source()); err != nil {
			t.Fatal(err)
		}
	}
}

// into delivers to a buffer.
func into(b *bytes.Buffer) archive.Deliver {
	return func(write func(io.Writer) error) error {
		var fresh bytes.Buffer
		if err := write(&fresh); err != nil {
			return err
		}
		*b = fresh
		return nil
	}
}

func fetch(ctx context.Context, a *archive.Archive, name wal.Name) ([]byte, error) {
	var b bytes.Buffer
	err := a.Fetch(ctx, name, patience, into(&b))
	return b.Bytes(), err
}

func wantFile(t testing.TB, a *archive.Archive, f file) {
	t.Helper()
	got, err := fetch(t.Context(), a, f.name)
	if err != nil || !bytes.Equal(got, f.content) {
		t.Errorf("%s: got %d bytes, error %v, want what was pushed", f.name, len(got), err)
	}
}

func wantError(t testing.TB, err, want error, not ...error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	for _, n := range not {
		if errors.Is(err, n) {
			t.Errorf("%v must not match %v", err, n)
		}
	}
}

// hooked is a file system some of whose operations are done otherwise. A hook
// gets the real operation, and calls it or not.
type hooked struct {
	files.FS
	open    func(name string, real func() (files.Object, error)) (files.Object, error)
	create  func(name string, real func() (files.File, error)) (files.File, error)
	readDir func(name string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error)
	publish func(from, to string, real func() error) error
	remove  func(name string, real func() error) error
}

func (h hooked) Open(ctx context.Context, name string) (files.Object, error) {
	real := func() (files.Object, error) { return h.FS.Open(ctx, name) }
	if h.open == nil {
		return real()
	}
	return h.open(name, real)
}

func (h hooked) Create(ctx context.Context, name string) (files.File, error) {
	real := func() (files.File, error) { return h.FS.Create(ctx, name) }
	if h.create == nil {
		return real()
	}
	return h.create(name, real)
}

func (h hooked) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	real := func() ([]fs.DirEntry, error) { return h.FS.ReadDir(ctx, name) }
	if h.readDir == nil {
		return real()
	}
	return h.readDir(name, real)
}

func (h hooked) Publish(ctx context.Context, from, to string) error {
	real := func() error { return h.FS.Publish(ctx, from, to) }
	if h.publish == nil {
		return real()
	}
	return h.publish(from, to, real)
}

func (h hooked) Remove(ctx context.Context, name string) error {
	real := func() error { return h.FS.Remove(ctx, name) }
	if h.remove == nil {
		return real()
	}
	return h.remove(name, real)
}

// errIO is what a broken disk says.
var errIO = errors.New("input/output error")

// absence is how a file system says that a file is not there.
func absence(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

// unreadable fails to open one file.
func unreadable(fsys files.FS, broken string) files.FS {
	return hooked{FS: fsys, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
		if name == broken {
			return nil, errIO
		}
		return real()
	}}
}

// rewrite changes a stored file behind the archive's back.
func rewrite(t testing.TB, fsys files.FS, name string, change func([]byte) []byte) {
	t.Helper()
	ctx := t.Context()
	f, err := fsys.Open(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err = errors.Join(err, fsys.Remove(ctx, name)); err != nil {
		t.Fatal(err)
	}
	plant(t, fsys, name, change(content))
}

// plant writes a file that no archive has stored.
func plant(t testing.TB, fsys files.FS, name string, content []byte) {
	t.Helper()
	w, err := fsys.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(content)
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
}
