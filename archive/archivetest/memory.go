// Package archivetest is for tests of archives and stores: a file system in
// memory that can lose power, one that fails at a chosen operation, one that
// cannot take anything back, and the conformance suite that every store
// passes. Only tests import it.
package archivetest

import (
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"pitr/archive/files"
)

// Memory is a file system in memory. What was not synced is lost in Crash: the
// content of a file that was not synced, and every name, made, moved or
// removed, in a directory that was not synced since. Its errors are those of
// Linux, and like a real one's its operations end with their context.
type Memory struct {
	mu    sync.Mutex // guards everything below root, and locks
	root  *node
	locks map[string]chan struct{} // full while somebody holds the lock of a name
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
	for element := range strings.SplitSeq(name, "/") {
		if !n.isDir() {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		child, ok := n.names[element]
		if !ok {
			return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOENT}
		}
		n = child
	}
	return n, nil
}

// parent returns the directory of a name that is to be free.
func (m *Memory) parent(op, name string) (*node, error) {
	dir, err := m.find(op, path.Dir(name))
	if err != nil {
		return nil, err
	}
	if !dir.isDir() {
		return nil, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	if _, taken := dir.names[path.Base(name)]; taken || name == "." {
		return nil, &fs.PathError{Op: op, Path: name, Err: syscall.EEXIST}
	}
	return dir, nil
}
