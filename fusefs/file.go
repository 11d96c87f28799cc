package fusefs

import (
	"crypto/sha256"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"pitr/archive/wal"
)

// handle is what somebody has open. One of the first four is set.
type handle struct {
	entry   *entry     // a file in the cache
	large   *largeFile // a large segment, read in parts
	content []byte     // of a file that is made up
	dir     *openDir

	node   *node // of entry and large
	passed bool  // the kernel reads the entry by itself
}

// handles are all of them, by the number that the kernel gives back.
type handles struct {
	mu   sync.Mutex // guards the rest
	open map[uint64]*handle
	last uint64
}

func (h *handles) add(one *handle) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = map[uint64]*handle{}
	}
	h.last++
	h.open[h.last] = one
	return h.last
}

func (h *handles) get(fh uint64) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[fh]
}

func (h *handles) remove(fh uint64) *handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	one := h.open[fh]
	delete(h.open, fh)
	return one
}

// takeAll removes all of them: the kernel has dropped them without a word.
func (h *handles) takeAll() (all []*handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.open {
		all = append(all, one)
	}
	h.open = nil
	return all
}

// Open opens a file. A segment is there, whole and verified, when it is open, or its
// beginning is if it is large and compressed.
func (t *tree) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	t.source.health.opens.Add(1)
	if in.NodeId < firstNode {
		out.Fh = t.handles.add(&handle{content: t.content(in.NodeId)})
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
		return fuse.OK
	}
	n := t.nodes.get(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	h, errno := t.openFile(cancel, n)
	if errno != 0 {
		return fuse.Status(errno)
	}
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	if h.entry == nil || !h.entry.provisional {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	if h.entry != nil && n.size <= t.source.limit.Load() {
		t.passing.pass(h, out)
	}
	out.Fh = t.handles.add(h)
	t.source.readAhead(n.name, t.segment)
	return fuse.OK
}

// openFile opens what the archives have under a name now. If that is not what the
// kernel knows by this node, the kernel is to look for the name again: ESTALE makes it.
func (t *tree) openFile(cancel <-chan struct{}, n *node) (*handle, syscall.Errno) {
	if errno := t.source.confirm(cancel, n.name, n.sight); errno != 0 {
		return nil, errno
	}
	h := &handle{node: n}
	sum, errno := t.contentOf(cancel, h)
	if errno == 0 && !t.nodes.serves(n, sum) {
		t.drop(h)
		errno = syscall.ESTALE
	}
	return h, errno
}

// contentOf gets what a handle is to read, and its digest.
func (t *tree) contentOf(cancel <-chan struct{}, h *handle) (sum [sha256.Size]byte, errno syscall.Errno) {
	n := h.node
	if n.size > t.source.limit.Load() && n.name.Kind() != wal.KindHistory {
		h.large, errno = t.large.get(cancel, n.name, n.sight)
		if errno != 0 {
			return sum, errno
		}
		if h.large != nil {
			return h.large.sum, 0
		}
	}
	h.entry, errno = t.source.content(cancel, n.name, n.sight)
	if errno == 0 {
		sum = h.entry.sum
	}
	return sum, errno
}

// Read reads where the kernel does not do so by itself.
func (t *tree) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	t.source.health.reads.Add(1)
	h := t.handles.get(in.Fh)
	if h == nil {
		return nil, fuse.EBADF
	}
	off := int64(in.Offset)
	switch {
	case h.entry != nil:
		n := max(0, min(int64(len(buf)), h.entry.size-off))
		return fuse.ReadResultFd(h.entry.file.Fd(), off, int(n)), fuse.OK
	case h.large != nil:
		n, errno := h.large.read(cancel, buf, off)
		return fuse.ReadResultData(buf[:n]), fuse.Status(errno)
	}
	n := 0
	if off < int64(len(h.content)) {
		n = copy(buf, h.content[off:])
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Release closes a file.
func (t *tree) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if h := t.handles.remove(in.Fh); h != nil {
		t.drop(h)
	}
}

func (t *tree) drop(h *handle) {
	t.passing.end(h)
	if h.entry != nil {
		t.source.cache.release(h.entry)
	}
	if h.large != nil {
		h.large.release()
	}
}

// Flush and Fsync have nothing to do; the kernel asks once, and never again.
func (t *tree) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Fsync has nothing to do.
func (t *tree) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.ENOSYS }

// FsyncDir has nothing to do.
func (t *tree) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.ENOSYS }
