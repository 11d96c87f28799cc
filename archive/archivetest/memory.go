// Package archivetest is for tests of archives and stores: a file system in
// memory that can lose power, one that fails at a chosen operation, one that
// cannot take anything back, and the conformance suite that every store
// passes. Only tests import it.
package archivetest

import (
	"context"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"sync"
	"time"

	"pitr/archive/files"
)

// Memory is a file system in memory. What was not synced is lost in Crash: the
// content of a file that was not synced, and every name, made, moved or
// removed, in a directory that was not synced since.
type Memory struct {
	mu   sync.Mutex // guards everything below root
	root *node
}

var _ files.FS = (*Memory)(nil)

// node is a file or a directory.
type node struct {
	name string
	time time.Time

	content, durable []byte // of a file; only ever appended to, so they may share memory

	names, durableNames map[string]*node // of a directory
}

func (n *node) isDir() bool { return n.names != nil }

func newDirectory() *node {
	return &node{names: map[string]*node{}, durableNames: map[string]*node{}}
}

// NewMemory returns an empty file system whose root exists and is durable.
func NewMemory() *Memory { return &Memory{root: newDirectory()} }

// Crash loses what was not synced. With a random source, each unsynced change
// is lost or kept at random, for a disk may also have written what nobody
// asked it to; without one, all of them are lost.
func (m *Memory) Crash(random *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root.crash(random)
}

func (n *node) crash(random *rand.Rand) {
	lost := func() bool { return random == nil || random.IntN(2) == 0 }
	if !n.isDir() {
		if lost() {
			n.content = n.durable
		}
		n.durable = n.content[:len(n.content):len(n.content)]
		return
	}
	for name := range union(n.names, n.durableNames) {
		if !lost() {
			continue
		}
		if was, ok := n.durableNames[name]; ok {
			n.names[name] = was
		} else {
			delete(n.names, name)
		}
	}
	n.durableNames = map[string]*node{}
	for name, child := range n.names {
		n.durableNames[name] = child
		child.crash(random)
	}
}

func union(a, b map[string]*node) map[string]bool {
	all := map[string]bool{}
	for name := range a {
		all[name] = true
	}
	for name := range b {
		all[name] = true
	}
	return all
}

// find returns a node, or the error that an operating system gives.
func (m *Memory) find(op, name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n := m.root
	if name == "." {
		return n, nil
	}
	for rest := name; rest != ""; {
		var first string
		first, rest = cutElement(rest)
		child, ok := n.names[first]
		if !ok {
			return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		n = child
	}
	return n, nil
}

func cutElement(name string) (first, rest string) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// parent returns the directory of a name that is to be free.
func (m *Memory) parent(op, name string) (*node, error) {
	dir, err := m.find(op, path.Dir(name))
	if err != nil {
		return nil, err
	}
	if !dir.isDir() {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if _, taken := dir.names[path.Base(name)]; taken {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrExist}
	}
	return dir, nil
}

// Create makes a new file.
func (m *Memory) Create(_ context.Context, name string) (files.File, error) {
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

func (f *memoryFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
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
func (m *Memory) Open(_ context.Context, name string) (files.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.isDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
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
func (m *Memory) Stat(_ context.Context, name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(name)), nil
}

// ReadDir lists a directory.
func (m *Memory) ReadDir(_ context.Context, name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("readdir", name)
	if err != nil {
		return nil, err
	}
	var entries []fs.DirEntry
	for base, child := range n.names {
		entries = append(entries, fs.FileInfoToDirEntry(child.info(base)))
	}
	return entries, nil
}

// Mkdir makes a directory.
func (m *Memory) Mkdir(_ context.Context, name string) error {
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
func (m *Memory) Publish(_ context.Context, from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("rename", from)
	if err != nil {
		return err
	}
	dir, err := m.parent("rename", to)
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
func (m *Memory) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("remove", name)
	if err != nil {
		return err
	}
	if len(n.names) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrInvalid}
	}
	dir, err := m.find("remove", path.Dir(name))
	if err != nil {
		return err
	}
	delete(dir.names, path.Base(name))
	return nil
}

// Sync makes the content of a file, or the names in a directory, durable.
func (m *Memory) Sync(_ context.Context, name string) error {
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
