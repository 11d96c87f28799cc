package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
)

// largestListing is how many bytes a listing may have: about half a million
// files, twenty times what fits into a directory of a tree.
const largestListing = 64 << 20

// counter counts the bytes that arrive, and cuts off what is too much.
type counter struct {
	r     io.Reader
	limit atomic.Int64 // how many more may come; 0 is any number
}

// Read reads, and fails when the limit is passed.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.limit.Load() > 0 && c.limit.Add(-int64(n)) <= 0 {
		c.limit.Store(1)
		return 0, errEndless
	}
	return n, err
}

// errEndless ends a connection.
var errEndless = errors.New("the listing does not end")

// list lists a directory. One at a time, so that the bytes can be counted; other
// operations may run beside it and count as well.
func (s *session) list(ctx context.Context, dir string) ([]fs.FileInfo, error) {
	s.listing.Lock()
	defer s.listing.Unlock()
	s.arrived.limit.Store(largestListing)
	defer s.arrived.limit.Store(0)
	infos, err := s.client.ReadDirContext(ctx, dir)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: a listing that is none", errLiar)
	}
	return infos, err
}
