package multicall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// isDataDirectory tells whether a directory is one of PostgreSQL's. In doubt it
// is: what cannot be looked at must not pass for a place where no cluster is
// known and everything fits.
func isDataDirectory(dir string) bool {
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR)
	}
	return there(filepath.Join("global", "pg_control")) || there("PG_VERSION") && there("pg_wal")
}

// workingDirectory is where the call was started: PGDATA, if PostgreSQL did it.
func workingDirectory() string {
	here, err := os.Getwd()
	if err != nil {
		return "."
	}
	return here
}

// dataDirectory finds the data directory that a call of archive_command serves:
// the one it was started in, as PostgreSQL does, else the configured one. Empty
// if there is none.
func dataDirectory(configured string) string {
	for _, dir := range []string{workingDirectory(), configured} {
		if dir != "" && isDataDirectory(dir) {
			return dir
		}
	}
	return ""
}

// receivingDirectory finds the data directory that a file is restored into: the
// one that PostgreSQL runs in, else the one that the file's place belongs to, as
// under pg_rewind. Empty if there is none; the configured one may be another
// server's.
func receivingDirectory(dest string) string {
	for _, dir := range []string{workingDirectory(), filepath.Join(filepath.Dir(dest), "..")} {
		if isDataDirectory(dir) {
			return dir
		}
	}
	return ""
}

// mustBeConfigured refuses to archive from another data directory than the one
// that the configuration is for: a restored copy that runs with production's
// configuration must not write into production's archive.
func mustBeConfigured(pgdata, configured string) error {
	if pgdata == "" || configured == "" {
		return nil
	}
	a, err := os.Stat(pgdata)
	if err != nil {
		return err
	}
	b, err := os.Stat(configured)
	if err == nil && os.SameFile(a, b) {
		return nil
	}
	return hint(
		fmt.Errorf("%w: this server runs in %s, the configuration is for pgdata %s", ErrConfig, pgdata, configured),
		"a restored copy needs an archive of its own (pitr init) or archive_mode = off; if the data directory was moved, change pgdata")
}

// clusterOf reads the identity of the cluster in a data directory. Without one
// nothing is known, which fits every archive.
func clusterOf(pgdata string) (archive.Cluster, error) {
	if pgdata == "" {
		return archive.Cluster{}, nil
	}
	c, err := wal.ReadControl(pgdata)
	if err != nil {
		return archive.Cluster{}, err
	}
	return archive.Cluster{SystemID: c.SystemID, Major: c.Major, SegmentSize: c.SegmentSize}, nil
}

// archives are the archives that a configuration names, for a cluster.
func (c Config) archives(urls []*url.URL, cluster archive.Cluster, log *slog.Logger) archive.Set {
	var set archive.Set
	for _, u := range urls {
		set = append(set, c.archiveIn(c.filesAt(u, log), u, cluster, log))
	}
	return set
}

// archiveIn is the archive in a directory that is open already.
func (c Config) archiveIn(dir files.FS, u *url.URL, cluster archive.Cluster, log *slog.Logger) *archive.Archive {
	return c.archiveOf(files.NewStore(dir, local.Writer()), u, cluster, log)
}

// archiveOf is the archive in a store.
func (c Config) archiveOf(store archive.Store, u *url.URL, cluster archive.Cluster, log *slog.Logger) *archive.Archive {
	var readOnly error
	m, mounted := throughMount(u)
	if mounted {
		readOnly = m.refusesPushes(u)
	}
	return archive.New(u.String(), store, archive.Options{
		ReadOnly:      readOnly,
		Verified:      mounted && m.trusted(),
		Cluster:       cluster,
		Layout:        archive.Layout(c.Layout),
		GapIsEnd:      c.RestoreGap == "end",
		CompressLevel: c.CompressLevel,
		VerifyPuts:    c.VerifyAfterPut,
		Log:           log,
		Now:           time.Now,
	})
}

// readFrom is where files are fetched from.
func (c Config) readFrom() []*url.URL {
	if len(c.RestoreFrom) > 0 {
		return c.RestoreFrom
	}
	return c.Archive
}

// theArchive picks the one archive that an admin command works on.
func (c Config) theArchive(chosen string) (*url.URL, error) {
	var all []string
	for _, u := range c.Archive {
		all = append(all, u.String())
	}
	u, err := parseArchive(chosen)
	if err != nil {
		return nil, fmt.Errorf("%w: --only: %w", ErrUsage, err)
	}
	if !names(c.Archive, u) {
		return nil, hint(fmt.Errorf("%w: --only: %s is not one of the configured archives", ErrUsage, u), "they are: %s", strings.Join(all, ", "))
	}
	return u, nil
}

// walFile is a file of pg_wal, open to be pushed.
type walFile struct {
	*os.File
	name wal.Name
	size int64
}

func (f walFile) Size() int64 { return f.size }

// openWAL opens a file of pg_wal by its path.
func openWAL(path string) (walFile, error) {
	name, err := wal.ParseName(filepath.Base(path))
	if err != nil {
		return walFile{}, fmt.Errorf("%w: %s: %w", archive.ErrForeign, path, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return walFile{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return walFile{}, errors.Join(err, f.Close())
	}
	return walFile{f, name, info.Size()}, nil
}

// makeRoot makes the directory that an archive is to begin in, but none above
// it: a missing one there may be a file system that is not mounted. One that is
// there is fine.
func makeRoot(ctx context.Context, root files.FS, u *url.URL) error {
	err := root.Mkdir(ctx, ".")
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return hint(err, "%s must exist: is its file system mounted?", filepath.Dir(u.Path))
	}
	return err
}
