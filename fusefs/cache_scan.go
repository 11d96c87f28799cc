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
	"strings"

	"pitr/archive/wal"
)

// tempPrefix begins the names of files being fetched.
const tempPrefix = ".tmp-"

// fileName is what a file is called in the cache.
func fileName(name wal.Name, sum [sha256.Size]byte) string { return fmt.Sprintf("%s.%x", name, sum) }

// parseFileName is its reverse.
func parseFileName(base string) (name wal.Name, sum [sha256.Size]byte, ok bool) {
	at := len(base) - 2*sha256.Size - 1
	if at < 0 || base[at] != '.' || strings.ToLower(base[at:]) != base[at:] {
		return name, sum, false
	}
	name, err := wal.ParseName(base[:at])
	if err != nil {
		return name, sum, false
	}
	_, err = hex.Decode(sum[:], []byte(base[at+1:]))
	return name, sum, err == nil
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
	c.shrink(c.limit)
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
		name, sum, ok := parseFileName(f.Name())
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) || !ok {
			continue
		}
		if err != nil {
			return nil, err
		}
		if dir != c.dir {
			name = wal.Name{}
		}
		found = append(found, &entry{name: name, path: path, sum: sum, size: info.Size(), time: info.ModTime()})
	}
	return found, nil
}
