package archive

import (
	"path"
	"strings"

	"pitr/archive/wal"
)

// walDirectory is where a tree has everything of PostgreSQL.
const walDirectory = "wal"

// suffix is what the stored form adds to a name.
func (c Codec) suffix() string {
	if c == Zstd {
		return ".zst"
	}
	return ""
}

// path returns the one place that a file has in this archive.
func (id Identity) path(n wal.Name) string {
	if id.Layout == Flat {
		return n.String()
	}
	return path.Join(walDirectory, n.Directory(), n.String()+id.Codec.suffix())
}

// top is the directory that holds everything of PostgreSQL.
func (id Identity) top() string {
	if id.Layout == Flat {
		return "."
	}
	return walDirectory
}

// parse returns the file of PostgreSQL that a stored name stands for. dir is
// the name of the directory it was found in: a file in the wrong place is not
// part of the archive.
func (id Identity) parse(dir, base string) (wal.Name, bool) {
	raw, found := strings.CutSuffix(base, id.Codec.suffix())
	if !found {
		return wal.Name{}, false
	}
	n, err := wal.ParseName(raw)
	if err != nil || id.path(n) != path.Join(dir, base) {
		return wal.Name{}, false
	}
	return n, true
}
