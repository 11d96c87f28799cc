package multicall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// initCmd is `pitr init`. The layout is the setting's: tree unless it says flat.
type initCmd struct {
	Compress    string `help:"Stored form: zstd or none. Default: zstd for a tree; a flat archive is always raw." enum:"zstd,none,default" default:"default"`
	SystemID    uint64 `name:"system-identifier" help:"System identifier of the cluster. Default: from pg_control in pgdata."`
	Major       int    `name:"postgres-major" help:"Major version of the cluster, 13 to 18. Default: from pgdata."`
	SegmentSize string `name:"segment-size" help:"Segment size, such as 16MB. Default: from pg_control in pgdata."`
	Only        string `help:"Make only this one of the configured archives." placeholder:"URL"`
	Force       bool   `help:"Also for a cluster that has archived before, into something else."`
}

// Run makes every configured archive that is not one yet.
func (c *initCmd) Run(s *session) error {
	if err := s.cfg.NeedArchive(); err != nil {
		return err
	}
	id, err := c.identity(s)
	if err != nil {
		return err
	}
	urls := s.cfg.Archive
	if c.Only != "" {
		u, err := s.cfg.theArchive(c.Only)
		if err != nil {
			return err
		}
		urls = []*url.URL{u}
	}
	if err := c.mustBeFirst(s); err != nil {
		return err
	}
	if len(s.cfg.Queued) > 0 {
		if err := makeQueues(s.ctx, s.cfg); err != nil {
			return err
		}
	}
	for _, u := range urls {
		err := s.cfg.initAt(s.ctx, u, c.pgdata(s), id, s.log)
		switch {
		case errors.Is(err, archive.ErrExists):
			err = c.joins(s, u, id)
		case err == nil:
			fmt.Fprintf(s.stdout, "%s is now the archive of system identifier %d (PostgreSQL %d, %s segments, layout %s, codec %s)\n",
				u, id.SystemID, id.Major, formatSize(int64(id.SegmentSize)), id.Layout, id.Codec)
		}
		if err != nil {
			return fmt.Errorf("init %s: %w", u, err)
		}
	}
	return pushHistories(s.ctx, s.cfg.archives(urls, archive.Cluster{}, s.log), c.pgdata(s), s.stdout)
}

// joins takes an archive that is there already, if it is this cluster's: init
// may be run again for another archive, and to finish what it began.
func (c *initCmd) joins(s *session, u *url.URL, id archive.Identity) error {
	cluster := archive.Cluster{SystemID: id.SystemID, Major: id.Major, SegmentSize: id.SegmentSize}
	have, err := s.cfg.archives([]*url.URL{u}, cluster, s.log)[0].Identity(s.ctx)
	asked := s.cfg.Layout != "" && have.Layout != id.Layout || c.Compress != "default" && have.Codec != id.Codec
	if err == nil && asked {
		err = hint(fmt.Errorf("%w: layout %s, codec %s", archive.ErrExists, have.Layout, have.Codec), "another form is another archive, in another directory")
	}
	if err == nil {
		fmt.Fprintf(s.stdout, "%s is an archive of this cluster already\n", u)
	}
	return err
}

// mustBeFirst refuses to make an archive for a cluster that has archived before,
// unless it is known where to. An empty directory is what an archive looks like
// whose file system is not mounted, and a second one would split the WAL.
func (c *initCmd) mustBeFirst(s *session) error {
	done, err := filesOf(c.pgdata(s), filepath.Join("pg_wal", "archive_status"), ".done")
	if c.Force || err != nil || len(done) == 0 {
		return err
	}
	for _, u := range s.cfg.Archive {
		if _, err := s.cfg.archives([]*url.URL{u}, archive.Cluster{}, s.log)[0].Identity(s.ctx); err == nil {
			return nil // it archives into this one; the others join it
		}
	}
	last := strings.TrimSuffix(filepath.Base(slices.Max(done)), ".done")
	return hint(fmt.Errorf("this cluster has archived before, %s among others, and no configured archive is there", last),
		"is a file system not mounted? If it archived into something else, or came from a base backup, --force makes a new archive")
}

