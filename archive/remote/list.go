package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
)

// mostListed is how many names a listing may have: what a thousand directories
// of a tree hold, or 8 TB of WAL in one flat one. mostListedBytes is what they
// may take: three times what OpenSSH needs for so many.
const (
	mostListed      = 500_000
	mostListedBytes = 256 << 20
)

// counter reads an SFTP stream and counts the names that arrive, for the library
// keeps all of a listing in memory. One goroutine reads.
type counter struct {
	r     io.Reader
	names atomic.Int64 // since the listing began
	bytes atomic.Int64 // of packets with names
	all   atomic.Int64 // bytes that have come, ever

	head [13]byte // of a packet: length, type, id, number of names
	have int      // how many bytes of head are there
	skip int64    // how many bytes of the packet follow
}

const packetOfNames = 104 // SSH_FXP_NAME

// Read reads, and fails when there are too many names.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.all.Add(int64(n))
	c.see(p[:n])
	if c.names.Load() > mostListed || c.bytes.Load() > mostListedBytes {
		return 0, errEndless
	}
	return n, err
}

// see follows the packets.
func (c *counter) see(p []byte) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, int64(len(p)))
			c.skip -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have < 4 {
			continue
		}
		length := int64(binary.BigEndian.Uint32(c.head[:4]))
		if whole := int64(c.have - 4); whole >= length {
			// A packet without room for names; the next one has begun.
			rest := c.head[4+length : c.have]
			c.have = 0
			c.see(append([]byte(nil), rest...))
			continue
		}
		if c.have < len(c.head) {
			continue
		}
		if c.head[4] == packetOfNames {
			c.names.Add(int64(binary.BigEndian.Uint32(c.head[9:13])))
			c.bytes.Add(length)
		}
		c.skip, c.have = length-int64(len(c.head)-4), 0
	}
}

// errEndless ends a connection.
var errEndless = errors.New("the listing does not end")

// listings are the directories that are being listed. What arrives is counted for
// all of them together, from when there was none.
type listings struct {
	mu sync.Mutex // guards n
	n  int
}

func (s *session) beginListing() {
	s.listings.mu.Lock()
	defer s.listings.mu.Unlock()
	if s.listings.n == 0 {
		s.arrived.names.Store(0)
		s.arrived.bytes.Store(0)
	}
	s.listings.n++
}

func (s *session) endListing() {
	s.listings.mu.Lock()
	defer s.listings.mu.Unlock()
	s.listings.n--
}

// list lists a directory.
func (s *session) list(ctx context.Context, dir string) ([]fs.FileInfo, error) {
	s.beginListing()
	defer s.endListing()
	infos, err := s.client.ReadDirContext(ctx, dir)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) && !isLost(err) {
		return nil, fmt.Errorf("%w: a listing that is none", errLiar)
	}
	return infos, err
}
