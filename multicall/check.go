package multicall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
	"pitr/backup/pg"
)

// severity is what a monitoring system makes of a finding.
type severity int

const (
	fine severity = iota
	warning
	critical
)

func (s severity) String() string { return [...]string{"ok", "warning", "critical"}[s] }

// MarshalText is for --json.
func (s severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// finding is one thing that check looked at.
type finding struct {
	Severity severity `json:"severity"`
	What     string   `json:"what"`
	Found    string   `json:"found"`
	Remedy   string   `json:"remedy,omitempty"`
}

// checkup collects findings.
type checkup struct {
	findings []finding
	log      *slog.Logger
}

func (c *checkup) ok(what, format string, args ...any) {
	c.findings = append(c.findings, finding{fine, what, fmt.Sprintf(format, args...), ""})
}

func (c *checkup) add(s severity, what, remedy, format string, args ...any) {
	c.findings = append(c.findings, finding{s, what, fmt.Sprintf(format, args...), remedy})
}

// worst is the exit status of check: 0, 1 or 2, as monitoring expects.
func (c *checkup) worst() severity {
	worst := fine
	for _, f := range c.findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// check looks at everything that archiving depends on.
func check(ctx context.Context, cfg Config, log *slog.Logger) *checkup {
	c := &checkup{log: log}
	if err := cfg.NeedArchive(); err != nil {
		c.add(critical, "configuration", strings.Join(hintsOf(err), "; "), "%v", err)
		return c
	}
	if cfg.State == "offline" {
		c.add(warning, "state", "set state: online", "archiving is switched off: archive_command refuses every file")
	}
	cluster := c.cluster(cfg)
	for _, u := range cfg.Archive {
		c.archive(ctx, cfg, u, cluster)
	}
	c.offTheDataDisk(cfg)
	if cfg.PGData != "" {
		c.server(ctx, cfg.PGData)
	}
	return c
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

// archiveTime is what check gives one archive.
const archiveTime = 20 * time.Second

func (c *checkup) archive(ctx context.Context, cfg Config, u *url.URL, cluster archive.Cluster) {
	ctx, cancel := context.WithTimeout(ctx, archiveTime)
	defer cancel()
	what := u.String()
	a := cfg.archives([]*url.URL{u}, cluster, c.log)[0]
	id, err := a.Identity(ctx)
	if err != nil {
		c.add(critical, what, firstHint(err, "pitr init makes an archive; is the file system mounted?"), "%v", err)
		return
	}
	c.ok(what, "archive %s of system identifier %d, layout %s, codec %s", id.ID, id.SystemID, id.Layout, id.Codec)
	if err := a.Probe(ctx); err != nil {
		c.add(critical, what, firstHint(err, "does this user own the directory, and can its file system rename without replacing, or link?"), "%v", err)
	} else {
		c.ok(what, "a file was stored, synced and protected against a second one")
	}
	c.space(u, id.SegmentSize)
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

func (c *checkup) server(ctx context.Context, pgdata string) {
	const what = "server"
	p, err := pg.ReadPostmaster(pgdata)
	if errors.Is(err, pg.ErrNotRunning) {
		c.ok(what, "not running: its settings were not looked at")
		return
	}
	if err != nil {
		c.add(warning, what, "", "%v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := pg.Dial(ctx, p)
	if err != nil {
		c.add(warning, what, "PGUSER, PGPASSWORD or .pgpass say how to log in", "cannot be asked: %v", err)
		return
	}
	defer s.Close(ctx)
	c.settings(ctx, s)
	c.archiver(ctx, s)
}

func (c *checkup) settings(ctx context.Context, s *pg.Server) {
	a, err := s.ArchiveSettings(ctx)
	if err != nil {
		c.add(warning, "server", "", "its settings cannot be read: %v", err)
		return
	}
	if a.InRecovery && a.Mode != "always" {
		c.ok("archive_mode", "%s; the server is a standby and archives after promotion", a.Mode)
		return
	}
	if a.WALLevel == "minimal" {
		c.add(critical, "wal_level", "wal_level = replica, and restart", "minimal: this WAL cannot be recovered from")
	}
	if a.Mode == "off" {
		c.add(critical, "archive_mode", "archive_mode = on, and restart", "off: nothing is archived")
		return
	}
	c.ok("archive_mode", "%s", a.Mode)
	switch {
	case a.Library != "":
		c.add(warning, "archive_library", "archive_library = '' if pitr is to archive", "%s archives, not archive_command", a.Library)
	case a.Command == "":
		c.add(critical, "archive_command", "archive_command = '.../archive_command %p'", "not set: WAL piles up")
	case !strings.Contains(a.Command, "archive_command") && !strings.Contains(a.Command, "pitr"):
		c.add(warning, "archive_command", "archive_command = '.../archive_command %p'", "does not call pitr: %s", a.Command)
	default:
		c.ok("archive_command", "%s", a.Command)
	}
	if a.Timeout == 0 {
		c.add(warning, "archive_timeout", "archive_timeout = 60, and reload", "0: on a quiet server the last transactions stay unarchived without limit")
	} else {
		c.ok("archive_timeout", "%s", a.Timeout)
	}
}

func (c *checkup) archiver(ctx context.Context, s *pg.Server) {
	st, err := s.ArchiverStats(ctx)
	if err != nil {
		c.add(warning, "pg_stat_archiver", "", "cannot be read: %v", err)
		return
	}
	switch {
	case st.LastFailure.After(st.LastTime):
		c.add(critical, "pg_stat_archiver", "the server's log has the reason",
			"the last attempt failed: %s at %s (%d failures)", st.LastFailed, st.LastFailure.Format(time.RFC3339), st.Failed)
	case st.Archived == 0:
		c.ok("pg_stat_archiver", "nothing archived yet; SELECT pg_switch_wal() makes a segment to try with")
	default:
		c.ok("pg_stat_archiver", "last archived %s at %s, %d failures", st.LastArchived, st.LastTime.Format(time.RFC3339), st.Failed)
	}
}

// firstHint is an error's own advice, or else the one given.
func firstHint(err error, otherwise string) string {
	if hints := hintsOf(err); len(hints) > 0 {
		return hints[0]
	}
	if errors.Is(err, os.ErrPermission) {
		return "run this as the user of PostgreSQL"
	}
	return otherwise
}