// pushHistories stores the histories that the cluster has: one that is on a
// later timeline archived them before these archives were there, and a recovery
// from them will ask for them.
func pushHistories(ctx context.Context, set archive.Set, pgdata string, say io.Writer) error {
	found, err := filesOf(pgdata, "pg_wal", ".history")
	if err != nil {
		return err
	}
	for _, path := range found {
		f, err := openWAL(path)
		if err != nil {
			return err
		}
		_, err = set.Push(ctx, f.name, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Fprintf(say, "%s is stored: the cluster is past timeline 1\n", f.name)
	}
	return nil
}

// filesOf lists the files of a data directory's subdirectory that end so.
func filesOf(pgdata, sub, suffix string) ([]string, error) {
	if pgdata == "" {
		return nil, nil
	}
	dir := filepath.Join(pgdata, sub)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, err
}

// initAt makes a directory, and the archive in it.
func (c Config) initAt(ctx context.Context, u *url.URL, pgdata string, id archive.Identity, log *slog.Logger) error {
	if u.Scheme == "file" && pgdata != "" && lies(filepath.Dir(u.Path), pgdata) {
		return archiveInPGData(u, pgdata)
	}
	return initIn(ctx, c.filesAt(u, log), u, id)
}

// initIn makes the directory of a URL an archive.
func initIn(ctx context.Context, root files.FS, u *url.URL, id archive.Identity) error {
	if err := makeRoot(ctx, root, u); err != nil {
		return err
	}
	_, err := archive.Init(ctx, files.NewStore(root, local.Writer()), id)
	return err
}

// identity is what the flags say, completed from pg_control.
func (c *initCmd) identity(s *session) (archive.Identity, error) {
	cluster, err := c.cluster(s)
	if err != nil {
		return archive.Identity{}, err
	}
	id := archive.Identity{
		SystemID: cluster.SystemID, Major: cluster.Major, SegmentSize: cluster.SegmentSize,
		Layout: archive.Layout(cmp.Or(s.cfg.Layout, "tree")), Codec: archive.Codec(c.Compress),
		Created: time.Now().UTC().Truncate(time.Second), CreatedBy: "pitr " + Version(),
	}
	switch {
	case c.Compress == "default" && id.Layout == archive.Flat:
		id.Codec = archive.None
	case c.Compress == "default":
		id.Codec = archive.Zstd
	case id.Layout == archive.Flat && id.Codec == archive.Zstd:
		return id, hint(fmt.Errorf("%w: a flat archive holds raw segments, so that cp and pg_standby can read them", ErrUsage),
			"leave --compress out, or choose --layout tree")
	}
	return id, nil
}

// pgdata is the data directory of the cluster: the configured one, else the one
// that this is started in.
func (c *initCmd) pgdata(s *session) string {
	if s.cfg.PGData != "" {
		return s.cfg.PGData
	}
	return dataDirectory("")
}

func (c *initCmd) cluster(s *session) (archive.Cluster, error) {
	pgdata := c.pgdata(s)
	if c.SystemID == 0 && pgdata == "" {
		return archive.Cluster{}, hint(fmt.Errorf("%w: whose archive shall it be?", ErrUsage),
			"set pgdata to the data directory, or give --system-identifier, --postgres-major and --segment-size (pg_controldata shows them)")
	}
	cluster, err := clusterOf(pgdata)
	if err != nil {
		return archive.Cluster{}, err
	}
	return c.override(cluster)
}

// override lets the flags win, but not against a pg_control that is there.
func (c *initCmd) override(cluster archive.Cluster) (archive.Cluster, error) {
	size := cluster.SegmentSize
	if c.SegmentSize != "" {
		bytes, err := parseSize(c.SegmentSize)
		if err != nil {
			return cluster, fmt.Errorf("%w: --segment-size: %w", ErrUsage, err)
		}
		size = wal.SegmentSize(bytes)
	} else if size == 0 {
		size = wal.DefaultSegmentSize
	}
	asked := archive.Cluster{SystemID: c.SystemID, Major: c.Major, SegmentSize: size}
	if asked.SystemID == 0 {
		asked.SystemID = cluster.SystemID
	}
	if asked.Major == 0 {
		asked.Major = cluster.Major
	}
	if asked.Major == 0 {
		return asked, hint(fmt.Errorf("%w: the major version is not known", ErrUsage), "give --postgres-major, 13 to 18")
	}
	if cluster.SystemID != 0 && asked != cluster {
		return asked, hint(fmt.Errorf("%w: pg_control in pgdata says system identifier %s, PostgreSQL %d, segments of %s", ErrUsage,
			strconv.FormatUint(cluster.SystemID, 10), cluster.Major, formatSize(int64(cluster.SegmentSize))),
			"leave the flags out, or leave pgdata out")
	}
	return asked, nil
}
