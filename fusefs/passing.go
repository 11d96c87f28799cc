package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// passing lets the kernel read files of the cache by itself, without asking. It
// needs root and Linux 6.9. A file that is open at all is read in one way only: the
// kernel refuses both at once with EIO. So whoever opens it first decides, and one
// refusal is the end of it for all files that are opened after.
type passing struct {
	mu      sync.Mutex // guards the rest, and what nodes have of it
	server  *fuse.Server
	refused bool
}

func (p *passing) begin(s *fuse.Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = s
	p.refused = p.refused || s.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0
}

// pass passes an open file through, if that can be.
func (p *passing) pass(h *handle, out *fuse.OpenOut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := h.node
	if n.backing == 0 {
		if p.refused {
			return
		}
		id, errno := p.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(h.entry.file.Fd())})
		if errno != 0 {
			p.refused = true
			return
		}
		n.backing = id
	}
	n.passed++
	h.passed = true
	out.BackingID = n.backing
	out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
}

// end ends what pass began.
func (p *passing) end(h *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !h.passed {
		return
	}
	h.passed = false
	if h.node.passed--; h.node.passed == 0 {
		// An error would say that the mount is gone, and with it the file.
		_ = p.server.UnregisterBackingFd(h.node.backing)
		h.node.backing = 0
	}
}
