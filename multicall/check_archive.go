package multicall

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// archiveTime is what check gives one archive.
const archiveTime = time.Minute

// target is an archive to be looked at.
type target struct {
	url *url.URL
	cfg Config // under which it is used
	// written: archive_command stores here, so what the server takes for
	// archived must be there.
	written bool
}

// targets are the archives that this configuration names, and those that the
// server's commands use by theirs.
func targets(cfg Config, s serverSide) []target {
	var all []target
	add := func(cfg Config, urls []*url.URL, written bool) {
		for _, u := range urls {
			for i := range all {
				if all[i].url.String() == u.String() {
					all[i].written = all[i].written || written
					u = nil
					break
				}
			}
			if u != nil {
				all = append(all, target{u, cfg, written})
			}
		}
	}
	// What cannot be seen through is taken to do what is configured here.
	add(cfg, cfg.Archive, s.archives == nil)
	if s.archives != nil {
		add(*s.archives, s.archives.Archive, true)
	}
	if s.restores != nil {
		add(*s.restores, s.restores.readFrom(), false)
	}
	return all
}

func (c *checkup) cluster(cfg Config) archive.Cluster {
	if cfg.PGData == "" {
		c.add(warning, "pgdata", "set pgdata, so that archives can be held against the cluster", "not configured")
		return archive.Cluster{}
	}
	cluster, err := clusterOf(cfg.PGData)
	if err != nil {
		c.add(critical, "pgdata", "is pgdata right, and does this run as the user of PostgreSQL?", "%v", err)
		return archive.Cluster{}
	}
	c.ok("pgdata", "%s: PostgreSQL %d, system identifier %d, segments of %s", cfg.PGData, cluster.Major, cluster.SystemID, formatSize(int64(cluster.SegmentSize)))
	return cluster
}

func (c *checkup) archive(ctx context.Context, t target, cluster archive.Cluster, told []acknowledged) {
	ctx, cancel := context.WithTimeoutCause(ctx, archiveTime, fmt.Errorf("no answer within %s", archiveTime))
	defer cancel()
	what := t.url.String()
	a := t.cfg.archives([]*url.URL{t.url}, cluster, c.log)[0]
	id, err := a.Identity(ctx)
	switch {
	case errors.Is(err, archive.ErrNoIdentity) && t.cfg.Layout == string(archive.Flat) && !t.written:
		c.add(warning, what, "pitr init makes an archive that can also be written to", "it has no archive.json: it can be restored from and nothing else")
	case err != nil:
		c.add(critical, what, firstHint(err, "pitr init makes an archive; is the file system mounted?"), "%v", err)
		return
	default:
		c.ok(what, "archive %s of system identifier %d, layout %s, codec %s", id.ID, id.SystemID, id.Layout, id.Codec)
		c.probe(ctx, a, what)
		c.space(t.url, id.SegmentSize)
	}
	cover, err := a.Coverage(ctx)
	if err != nil {
		c.add(critical, what, firstHint(err, ""), "what it holds cannot be listed: %v", err)
		return
	}
	c.coverage(what, cover)
	if t.written {
		c.acknowledged(what, id, cover, told)
	}
}

func (c *checkup) probe(ctx context.Context, a *archive.Archive, what string) {
	if err := a.Probe(ctx); err != nil {
		c.add(critical, what, firstHint(err, "does this user own the directory, and can its file system rename without replacing, or link?"), "%v", err)
		return
	}
	c.ok(what, "a file was stored, synced and protected against a second one")
}

func (c *checkup) space(u *url.URL, segment wal.SegmentSize) {
	free, err := local.New(u.Path).Space()
	switch {
	case err != nil:
		c.add(critical, u.String(), "", "%v", err)
	case free < 16*int64(segment):
		c.add(critical, u.String(), "pitr wal prune, or a larger disk", "%s free: less than 16 segments", formatSize(free))
	case free < 256*int64(segment):
		c.add(warning, u.String(), "pitr wal prune, or a larger disk", "%s free: less than 256 segments", formatSize(free))
	default:
		c.ok(u.String(), "%s free", formatSize(free))
	}
}

// coverage tells which WAL is there, and what no recovery gets past.
func (c *checkup) coverage(what string, cover archive.Coverage) {
	switch len(cover.Ranges) {
	case 0:
		c.ok(what, "it holds no WAL yet; SELECT pg_switch_wal() archives a first segment")
	default:
		last := cover.Ranges[len(cover.Ranges)-1]
		c.ok(what, "%s, %s; the newest is %s", count(cover.Files, "file"), formatSize(cover.Bytes), last.Last)
	}
	for i, g := range cover.Gaps {
		if i == 3 {
			c.add(critical, what, "", "%s more; pitr wal list shows all of them", count(len(cover.Gaps)-i, "gap"))
			break
		}
		c.add(critical, what, "push it from pg_wal or another archive; if it is lost: take a base backup, then pitr wal prune up to its start",
			"no recovery gets past a gap: %s", g)
	}
}

// acknowledged looks up what the server was told is archived.
func (c *checkup) acknowledged(what string, id archive.Identity, cover archive.Coverage, told []acknowledged) {
	var lost []acknowledged
	for _, t := range told {
		if t.at.After(id.Created) && cover.Lacks(t.name) {
			lost = append(lost, t)
		}
	}
	const remedy = "archive_command says yes without storing: mend it, then pitr wal push what is still in pg_wal, and take a base backup"
	switch {
	case len(lost) > 0:
		c.add(critical, what, remedy, "the server was told that %s is archived (%s), and it is not here%s",
			lost[0].name, lost[0].at.UTC().Format(time.RFC3339), andMore(len(lost)-1))
	case len(told) > 0:
		c.ok(what, "what the server was told is archived is here, up to %s", told[len(told)-1].name)
	}
}

func andMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; nor are %d more", n)
}

// offTheDataDisk warns if every archive lies on the file system of the data.
func (c *checkup) offTheDataDisk(cfg Config) {
	var data unix.Stat_t
	if cfg.PGData == "" || unix.Stat(cfg.PGData, &data) != nil {
		return
	}
	for _, u := range cfg.Archive {
		var st unix.Stat_t
		if unix.Stat(u.Path, &st) != nil || st.Dev != data.Dev {
			return
		}
	}
	c.add(warning, "archive", "put at least one archive on another disk, better on another host",
		"every archive lies on the file system of the data directory: one disk takes both")
}
