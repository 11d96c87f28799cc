package multicall

import (
	"fmt"
	"net/url"
	"path/filepath"
)

// What serves a mount must not use it: it would wait for itself. And what it wrote there
// before it was mounted would keep it from being mounted again.

// ownPlace refuses a cache or a log at or below the mount point.
func ownPlace(what, path, point, way string) error {
	err := outside(what, path, point)
	if err != nil {
		return hint(err, "name another place: %s", way)
	}
	return nil
}

// ownArchives refuses to mount an archive upon itself.
func ownArchives(urls []*url.URL, point string) error {
	for _, u := range urls {
		if u.Scheme != "file" {
			continue
		}
		if err := outside("the archive", u.Path, point); err != nil {
			return hint(err, "what is mounted there would be asked for its own files: mount on a directory outside the archive")
		}
	}
	return nil
}

// outside refuses a path at or below the mount point, as it is written or as links
// lead to it.
func outside(what, path, point string) error {
	full, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	inside := below(full, point)
	if !inside { // else a dead or hanging mount may be there, and is not asked
		real, err := asked(mountAnswer, func() (string, error) { return withoutLinks(full), nil })
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		inside = below(real, point)
	}
	if !inside {
		return nil
	}
	return usagef("%s %s lies in the mount point %s", what, path, point)
}

// withoutLinks follows the symbolic links in what there is of a path.
func withoutLinks(path string) string {
	rest := ""
	for dir := path; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == "/" {
			return path
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}
