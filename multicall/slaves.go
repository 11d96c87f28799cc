package multicall

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/ship"
)

// needSlaves is an error unless the configuration says what cmd_archiver has to
// know.
func (c Config) needSlaves() error {
	var problems []error
	missing := func(key, example string) {
		problems = append(problems, hint(fmt.Errorf("%s is not set", key), "in the file that -C names: %s: %s", key, example))
	}
	if len(c.Slaves) == 0 {
		missing("slaves", "standby1, standby2")
	}
	if c.RArchiveDir == "" {
		missing("r_archivedir", "/var/lib/postgresql/archive")
	}
	switch {
	case c.LArchiveDir == "":
		missing("l_archivedir", "/var/lib/postgresql/archive")
	case c.PGData != "" && (below(c.LArchiveDir, c.PGData) || below(c.PGData, c.LArchiveDir)):
		problems = append(problems, queuesInPGData(c))
	}
	if len(problems) > 0 {
		return &ConfigError{problems}
	}
	return nil
}

// slaveURL is where the archive of a slave lies.
func (c Config) slaveURL(slave string) *url.URL {
	u := &url.URL{Scheme: "sftp", Host: slave, Path: c.RArchiveDir}
	if strings.Contains(slave, ":") { // an address of IPv6
		u.Host = strings.TrimSuffix(net.JoinHostPort(slave, ""), ":")
	}
	if c.User != "" {
		u.User = url.User(c.User)
	}
	return u
}

// slaveCluster is the cluster that is shipped, which must be known: a slave that
// is away cannot say whose WAL it takes.
func slaveCluster(cfg Config) (archive.Cluster, error) {
	pgdata := dataDirectory(cfg.PGData)
	if err := mustBeConfigured(pgdata, cfg.PGData); err != nil {
		return archive.Cluster{}, err
	}
	if pgdata == "" && cfg.PGData != "" {
		return archive.Cluster{}, hint(fmt.Errorf("%w: pgdata %s is no data directory", ErrConfig, cfg.PGData), "it has neither PG_VERSION nor global/pg_control: is its file system mounted, and the path that of this version of PostgreSQL?")
	}
	if pgdata == "" {
		return archive.Cluster{}, hint(fmt.Errorf("%w: whose WAL is this?", ErrConfig), "set pgdata to the data directory")
	}
	return clusterOf(pgdata)
}

// destinations are the slaves, or the archives that are queued.
func (c *call) destinations(cfg Config, cluster archive.Cluster) []ship.Destination {
	var all []ship.Destination
	for _, u := range cfg.Queued {
		set := cfg.archives([]*url.URL{u}, cluster, c.log)
		all = append(all, ship.Destination{Name: queueName(u), Archive: set[0]})
	}
	cfg.Layout = string(archive.Flat)
	for _, slave := range cfg.Slaves {
		set := cfg.archives([]*url.URL{c.slaveURL(cfg, slave)}, cluster, c.log)
		all = append(all, ship.Destination{Name: slave, Archive: set[0]})
	}
	return all
}

// shipper ships to the slaves, or to the archives that are queued.
func (c *call) shipper(cfg Config, cluster archive.Cluster) *ship.Shipper {
	return &ship.Shipper{
		Cluster:      cluster,
		Destinations: c.destinations(cfg, cluster),
		Disk:         local.New(cfg.LArchiveDir),
		Writer:       local.Writer(),
		Patience:     cfg.SSHTimeout,
		Rest:         cfg.QueueWait,
		Limit:        ship.Limit{Bytes: cfg.QueueMax, Free: cfg.QueueMinFree},
		Log:          c.log,
		Now:          time.Now,
	}
}

// queueOf is the directory of a destination's queue.
func (c Config) queueOf(destination string) string { return filepath.Join(c.LArchiveDir, destination) }

// sayUnused tells, in debug output, what of pitrtools' file is accepted and does
// nothing.
func (c Config) sayUnused(log *slog.Logger) {
	for _, key := range unusedKeys {
		if v := c.origins[key]; v.text != "" && v.from != fromDefault {
			log.Debug("accepted and not used: nothing needs it any more", "key", key)
		}
	}
	if slices.ContainsFunc(c.RsyncFlags, asksForCompression) {
		log.Debug("rsync_flags ask for compression, which cannot be granted: a slave's archive is raw, and the SSH that is built in does not compress")
	}
}

func asksForCompression(flag string) bool {
	return strings.HasPrefix(flag, "--compress") || strings.HasPrefix(flag, "-") && !strings.HasPrefix(flag, "--") && strings.Contains(flag, "z")
}

// errRoot refuses to run as root, as pitrtools does: what root makes in the
// queues and on the slaves PostgreSQL cannot use.
func errRoot() error {
	return hint(fmt.Errorf("%w: cmd_archiver must not be run by root", ErrUsage), "run it as the user that runs PostgreSQL: sudo -u postgres cmd_archiver ...")
}

// unfit tells whether an error of a slave's archive does not go away by itself.
func unfit(err error) bool {
	for _, e := range []error{archive.ErrIdentity, archive.ErrNotEmpty, archive.ErrDamaged, archive.ErrForeign, archive.ErrConflict} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
