package multicall

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/wal"
)

const (
	// answerTime is what check gives an archive to show that it is there: one
	// that hangs must be told before a monitoring system loses patience.
	answerTime = 20 * time.Second

	// listTime is what it gets then to list what it holds.
	listTime = 2 * time.Minute
)

// target is an archive to be looked at.
type target struct {
	url *url.URL
	cfg Config // under which it is used
	// written: archive_command stores here, so what the server takes for
	// archived must be there.
	written bool
	// seen: it is the server's own archive_command that says so.
	seen bool
	// queued is what waits for it of what the server takes for archived.
	queued []wal.Name
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
				all = append(all, target{url: u, cfg: cfg, written: written})
			}
		}
	}
	// What cannot be seen through is taken to do what is configured here.
	add(cfg, cfg.Archive, s.opaque())
	if s.archives != nil {
		add(*s.archives, s.archives.Archive, true)
		for i := range all {
			all[i].seen = names(s.archives.Archive, all[i].url)
		}
	}
	if s.restores != nil {
		add(*s.restores, s.restores.readFrom(), false)
	}
	return all
}

// queuesOf looks at the queues of archives that have one, before anything looks
// at the archives: what leaves a queue meanwhile is there then.
func (c *checkup) queuesOf(ctx context.Context, all []target, cluster archive.Cluster, told []acknowledged) {
	queued := map[string]map[string][]wal.Name{} // by l_archivedir, then by queue
	for i, t := range all {
		if !names(t.cfg.Queued, t.url) {
			continue
		}
		dir := t.cfg.LArchiveDir
		if _, looked := queued[dir]; !looked {
			queued[dir] = c.queues(ctx, t.cfg, cluster, told)
			c.alerts(t.cfg)
		}
		all[i].queued = queued[dir][queueName(t.url)]
	}
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

// lookedAt is an archive that answered.
type lookedAt struct {
	url, id string
	dev     uint64
}

func (c *checkup) archive(ctx context.Context, t target, cluster archive.Cluster, told []acknowledged) (seen []lookedAt) {
	listing, cancel := context.WithTimeoutCause(ctx, answerTime+listTime, fmt.Errorf("no answer within %s", listTime))
	defer cancel()
	ctx, cancel = context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("no answer within %s", answerTime))
	defer cancel()
	what := t.url.String()
	dir := t.cfg.filesAt(t.url, c.log)
	if !c.connection(ctx, what, dir) {
		return nil
	}
	a := t.cfg.archiveIn(dir, t.url, cluster, c.log)
	id, err := a.Identity(ctx)
	switch {
	case errors.Is(err, archive.ErrNoIdentity) && t.cfg.Layout == string(archive.Flat) && !t.written:
		c.add(warning, what, "pitr init makes an archive that can also be written to", "it has no archive.json: it can be restored from and nothing else")
	case err != nil:
		c.add(critical, what, firstHint(err, "pitr init makes an archive; is the file system mounted?"), "%v", err)
		return nil
	default:
		c.ok(what, "archive %s of system identifier %d, layout %s, codec %s", id.ID, id.SystemID, id.Layout, id.Codec)
		if m, ok := throughMount(t.url); ok {
			c.throughMount(t, m)
			break // its disk is that of the cache
		}
		c.probe(ctx, a, what)
		seen = []lookedAt{{what, id.ID, c.place(ctx, what, dir, id.SegmentSize)}}
	}
	cover, err := a.Coverage(listing)
	if err != nil {
		c.add(critical, what, firstHint(err, ""), "what it holds cannot be listed: %v", err)
		return seen
	}
	c.coverage(what, cover)
	if t.written {
		c.acknowledged(what, id, cover, t.queued, told)
	}
	return seen
}

// throughMount tells that an archive can only be restored from.
func (c *checkup) throughMount(t target, m mounted) {
	if t.seen {
		err := m.refusesPushes(t.url)
		c.add(critical, t.url.String(), firstHint(err, ""), "archive_command stores here: %v", err)
		return
	}
	if !m.trusted() {
		c.add(warning, t.url.String(), "mount it as root, or as the user who restores",
			"a mount of %s by user %d: all that it shows is verified once more, as in a directory that anybody has filled", m.source, m.owner)
		return
	}
	c.ok(t.url.String(), "a mount of %s: it is restored from and nothing else", m.source)
}

func (c *checkup) probe(ctx context.Context, a *archive.Archive, what string) {
	found, err := a.Probe(ctx)
	if err != nil {
		c.add(critical, what, firstHint(err, "does this user own the directory, and can its file system rename without replacing, or link?"), "%v", err)
		return
	}
	c.ok(what, "a file was stored, synced and protected against a second one")
	const tolerable = 10 * time.Second
	if found.Clock.Abs() > tolerable {
		c.add(warning, what, "set both clocks by NTP: what is removed by its age is removed at the wrong time",
			"the clock there is %s", aheadOrBehind(found.Clock))
	}
}

func aheadOrBehind(d time.Duration) string {
	if d < 0 {
		return d.Abs().String() + " behind"
	}
	return d.String() + " ahead"
}

// room judges how many bytes are free.
func (c *checkup) room(what string, free, segment int64) {
	const remedy = "pitr wal prune, or a larger disk"
	switch {
	case free < 16*segment:
		c.add(critical, what, remedy, "%s free: less than 16 segments", formatSize(free))
	case free < 256*segment:
		c.add(warning, what, remedy, "%s free: less than 256 segments", formatSize(free))
	default:
		c.ok(what, "%s free", formatSize(free))
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
	for _, h := range cover.MissingHistories {
		c.add(critical, what, "push it from pg_wal of a server on that timeline, or from another archive", "no recovery finds its way without %s", h)
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

// acknowledged looks up what the server was told is archived. What is queued for
// an archive counts as there.
func (c *checkup) acknowledged(what string, id archive.Identity, cover archive.Coverage, queued []wal.Name, told []acknowledged) {
	var lost []acknowledged
	for _, t := range told {
		if t.at.After(id.Created) && cover.Lacks(t.name) && !slices.Contains(queued, t.name) {
			lost = append(lost, t)
		}
	}
	const remedy = "archive_command says yes without storing: mend it, then pitr wal push what is still in pg_wal, and take a base backup"
	switch {
	case len(lost) > 0:
		c.add(critical, what, remedy, "the server was told that %s is archived (%s), and it is not here%s",
			lost[0].name, lost[0].at.UTC().Format(time.RFC3339), andMore(len(lost)-1))
	case len(told) > 0 && len(queued) > 0:
		c.ok(what, "what the server was told is archived is here or in its queue, up to %s", told[len(told)-1].name)
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

// apart warns if every archive lies on the file system of the data, or if two
// of them are one.
func (c *checkup) apart(cfg Config, looked []lookedAt) {
	byID := map[string]string{}
	for _, l := range looked {
		if first, twice := byID[l.id]; twice {
			c.add(critical, l.url, "leave one of them out", "this is the same archive as %s: what is stored in both is stored once", first)
		}
		byID[l.id] = l.url
	}
	var data unix.Stat_t
	if cfg.PGData == "" || unix.Stat(cfg.PGData, &data) != nil || len(looked) == 0 {
		return
	}
	for _, l := range looked {
		if l.dev != uint64(data.Dev) {
			return
		}
	}
	c.add(warning, "archive", "put at least one archive on another disk, better on another host",
		"every archive lies on the file system of the data directory: one disk takes both")
}
