package archivetest

import (
	"context"
	"io/fs"
	"math"
	"path"
	"syscall"

	"pitr/archive/files"
)

// queueFS is what a queue needs besides files.FS.
type queueFS interface {
	files.FS
	Link(ctx context.Context, from, to string) error
	Replace(ctx context.Context, from, to string) error
	Lock(ctx context.Context, name string) (release func() error, err error)
	Visit(ctx context.Context, name string, visit func(fs.DirEntry) error) error
	Space() (free int64, dev uint64, err error)
}

var (
	_ queueFS = (*Memory)(nil)
	_ queueFS = (*Faulty)(nil)
)

// Link gives a file another, free name.
func (m *Memory) Link(ctx context.Context, from, to string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("link", from)
	if err != nil {
		return err
	}
	dir, err := m.parent("link", to)
	if err != nil {
		return err
	}
	if n.isDir() {
		return &fs.PathError{Op: "link", Path: from, Err: syscall.EPERM}
	}
	dir.names[path.Base(to)] = n
	return nil
}

// Replace moves a file to a name, free or not.
func (m *Memory) Replace(ctx context.Context, from, to string) error {
	return m.move(ctx, from, func() (*node, error) { return m.find("rename", path.Dir(to)) }, to)
}

// Lock takes the lock of a name, and waits for it until ctx ends. It is gone
// with its holder, so Crash does not release it: the holder does.
func (m *Memory) Lock(ctx context.Context, name string) (release func() error, err error) {
	lock, err := m.lock(name)
	if err != nil {
		return nil, err
	}
	select {
	case lock <- struct{}{}:
		return func() error { <-lock; return nil }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (m *Memory) lock(name string) (chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find("lock", path.Dir(name)); err != nil {
		return nil, err
	}
	if m.locks == nil {
		m.locks = map[string]chan struct{}{}
	}
	if m.locks[name] == nil {
		m.locks[name] = make(chan struct{}, 1)
	}
	return m.locks[name], nil
}

// Visit shows each entry of a directory.
func (m *Memory) Visit(ctx context.Context, name string, visit func(fs.DirEntry) error) error {
	entries, err := m.ReadDir(ctx, name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

// Space is more than anybody needs.
func (m *Memory) Space() (free int64, dev uint64, err error) { return math.MaxInt64, 1, nil }

// queue is the wrapped file system, which must have what a queue needs.
func (f *Faulty) queue() queueFS { return f.FS.(queueFS) }

func (f *Faulty) Link(ctx context.Context, from, to string) error {
	return f.run("link "+to, func() error { return f.queue().Link(ctx, from, to) })
}

func (f *Faulty) Replace(ctx context.Context, from, to string) error {
	return f.run("replace "+to, func() error { return f.queue().Replace(ctx, from, to) })
}

func (f *Faulty) Visit(ctx context.Context, name string, visit func(fs.DirEntry) error) error {
	return f.run("list "+name, func() error { return f.queue().Visit(ctx, name, visit) })
}

func (f *Faulty) Space() (free int64, dev uint64, err error) {
	err = f.run("space", func() (err error) { free, dev, err = f.queue().Space(); return err })
	return free, dev, err
}

// Lock that fails unconfirmed is not kept: nobody would release it.
func (f *Faulty) Lock(ctx context.Context, name string) (release func() error, err error) {
	err = f.run("lock "+name, func() (err error) { release, err = f.queue().Lock(ctx, name); return err })
	if err != nil && release != nil {
		_ = release()
		release = nil
	}
	return release, err
}
