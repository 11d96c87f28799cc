package archivetest

import (
	"context"
	"io"
	"io/fs"
	"path"
	"syscall"
	"time"

	"pitr/archive/files"
)

// Create makes a new file.
func (m *Memory) Create(ctx context.Context, name string) (files.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.parent("create", name)
	if err != nil {
		return nil, err
	}
	n := &node{name: path.Base(name), time: time.Now()}
	dir.names[n.name] = n
	return &memoryFile{m, n}, nil
}

type memoryFile struct {
	m *Memory
	n *node
}

// largeWrite is more than a small file has.
const largeWrite = 100 << 10

func (f *memoryFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.n.content == nil && len(p) > largeWrite {
		f.n.content = make([]byte, 0, 5*len(p)) // a segment, most likely
	}
	f.n.content = append(f.n.content, p...)
	return len(p), nil
}

func (f *memoryFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.durable = f.n.content[:len(f.n.content):len(f.n.content)]
	return nil
}

func (f *memoryFile) Close() error { return nil }

type memoryObject struct{ content []byte }

func (o memoryObject) Size() int64  { return int64(len(o.content)) }
func (o memoryObject) Close() error { return nil }

func (o memoryObject) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(o.content)) {
		return 0, io.EOF
	}
	n := copy(p, o.content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Open opens a file.
func (m *Memory) Open(ctx context.Context, name string) (files.Object, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.isDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	}
	return memoryObject{n.content[:len(n.content):len(n.content)]}, nil
}

type memoryInfo struct {
	base string
	size int64
	dir  bool
	time time.Time
}

func (i memoryInfo) Name() string       { return i.base }
func (i memoryInfo) Size() int64        { return i.size }
func (i memoryInfo) ModTime() time.Time { return i.time }
func (i memoryInfo) IsDir() bool        { return i.dir }
func (i memoryInfo) Sys() any           { return nil }

func (i memoryInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

func (n *node) info(base string) memoryInfo {
	return memoryInfo{base, int64(len(n.content)), n.isDir(), n.time}
}

// Stat describes a file or directory.
func (m *Memory) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(name)), nil
}

// ReadDir lists a directory.
func (m *Memory) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	var entries []fs.DirEntry
	for base, child := range n.names {
		entries = append(entries, memoryEntry{fs.FileInfoToDirEntry(child.info(base)), m, n})
	}
	return entries, nil
}

// memoryEntry is what a listing told. Info asks anew: the file may be gone.
type memoryEntry struct {
	fs.DirEntry
	m   *Memory
	dir *node
}

func (e memoryEntry) Info() (fs.FileInfo, error) {
	e.m.mu.Lock()
	defer e.m.mu.Unlock()
	n, ok := e.dir.names[e.Name()]
	if !ok {
		return nil, &fs.PathError{Op: "lstat", Path: e.Name(), Err: syscall.ENOENT}
	}
	return n.info(e.Name()), nil
}

// Mkdir makes a directory.
func (m *Memory) Mkdir(ctx context.Context, name string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.parent("mkdir", name)
	if err != nil {
		return err
	}
	dir.names[path.Base(name)] = newDirectory()
	return nil
}

// Publish moves a file to a free name.
func (m *Memory) Publish(ctx context.Context, from, to string) error {
	return m.move(ctx, from, func() (*node, error) { return m.parent("rename", to) }, to)
}

// move moves a file into the directory that into finds.
func (m *Memory) move(ctx context.Context, from string, into func() (*node, error), to string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("rename", from)
	if err != nil {
		return err
	}
	dir, err := into()
	if err != nil {
		return err
	}
	old, err := m.find("rename", path.Dir(from))
	if err != nil {
		return err
	}
	delete(old.names, path.Base(from))
	dir.names[path.Base(to)] = n
	return nil
}

// Remove removes a file or an empty directory.
func (m *Memory) Remove(ctx context.Context, name string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("remove", name)
	if err != nil {
		return err
	}
	if len(n.names) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	dir, err := m.find("remove", path.Dir(name))
	if err != nil {
		return err
	}
	delete(dir.names, path.Base(name))
	return nil
}

// Sync makes the content of a file, or the names in a directory, durable.
func (m *Memory) Sync(ctx context.Context, name string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("sync", name)
	if err != nil {
		return err
	}
	if !n.isDir() {
		n.durable = n.content[:len(n.content):len(n.content)]
		return nil
	}
	n.durableNames = map[string]*node{}
	for base, child := range n.names {
		n.durableNames[base] = child
	}
	return nil
}
