package multicall

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
)

// mounted is an archive that is reached through a mount of pitr's.
type mounted struct {
	dir    string // the flat archive that the mount shows
	source string // what is mounted there
	owner  int    // who has mounted it
}

// trusted tells whether the mount's word is taken for what its files are. Any user
// may mount a file system that calls itself pitr's and shows what it likes: that of
// another one than root and us is a directory of files.
func (m mounted) trusted() bool { return m.owner == 0 || m.owner == os.Geteuid() }

// throughMount tells whether a file:// archive is a mount of pitr's: its root,
// or wal/ in it. The list of mounts says so, which no hanging daemon holds up. Where nothing is
// mounted the directory is what it is, and an empty one proves nothing.
func throughMount(u *url.URL) (mounted, bool) {
	if u.Scheme != "file" {
		return mounted{}, false
	}
	all, err := readMounts()
	if err != nil || !slices.ContainsFunc(all, mountEntry.isPitr) {
		return mounted{}, false
	}
	return seenThrough(all, u.Path)
}

func seenThrough(all []mountEntry, path string) (mounted, bool) {
	// Only now: most hosts have no such mount, and links need not be followed.
	real, err := realDirectory(path)
	if err != nil {
		real = path
	}
	m, inside, found := mountOf(all, real)
	if !found || !m.isPitr() {
		return mounted{}, false
	}
	switch inside {
	case "/":
		return mounted{filepath.Join(real, "wal"), m.source, m.owner}, true
	case "/wal":
		return mounted{real, m.source, m.owner}, true
	}
	return mounted{}, false
}

// refusesPushes is why nothing can be stored through a mount.
func (m mounted) refusesPushes(u *url.URL) error {
	return hint(fmt.Errorf("%w: %s is a mount of %s, and is only read", ErrConfig, u, m.source),
		"archive into the archive itself, and use the mount to restore from")
}
