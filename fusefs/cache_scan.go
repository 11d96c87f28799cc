package fusefs

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pitr/archive/wal"
)

// tempPrefix begins the names of files being fetched.
const tempPrefix = ".tmp-"

// fileName is what a file is called in the cache.
func fileName(name wal.Name, sum [sha256.Size]byte, s stamp) string {
	return fmt.Sprintf("%s.%x.%016x", name, sum, uint64(s))
}

// parseFileName is its reverse: an entry without all that a file's name does not tell.
func parseFileName(base string) (*entry, bool) {
	parts := strings.Split(base, ".")
	if len(parts) < 3 {
		return nil, false
	}
	last := len(parts) - 2
	name, err := wal.ParseName(strings.Join(parts[:last], "."))
	if err != nil {
		return nil, false
	}
	sum, err := hex.DecodeString(parts[last])
	if err != nil || len(sum) != sha256.Size {
		return nil, false
	}
	s, err := strconv.ParseUint(parts[last+1], 16, 64)
	e := &entry{name: name, sum: [sha256.Size]byte(sum), stamps: []stamp{stamp(s)}}
	return e, err == nil && base == fileName(name, e.sum, stamp(s))
}

// openCache takes possession of a cache directory. What is there counts for the
// bound, of this archive and of others; what an earlier mount did not finish is
// removed, and what has any other name is left alone.
func openCache(o CacheOptions, key string) (*cache, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("cache: %q is not an absolute path", o.Dir)
	}
	c := &cache{root: o.Dir, dir: filepath.Join(o.Dir, key), limit: o.Bytes, kept: map[wal.Name]*entry{}, order: list.New()}
	if err := c.hold(); err != nil {
		return nil, err
	}
	if err := c.scan(); err != nil {
		return nil, errors.Join(fmt.Errorf("cache %s: %w", c.root, err), c.close())
	}
	c.mu.Lock()
	c.shrink(c.limit)
	c.unlock()
	return c, nil
}

// keyLength is how many hexadecimal digits the name of a directory has: an archive's
// id, or what stands for it.
const keyLength = 32

// isKey tells whether a directory may be one of a cache. Somebody may have named a
// directory that holds other things.
func isKey(name string) bool {
	return len(name) == keyLength && strings.Trim(name, "0123456789abcdef") == ""
}

func (c *cache) scan() error {
	dirs, err := os.ReadDir(c.root)
	if err != nil {
		return err
	}
	var all []*entry
	for _, d := range dirs {
		if !d.IsDir() || !isKey(d.Name()) {
			continue
		}
		found, err := c.scanDirectory(filepath.Join(c.root, d.Name()))
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	c.mu.Lock()
	defer c.unlock()
	slices.SortFunc(all, func(a, b *entry) int { return a.time.Compare(b.time) })
	for _, s := range all {
		if old := c.kept[s.name]; old != nil && s.name != (wal.Name{}) {
			c.forget(old)
		}
		c.bytes += s.cost()
		c.add(s)
	}
	return nil
}

func (c *cache) scanDirectory(dir string) (found []*entry, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if strings.HasPrefix(f.Name(), tempPrefix) {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		e, ok := parseFileName(f.Name())
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) || !ok {
			continue
		}
		if err != nil {
			return nil, err
		}
		if dir != c.dir {
			e.name = wal.Name{}
		}
		e.path, e.size, e.time = path, info.Size(), info.ModTime()
		found = append(found, e)
	}
	return found, nil
}
