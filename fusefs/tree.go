package fusefs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"pitr/archive/wal"
)

// tree answers the kernel. It speaks to it directly, not through go-fuse's inodes:
// 100,000 of those take too much memory, and passing files through must be decided
// here.
type tree struct {
	readOnly
	source  *source
	nodes   *nodes
	handles handles
	passing passing
	large   *largeFiles
	virtual virtual
	segment wal.SegmentSize
	mounted time.Time
}

// immutable is how long the kernel may believe what it was told of what never changes.
const immutable = 24 * time.Hour

// settling is how long it may believe that of a file. An operator may set it aside, or
// push another one: who opens it hears of that at once, who only looks not before. That
// a file is missing the kernel asks every time.
const settling = time.Minute

// Lookup finds a name in a directory.
func (t *tree) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if id, ok := t.virtual.child(in.NodeId, name); ok {
		t.enterVirtual(id, out)
		return fuse.OK
	}
	switch in.NodeId {
	case walNode:
		n, err := wal.ParseName(name)
		if err != nil {
			return fuse.ENOENT // PostgreSQL gives no such name, so nothing has it
		}
		return t.lookupFile(cancel, n, out)
	case asideNode:
		return t.lookupAside(cancel, name, out)
	}
	return fuse.ENOENT
}

func (t *tree) lookupFile(cancel <-chan struct{}, name wal.Name, out *fuse.EntryOut) fuse.Status {
	seen, errno := t.source.stat(cancel, name)
	if errno != 0 {
		return fuse.Status(errno)
	}
	t.enter(name, seen, out)
	return fuse.OK
}

// enter tells the kernel of a file. It forgets one day, and says so.
func (t *tree) enter(name wal.Name, seen sight, out *fuse.EntryOut) {
	out.NodeId = t.nodes.found(name, seen)
	out.Attr = t.attr(inodeOf(name.String()), uint64(seen.size), seen.mtime, fileMode)
	if t.settled(name, seen.size) {
		out.SetEntryTimeout(settling)
		out.SetAttrTimeout(settling)
	}
}

// settled tells whether a file will stay as it is. A raw segment that is too short
// is still being copied by another program.
func (t *tree) settled(name wal.Name, size int64) bool {
	hasRecords := name.Kind() == wal.KindSegment || name.Kind() == wal.KindPartial
	return size == int64(t.segment) || !hasRecords && size > 0
}

func (t *tree) enterVirtual(id uint64, out *fuse.EntryOut) {
	out.NodeId = id
	out.Attr = t.virtualAttr(id)
	out.SetEntryTimeout(immutable)
	if id != healthNode && id != metricsNode {
		out.SetAttrTimeout(immutable)
	}
}

// lookupAside finds the name of a file that was set aside. What it holds is not
// shown.
func (t *tree) lookupAside(cancel <-chan struct{}, name string, out *fuse.EntryOut) fuse.Status {
	all, errno := t.source.setAside(cancel)
	if errno != 0 {
		return fuse.Status(errno)
	}
	for _, a := range all {
		if a.Base == name {
			out.NodeId = emptyNode
			out.Attr = t.virtualAttr(emptyNode)
			return fuse.OK
		}
	}
	return fuse.ENOENT
}

// Forget hears that the kernel has forgotten a file.
func (t *tree) Forget(id, lookups uint64) { t.nodes.forget(id, lookups) }

// GetAttr describes a file. Nobody is asked, unless it may change.
func (t *tree) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId < firstNode {
		out.Attr = t.virtualAttr(in.NodeId)
		if in.NodeId != healthNode && in.NodeId != metricsNode {
			out.SetTimeout(immutable)
		}
		return fuse.OK
	}
	n := t.nodes.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	seen := n.sight
	if !t.settled(n.name, seen.size) {
		var errno syscall.Errno
		if seen, errno = t.source.stat(cancel, n.name); errno != 0 {
			return fuse.Status(errno)
		}
	}
	out.Attr = t.attr(inodeOf(n.name.String()), uint64(seen.size), seen.mtime, fileMode)
	if t.settled(n.name, seen.size) {
		out.SetTimeout(settling)
	}
	return fuse.OK
}

// StatFs has nothing to tell: how large an archive is nobody counts.
func (t *tree) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	return fuse.OK
}

// String names the file system in go-fuse's messages.
func (t *tree) String() string { return "pitr" }

// Init gets the server, which passes files through.
func (t *tree) Init(s *fuse.Server) { t.passing.begin(s) }

var _ fuse.RawFileSystem = (*tree)(nil)
