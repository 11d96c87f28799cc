package archive

import (
	"crypto/sha256"
	"fmt"
	"path"
	"strings"
	"time"

	"pitr/archive/wal"
)

// walDirectory is where a tree has everything of PostgreSQL.
const walDirectory = "wal"

// pendingDirectory is where the store has the temporary files of a flat archive.
const pendingDirectory = ".tmp-pending"

// pending is the directory that holds the temporary files of an archive.
func (id Identity) pending() string {
	if id.Layout == Flat {
		return pendingDirectory
	}
	return walDirectory
}

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
	plain := path.Join(dir, base)
	if of, beside := cutBeside(raw); beside {
		raw, plain = of, path.Join(dir, of+id.Codec.suffix())
	}
	n, err := wal.ParseName(raw)
	if err != nil || id.path(n) != plain {
		return wal.Name{}, false
	}
	return n, true
}

// digestDigits is how many hexadecimal digits of its SHA-256 a .partial has in
// its name that is stored beside another one.
const digestDigits = 16

// beside returns where a .partial lies that differs from the one of this name.
func (id Identity) beside(n wal.Name, sum [sha256.Size]byte) string {
	return fmt.Sprintf("%s.%x%s", path.Join(path.Dir(id.path(n)), n.String()), sum[:digestDigits/2], id.Codec.suffix())
}

// cutBeside tells whether a name without its suffix is that of a .partial
// stored beside another one, and which name it has in PostgreSQL.
func cutBeside(raw string) (of string, ok bool) {
	at := len(raw) - digestDigits - 1
	if at < 0 || raw[at] != '.' || strings.Trim(raw[at+1:], "0123456789abcdef") != "" || !strings.HasSuffix(raw[:at], ".partial") {
		return "", false
	}
	return raw[:at], true
}

// aside returns the place in quarantine of a stored file.
func (id Identity) aside(stored string, now time.Time) string {
	return path.Join(id.top(), quarantineDirectory, fmt.Sprintf("%s.%s-%s", path.Base(stored), now.UTC().Format(asideTime), newID()[:16]))
}

// asideTime is how the time stands in a name in quarantine.
const asideTime = "20060102T150405Z"

// cutAside returns the stored name of a file from its name in quarantine.
func cutAside(base string) (stored string, ok bool) {
	at := len(base) - len(".-") - len(asideTime) - 16
	if at < 0 || base[at] != '.' {
		return "", false
	}
	when, random, _ := strings.Cut(base[at+1:], "-")
	if _, err := time.Parse(asideTime, when); err != nil || len(random) != 16 {
		return "", false
	}
	return base[:at], true
}
