package fusefs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// draft is a file being fetched.
type draft struct {
	*os.File
	cache *cache
	path  string
	size  int64
	sum   [sha256.Size]byte
	known bool // sum is
	// provisional: what is written is good for now only.
	provisional bool
}

// Digested tells what is being written: see archive.Digested.
func (d *draft) Digested(sum [sha256.Size]byte) { d.sum, d.known = sum, true }

// Provisional tells not to keep it: see archive.Provisional.
func (d *draft) Provisional(string) { d.provisional = true }

var (
	_ archive.Digested    = (*draft)(nil)
	_ archive.Provisional = (*draft)(nil)
)

// create makes room for a file of size bytes, and a place for it.
func (c *cache) create(size int64) (*draft, error) {
	c.mu.Lock()
	c.shrink(c.limit - costOf(size))
	c.temps++
	c.bytes += costOf(size)
	d := &draft{cache: c, path: filepath.Join(c.dir, fmt.Sprintf("%s%d", tempPrefix, c.temps)), size: size}
	c.unlock()
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := os.OpenFile(d.path, flags, 0o400)
	if errors.Is(err, fs.ErrNotExist) {
		if err = c.makeAgain(); err == nil {
			f, err = os.OpenFile(d.path, flags, 0o400)
		}
	}
	if err != nil {
		d.giveBack()
		return nil, fmt.Errorf("cache: %w", err)
	}
	d.File = f
	return d, nil
}

// giveBack gives the room back.
func (d *draft) giveBack() {
	d.cache.mu.Lock()
	defer d.cache.unlock()
	d.cache.bytes -= costOf(d.size)
}

// discard gives a draft up.
func (d *draft) discard() {
	_ = d.Close() // it is thrown away
	_ = os.Remove(d.path)
	d.giveBack()
}

// keep makes a draft the file of a name, with the caller as its user. If the
// directory was deleted meanwhile it serves all the same, and is gone after that. So
// does one that is provisional.
func (d *draft) keep(name wal.Name, seen sight) (*entry, error) {
	sum, err := d.sum, error(nil)
	if !d.known {
		sum, err = sumOf(d.File)
	}
	info, statErr := d.Stat()
	if err := errors.Join(err, statErr); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	e := &entry{
		name: name, sum: sum, size: info.Size(), time: time.Unix(0, seen.mtime), stamps: []stamp{seen.stamp},
		file: d.File, users: 1, proven: true, provisional: d.provisional,
	}
	d.cache.replace(e, d)
	path := filepath.Join(d.cache.dir, fileName(name, sum, seen.stamp))
	if d.provisional || os.Chtimes(d.path, time.Time{}, e.time) != nil || os.Rename(d.path, path) != nil {
		_ = os.Remove(d.path)
		return e, nil
	}
	as, err := stateOf(d.File)
	if err != nil {
		as = fileState{} // to be proven when it is opened again
	}
	d.cache.settle(e, path, as)
	return e, nil
}

// replace counts a new file in place of its draft, and forgets the one before. If
// that held the same, the stored files that it was known of have not become others.
func (c *cache) replace(e *entry, d *draft) {
	c.mu.Lock()
	defer c.unlock()
	c.bytes += e.cost() - costOf(d.size)
	old := c.kept[e.name]
	if old == nil || e.provisional && old.sum == e.sum {
		return
	}
	if old.sum == e.sum {
		e.stamps = append(e.stamps, old.stamps...)
		e.stamps = e.stamps[:min(len(e.stamps), mostStamps)]
	}
	c.forget(old)
}

// settle lets a new file be found.
func (c *cache) settle(e *entry, path string, as fileState) {
	c.mu.Lock()
	defer c.unlock()
	switch old := c.kept[e.name]; { // one is fetched at the same time
	case old == nil:
	case old.path == path: // which is the new file by now
		c.unlist(old)
	default:
		c.forget(old)
	}
	e.path, e.as = path, as
	c.add(e)
}
