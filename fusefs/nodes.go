package fusefs

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"pitr/archive/wal"
)

// The nodes that are always there, by the number under which the kernel knows them.
const (
	rootNode uint64 = fuse.FUSE_ROOT_ID + iota
	walNode
	backupNode
	pitrNode
	identityNode
	healthNode
	metricsNode
	archiveNode // wal/archive.json
	asideNode   // wal/quarantine
	emptyNode   // every file in it
	firstNode   // of those that stand for files of archives
)

// node is a file of the archives that the kernel knows. It holds the same for ever:
// what is stored later under its name is another node, so that the kernel never has
// pages of both, nor a size that is not that of what is read.
type node struct {
	id   uint64
	name wal.Name
	sight

	// Guarded by nodes.mu.
	lookups uint64
	sum     uint64 // of what was served, or the beginning of it; 0: nothing was

	// Guarded by passing.mu.
	backing int32 // under which the kernel reads the cache's file; 0: it does not
	passed  int   // handles that do so
}

// nodes are all of them. They are many after ls -l, so they are small.
type nodes struct {
	mu     sync.Mutex // guards the rest
	byID   map[uint64]*node
	byName map[wal.Name]*node
	next   uint64
}

func newNodes() *nodes {
	return &nodes{byID: map[uint64]*node{}, byName: map[wal.Name]*node{}, next: firstNode}
}

// found notes that the kernel learns of a file, and what it is.
func (t *nodes) found(name wal.Name, seen sight) (id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byName[name]
	if n == nil || n.stamp != seen.stamp {
		n = &node{id: t.next, name: name, sight: seen}
		t.next++
		t.byID[n.id], t.byName[name] = n, n
	}
	n.lookups++
	return n.id
}

// forget notes that the kernel has forgotten.
func (t *nodes) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil {
		return
	}
	if n.lookups -= min(lookups, n.lookups); n.lookups == 0 {
		delete(t.byID, id)
		t.retire(n)
	}
}

// retire lets the name find another node from here on. mu is held.
func (t *nodes) retire(n *node) {
	if t.byName[n.name] == n {
		delete(t.byName, n.name)
	}
}

// get returns a file that the kernel knows, or nil.
func (t *nodes) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// serves notes what a file is found to hold when it is opened. If that is not what it
// held before, as of two archives that differ, it takes another node to read it.
func (t *nodes) serves(n *node, sum [sha256.Size]byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	begin := binary.LittleEndian.Uint64(sum[:]) | 1
	if n.sum == 0 {
		n.sum = begin
	}
	if n.sum != begin {
		t.retire(n)
	}
	return n.sum == begin
}

// inodeOf is the number that programs see. It is the same at every mount, and that
// two files have the same one would harm nobody.
func inodeOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64() | 1<<63
}

// The owner's right to write means nothing here. But cp hands it on: PostgreSQL
// opens what it has restored for writing.
const (
	fileMode = fuse.S_IFREG | 0o640
	dirMode  = fuse.S_IFDIR | 0o750
)

// attr describes a file or directory.
func (t *tree) attr(ino, size uint64, mtime int64, mode uint32) fuse.Attr {
	when := time.Unix(0, mtime)
	a := fuse.Attr{
		Ino: ino, Size: size, Blocks: (size + 511) / 512, Mode: mode, Nlink: 1, Blksize: 1 << 17,
		Owner: fuse.Owner{Uid: t.source.UID, Gid: t.source.GID},
	}
	a.SetTimes(&when, &when, &when)
	return a
}
