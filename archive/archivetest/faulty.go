package archivetest

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"

	"pitr/archive/files"
)

// ErrInjected is the error of an operation that was made to fail.
var ErrInjected = errors.New("injected fault")

// Fault says how the chosen operation fails.
type Fault int

// How an operation can fail.
const (
	// Refused: nothing was done.
	Refused Fault = iota
	// Unconfirmed: it was done, and reported as failed.
	Unconfirmed
	// Killed: nothing was done, and no later operation is either: the process
	// is dead.
	Killed
	// KilledAfter: it was done, and no later operation is.
	KilledAfter
)

// Faults is every way to fail.
var Faults = []Fault{Refused, Unconfirmed, Killed, KilledAfter}

// Faulty is a file system whose nth operation fails.
type Faulty struct {
	files.FS
	kind Fault

	mu    sync.Mutex // guards the rest
	left  int
	fired string // what failed
}

var _ files.FS = (*Faulty)(nil)

// NewFaulty wraps fsys so that operation n, counted from 1, fails. 0 fails
// none. Reading, writing, syncing and closing a file are operations too.
func NewFaulty(fsys files.FS, n int, kind Fault) *Faulty {
	return &Faulty{FS: fsys, left: n, kind: kind}
}

// Fired tells whether the fault happened: if not, there were fewer operations.
func (f *Faulty) Fired() bool { return f.Failed() != "" }

// Failed says which operation failed; empty if none did.
func (f *Faulty) Failed() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Harmless tells whether the operation that failed says nothing of an archive:
// that of closing a file that was read.
func (f *Faulty) Harmless() bool { return strings.HasPrefix(f.Failed(), closeRead) }

const closeRead = "close what was read of "

// next counts an operation and tells whether it is done and whether it is said
// to have failed.
func (f *Faulty) next(op string) (do, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fired != "" {
		dead := f.kind == Killed || f.kind == KilledAfter
		return !dead, dead
	}
	if f.left--; f.left != 0 {
		return true, false
	}
	f.fired = op
	return f.kind == Unconfirmed || f.kind == KilledAfter, true
}

func (f *Faulty) run(what string, op func() error) error {
	do, failed := f.next(what)
	var err error
	if do {
		err = op()
	}
	if failed {
		return ErrInjected
	}
	return err
}

func (f *Faulty) Create(ctx context.Context, name string) (file files.File, err error) {
	err = f.run("create "+name, func() error { file, err = f.FS.Create(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f, name}, nil
}

func (f *Faulty) Open(ctx context.Context, name string) (o files.Object, err error) {
	err = f.run("open "+name, func() error { o, err = f.FS.Open(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return &faultyObject{o, f, name}, nil
}

func (f *Faulty) Stat(ctx context.Context, name string) (i fs.FileInfo, err error) {
	err = f.run("stat "+name, func() error { i, err = f.FS.Stat(ctx, name); return err })
	return i, err
}

func (f *Faulty) ReadDir(ctx context.Context, name string) (e []fs.DirEntry, err error) {
	err = f.run("list "+name, func() error { e, err = f.FS.ReadDir(ctx, name); return err })
	return e, err
}

func (f *Faulty) Mkdir(ctx context.Context, name string) error {
	return f.run("mkdir "+name, func() error { return f.FS.Mkdir(ctx, name) })
}

func (f *Faulty) Publish(ctx context.Context, from, to string) error {
	return f.run("publish "+from, func() error { return f.FS.Publish(ctx, from, to) })
}

func (f *Faulty) Remove(ctx context.Context, name string) error {
	return f.run("remove "+name, func() error { return f.FS.Remove(ctx, name) })
}

func (f *Faulty) Sync(ctx context.Context, name string) error {
	return f.run("sync "+name, func() error { return f.FS.Sync(ctx, name) })
}

type faultyFile struct {
	files.File
	f    *Faulty
	name string
}

// Write that fails unconfirmed has written half.
func (w *faultyFile) Write(p []byte) (n int, err error) {
	do, failed := w.f.next("write " + w.name)
	if failed && do {
		p = p[:len(p)/2]
	}
	if do {
		n, err = w.File.Write(p)
	}
	if failed {
		return n, ErrInjected
	}
	return n, err
}

func (w *faultyFile) Sync() error  { return w.f.run("sync "+w.name, w.File.Sync) }
func (w *faultyFile) Close() error { return w.f.run("close "+w.name, w.File.Close) }

type faultyObject struct {
	files.Object
	f    *Faulty
	name string
}

// ReadAt that fails unconfirmed has read half.
func (o *faultyObject) ReadAt(p []byte, off int64) (n int, err error) {
	do, failed := o.f.next("read " + o.name)
	if failed && do {
		p = p[:len(p)/2]
	}
	if do {
		n, err = o.Object.ReadAt(p, off)
	}
	if failed {
		return n, ErrInjected
	}
	return n, err
}

// Close closes in any case: what was not closed would stay open in the test.
func (o *faultyObject) Close() error {
	_, failed := o.f.next(closeRead + o.name)
	err := o.Object.Close()
	if failed {
		return ErrInjected
	}
	return err
}
