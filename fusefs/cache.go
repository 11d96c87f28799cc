package fusefs

import (
	"container/list"
	"crypto/sha256"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"pitr/archive/wal"
)

// cache keeps verified raw files in a directory, at
//
//	KEY/NAME.SHA256.STAMP
//
// KEY is the archive's id, NAME is PostgreSQL's, SHA256 that of the content, STAMP
// says which stored file it was made of. Nothing is synced: what an earlier mount left
// may be torn after a crash, and counts only once it was held against its name; so
// does what was changed since. Files in use stay open, so everything here may be
// deleted at any time.
type cache struct {
	root  string
	dir   string // root/KEY
	limit int64

	holding sync.Mutex // guards lock
	lock    *os.File   // root, locked

	mu     sync.Mutex // guards the rest, and the entries; given back by unlock
	bytes  int64      // of everything here and everything being fetched
	kept   map[wal.Name]*entry
	order  *list.List // of *entry: those with a path, the one used last in front
	temps  int        // temporary names given out
	debris debris
}

// debris is what is closed and deleted without the lock: a disk that hangs must not
// hold up who wants to know what is here.
type debris struct {
	files []*os.File
	paths []string
}

// entry is one file of the cache.
type entry struct {
	name   wal.Name // the zero Name for one of another archive
	path   string   // empty when it is deleted or was never to be found again
	sum    [sha256.Size]byte
	size   int64
	time   time.Time // when the archive stored it; the file's own time says so too
	stamps []stamp   // of stored files that were seen to hold this, the last one first
	stale  bool      // what the archives have is another one by now
	place  *list.Element

	file   *os.File // open while it is used
	users  int
	proven bool
	as     fileState // when it was proven
	// provisional is what was verified as far as could be: it serves those who wait
	// for it, and is verified anew for all others.
	provisional bool
}

// mostStamps is how many stored files are remembered to hold the same: one for each of
// a few archives.
const mostStamps = 8

// cost is what a file takes on disk, about.
func (e *entry) cost() int64 { return costOf(e.size) }

func costOf(size int64) int64 {
	const block = 4096
	return (size + block - 1) / block * block
}

// unlock gives mu back, and does what was left for after that.
func (c *cache) unlock() {
	left := c.debris
	c.debris = debris{}
	c.mu.Unlock()
	for _, f := range left.files {
		_ = f.Close() // nothing is lost with it
	}
	for _, path := range left.paths {
		_ = os.Remove(path) // it may be gone; if it stays, the next mount counts it
	}
}

// take returns the file of a name, open, for use by the caller until release; nil
// if there is none. It is good only if serves says so.
func (c *cache) take(name wal.Name) *entry {
	c.mu.Lock()
	e := c.kept[name]
	if e == nil {
		c.unlock()
		return nil
	}
	e.users++
	c.order.MoveToFront(e.place)
	open, path := e.file != nil, e.path
	c.unlock()
	if !open && !c.open(e, path) {
		return nil
	}
	return e
}

// open opens the file of an entry for somebody who uses it. One that somebody deleted
// is forgotten, and one that somebody changed is to be proven again.
func (c *cache) open(e *entry, path string) bool {
	f, as, err := openOurs(path, e.size)
	c.mu.Lock()
	defer c.unlock()
	switch {
	case err == nil && e.file == nil:
		e.file = f
		e.proven = e.proven && e.as == as
	case err == nil: // somebody else was faster
		c.debris.files = append(c.debris.files, f)
	case e.file == nil:
		c.forget(e)
		c.leave(e)
		return false
	}
	return true
}

// serves tells whether an entry is proven, and is what a stored file holds.
func (c *cache) serves(e *entry, s stamp) bool {
	c.mu.Lock()
	defer c.unlock()
	return e.proven && slices.Contains(e.stamps, s)
}

