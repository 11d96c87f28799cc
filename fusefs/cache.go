package fusefs

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/wal"
)

// cache keeps verified raw files in a directory, at
//
//	KEY/NAME.SHA256
//
// KEY is the archive's id, NAME is PostgreSQL's, SHA256 that of the content. Nothing
// is synced: what an earlier mount left may be torn after a crash, and counts only
// once it was held against its name. Files in use stay open, so everything here may
// be deleted at any time.
type cache struct {
	root  string
	dir   string // root/KEY
	limit int64

	mu    sync.Mutex // guards the rest, and the entries
	lock  *os.File   // root, locked
	bytes int64      // of everything here and everything being fetched
	kept  map[wal.Name]*entry
	order *list.List // of *entry: those with a path, the one used last in front
	temps int        // temporary names given out
}

// entry is one file of the cache.
type entry struct {
	name  wal.Name // the zero Name for one of another archive
	path  string   // empty when it is deleted or was never to be found again
	sum   [sha256.Size]byte
	size  int64
	time  time.Time // when the archive stored it; the file's own time says so too
	place *list.Element

	file   *os.File // open while it is used
	users  int
	proven bool
}

// cost is what a file takes on disk, about.
func (e *entry) cost() int64 { return costOf(e.size) }

func costOf(size int64) int64 {
	const block = 4096
	return (size + block - 1) / block * block
}

// take returns the file of a name, open, for use by the caller until release; nil
// if there is none. One that is not proven may be torn.
func (c *cache) take(name wal.Name) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.kept[name]
	if e == nil || !c.open(e) {
		return nil
	}
	e.users++
	c.order.MoveToFront(e.place)
	return e
}

// open opens the file of an entry. One that somebody deleted is forgotten.
func (c *cache) open(e *entry) bool {
	if e.file != nil {
		return true
	}
	f, err := os.Open(e.path)
	if err == nil {
		info, statErr := f.Stat()
		if statErr == nil && info.Size() == e.size && info.Mode().IsRegular() {
			e.file = f
			return true
		}
		_ = f.Close() // opened for reading
	}
	c.forget(e)
	return false
}

// share makes the caller one more user.
func (c *cache) share(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users++
}

// release ends a use.
func (c *cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	_ = e.file.Close() // nothing is lost with it
	e.file = nil
	if e.path == "" {
		c.bytes -= e.cost()
	}
	c.shrink(c.limit)
}

// prove holds a file of an earlier mount against its name.
func (c *cache) prove(e *entry) bool {
	sum, err := sumOf(e.file)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || sum != e.sum {
		c.forget(e)
		return false
	}
	e.proven = true
	return true
}

func sumOf(f *os.File) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err = io.CopyBuffer(h, io.NewSectionReader(f, 0, 1<<62), make([]byte, 256<<10)); err == nil {
		h.Sum(sum[:0])
	}
	return sum, err
}

// forget deletes a file. Whoever uses it goes on.
func (c *cache) forget(e *entry) {
	if e.path == "" {
		return
	}
	_ = os.Remove(e.path) // it may be gone; if it stays, the next mount counts it
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

// clear deletes all that nobody uses: the disk is full.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shrink(0)
}

// held is how many bytes there are.
func (c *cache) held() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// draft is a file being fetched.
type draft struct {
	*os.File
	cache *cache
	path  string
	size  int64
	sum   [sha256.Size]byte
	known bool // sum is
}

// Digested tells what is being written: see archive.Digested.
func (d *draft) Digested(sum [sha256.Size]byte) { d.sum, d.known = sum, true }

var _ archive.Digested = (*draft)(nil)

// create makes room for a file of size bytes, and a place for it.
func (c *cache) create(size int64) (*draft, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shrink(c.limit - costOf(size))
	c.temps++
	path := filepath.Join(c.dir, fmt.Sprintf("%s%d", tempPrefix, c.temps))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.makeAgain(); err == nil {
			f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c.bytes += costOf(size)
	return &draft{File: f, cache: c, path: path, size: size}, nil
}

// discard gives a draft up.
func (d *draft) discard() {
	_ = d.Close() // it is thrown away
	_ = os.Remove(d.path)
	d.cache.mu.Lock()
	defer d.cache.mu.Unlock()
	d.cache.bytes -= costOf(d.size)
}

// keep makes a draft the file of a name, with the caller as its user. If the
// directory was deleted meanwhile it serves all the same, and is gone after that.
func (d *draft) keep(name wal.Name, stored time.Time) (*entry, error) {
	sum, err := d.sum, error(nil)
	if !d.known {
		sum, err = sumOf(d.File)
	}
	info, statErr := d.Stat()
	if err := errors.Join(err, statErr); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	c := d.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &entry{name: name, sum: sum, size: info.Size(), time: stored, file: d.File, users: 1, proven: true}
	c.bytes += e.cost() - costOf(d.size)
	path := filepath.Join(c.dir, fileName(name, sum))
	if old := c.kept[name]; old != nil {
		c.forget(old)
	}
	if os.Chtimes(d.path, time.Time{}, stored) != nil || os.Rename(d.path, path) != nil {
		_ = os.Remove(d.path)
		return e, nil
	}
	e.path = path
	c.add(e)
	return e, nil
}

func (c *cache) add(e *entry) {
	e.place = c.order.PushFront(e)
	if e.name != (wal.Name{}) {
		c.kept[e.name] = e
	}
}

// close gives the directory up. Files that are open are those of who uses them.
func (c *cache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return nil
	}
	err := c.lock.Close()
	c.lock = nil
	return err
}

// hold makes the directory, and locks it.
func (c *cache) hold() error {
	if err := os.MkdirAll(c.root, 0o700); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	lock, err := os.Open(c.root)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrCacheInUse
	}
	if err == nil {
		err = os.MkdirAll(c.dir, 0o700)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cache %s: %w", c.root, err), lock.Close())
	}
	c.lock = lock
	return nil
}

// makeAgain makes what somebody deleted. If the directory itself was, another
// mount may have it by now.
func (c *cache) makeAgain() error {
	was, err := c.lock.Stat()
	if err != nil {
		return err
	}
	is, err := os.Stat(c.root)
	if err == nil && os.SameFile(was, is) {
		return os.MkdirAll(c.dir, 0o700)
	}
	old := c.lock
	if err := c.hold(); err != nil {
		return err
	}
	return old.Close()
}

// knows tells what is known of a file that is here: it was in the archive, and what
// is there does not change.
func (c *cache) knows(name wal.Name) (archive.Found, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.kept[name]
	if e == nil {
		return archive.Found{}, false
	}
	return archive.Found{Size: e.size, ModTime: e.time}, true
}
