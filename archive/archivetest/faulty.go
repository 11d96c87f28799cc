package archivetest

import (
	"context"
	"errors"
	"io/fs"
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
	fired bool
}

var _ files.FS = (*Faulty)(nil)

// NewFaulty wraps fsys so that operation n, counted from 1, fails. 0 fails
// none. Writing, syncing and closing a file are operations too.
func NewFaulty(fsys files.FS, n int, kind Fault) *Faulty {
	return &Faulty{FS: fsys, left: n, kind: kind}
}

// Fired tells whether the fault happened: if not, there were fewer operations.
func (f *Faulty) Fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// next counts an operation and tells whether it is done and whether it is said
// to have failed.
func (f *Faulty) next() (do, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fired {
		dead := f.kind == Killed || f.kind == KilledAfter
		return !dead, dead
	}
	if f.left--; f.left != 0 {
		return true, false
	}
	f.fired = true
	return f.kind == Unconfirmed || f.kind == KilledAfter, true
}

func (f *Faulty) run(op func() error) error {
	do, failed := f.next()
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
	err = f.run(func() error { file, err = f.FS.Create(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

func (f *Faulty) Open(ctx context.Context, name string) (o files.Object, err error) {
	err = f.run(func() error { o, err = f.FS.Open(ctx, name); return err })
	return o, err
}

func (f *Faulty) Stat(ctx context.Context, name string) (i fs.FileInfo, err error) {
	err = f.run(func() error { i, err = f.FS.Stat(ctx, name); return err })
	return i, err
}

func (f *Faulty) ReadDir(ctx context.Context, name string) (e []fs.DirEntry, err error) {
	err = f.run(func() error { e, err = f.FS.ReadDir(ctx, name); return err })
	return e, err
}

func (f *Faulty) Mkdir(ctx context.Context, name string) error {
	return f.run(func() error { return f.FS.Mkdir(ctx, name) })
}

func (f *Faulty) Publish(ctx context.Context, from, to string) error {
	return f.run(func() error { return f.FS.Publish(ctx, from, to) })
}

func (f *Faulty) Remove(ctx context.Context, name string) error {
	return f.run(func() error { return f.FS.Remove(ctx, name) })
}

func (f *Faulty) Sync(ctx context.Context, name string) error {
	return f.run(func() error { return f.FS.Sync(ctx, name) })
}

type faultyFile struct {
	files.File
	f *Faulty
}

// Write that fails unconfirmed has written half.
func (w *faultyFile) Write(p []byte) (n int, err error) {
	do, failed := w.f.next()
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

func (w *faultyFile) Sync() error  { return w.f.run(w.File.Sync) }
func (w *faultyFile) Close() error { return w.f.run(w.File.Close) }