// isOf tells whether an entry is what a stored file holds, if it is proven.
func (c *cache) isOf(e *entry, s stamp) bool {
	c.mu.Lock()
	defer c.unlock()
	return slices.Contains(e.stamps, s)
}

// share makes the caller one more user.
func (c *cache) share(e *entry) {
	c.mu.Lock()
	defer c.unlock()
	e.users++
}

// release ends a use.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	defer c.unlock()
	c.leave(e)
	c.shrink(c.limit)
}

// leave is release. mu is held, as for what follows.
func (c *cache) leave(e *entry) {
	if e.users--; e.users > 0 {
		return
	}
	if e.file != nil {
		c.debris.files = append(c.debris.files, e.file)
		e.file = nil
	}
	if e.path == "" {
		c.bytes -= e.cost()
	}
}

// forget deletes a file. Whoever uses it goes on.
func (c *cache) forget(e *entry) {
	if e.path == "" {
		return
	}
	c.debris.paths = append(c.debris.paths, e.path)
	c.unlist(e)
}

// unlist is forget for one whose file is gone, or another one's by now.
func (c *cache) unlist(e *entry) {
	c.order.Remove(e.place)
	if c.kept[e.name] == e {
		delete(c.kept, e.name)
	}
	e.path = ""
	if e.users == 0 {
		c.bytes -= e.cost()
	}
}

// shrink deletes files that nobody uses until there are at most so many bytes.
func (c *cache) shrink(to int64) {
	for at := c.order.Back(); at != nil && c.bytes > to; {
		e := at.Value.(*entry)
		at = at.Prev()
		if e.users == 0 {
			c.forget(e)
		}
	}
}

func (c *cache) add(e *entry) {
	e.place = c.order.PushFront(e)
	if e.name != (wal.Name{}) {
		c.kept[e.name] = e
	}
}

// prove holds a file that somebody uses against its name. One that is not what its
// name says is forgotten.
func (c *cache) prove(e *entry) bool {
	as, err := stateOf(e.file)
	sum, sumErr := sumOf(e.file)
	c.mu.Lock()
	defer c.unlock()
	if err != nil || sumErr != nil || sum != e.sum {
		c.forget(e)
		return false
	}
	e.proven, e.as = true, as
	return true
}

func sumOf(f *os.File) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err = io.CopyBuffer(h, io.NewSectionReader(f, 0, 1<<62), make([]byte, 256<<10)); err == nil {
		h.Sum(sum[:0])
	}
	return sum, err
}

// clear deletes all that nobody uses: the disk is full.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.unlock()
	c.shrink(0)
}

// held is how many bytes there are.
func (c *cache) held() int64 {
	c.mu.Lock()
	defer c.unlock()
	return c.bytes
}

// has tells whether there is a file of a name that may be what the archives have.
func (c *cache) has(name wal.Name) bool {
	c.mu.Lock()
	defer c.unlock()
	e := c.kept[name]
	return e != nil && !e.stale
}

// told notes which stored file the archives have under a name now.
func (c *cache) told(name wal.Name, s stamp) {
	c.mu.Lock()
	defer c.unlock()
	if e := c.kept[name]; e != nil {
		e.stale = !slices.Contains(e.stamps, s)
	}
}

// drop deletes the file of a name: the archives have none.
func (c *cache) drop(name wal.Name) {
	c.mu.Lock()
	defer c.unlock()
	if e := c.kept[name]; e != nil {
		c.forget(e)
	}
}

// remembers tells what the archives had under a name when they were asked last, of a
// file that is here and good.
func (c *cache) remembers(name wal.Name) (sight, bool) {
	if !c.has(name) {
		return sight{}, false
	}
	e := c.take(name)
	if e == nil {
		return sight{}, false
	}
	defer c.release(e)
	c.mu.Lock()
	seen, proven := sight{e.size, e.time.UnixNano(), e.stamps[0]}, e.proven
	c.unlock()
	return seen, proven || c.prove(e)
}
