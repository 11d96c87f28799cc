package multicall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive/wal"
	"pitr/backup/pg"
)

// serverSide is what the server beside us does with the archives.
type serverSide struct {
	// archives and ships are the configurations under which its archive_command
	// stores in archives or ships to slaves, and restores that of its
	// restore_command; nil if it could not be seen through or is not pitr's.
	archives, ships, restores *Config
	// acknowledged is what the server was told is archived.
	acknowledged []acknowledged
}

// opaque tells that it is not known where the server archives to.
func (s serverSide) opaque() bool { return s.archives == nil && s.ships == nil }

// acknowledged is a file that the server takes for archived, and since when.
type acknowledged struct {
	name wal.Name
	at   time.Time
}

func (c *checkup) server(ctx context.Context, cfg Config) serverSide {
	const what = "server"
	p, err := pg.ReadPostmaster(cfg.PGData)
	if errors.Is(err, pg.ErrNotRunning) {
		c.ok(what, "not running: its settings were not looked at")
		return serverSide{}
	}
	if err != nil {
		c.add(warning, what, "", "%v", err)
		return serverSide{}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	// The server is the one in pgdata, whatever service somebody uses elsewhere.
	os.Unsetenv("PGSERVICE")
	s, err := pg.Dial(ctx, p, cmp.Or(getenv(c.environ, "PGDATABASE"), "postgres"))
	if err != nil {
		c.add(warning, what, "PGUSER, PGPASSWORD or .pgpass say how to log in", "cannot be asked: %v", err)
		return serverSide{}
	}
	defer s.Close(ctx)
	settings, err := s.ArchiveSettings(ctx)
	if err != nil {
		c.add(warning, what, "", "its settings cannot be read: %v", err)
		return serverSide{}
	}
	env := c.serverEnviron(p.PID)
	var side serverSide
	if c.archiving(settings) {
		side.archives, side.ships = c.archiveCommand(settings.Command, cfg, env)
		side.acknowledged = c.archiver(ctx, s)
		if !settings.InRecovery {
			side.acknowledged = merged(c.archiveStatus(cfg.PGData, p.Started), side.acknowledged)
		}
	}
	side.restores = c.restoring(settings, cfg, env)
	return side
}

// serverEnviron is the environment that the server gives to its commands. If it
// is not to be had, ours is as good a guess as any.
func (c *checkup) serverEnviron(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(raw) == 0 {
		return c.environ
	}
	return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
}

// archiving judges the settings for archiving; false says that nothing is
// archived by archive_command.
func (c *checkup) archiving(a pg.ArchiveSettings) bool {
	if a.WALLevel == "minimal" {
		c.add(critical, "wal_level", "wal_level = replica, and restart", "minimal: this WAL cannot be recovered from")
	}
	switch {
	case a.Mode == "off":
		c.add(critical, "archive_mode", "archive_mode = on, and restart", "off: nothing is archived")
		return false
	case a.Library != "":
		c.add(warning, "archive_library", "archive_library = '' if pitr is to archive", "%s archives, not archive_command", a.Library)
		return false
	case a.Command == "":
		c.add(critical, "archive_command", "archive_command = 'archive_command %p'", "not set: WAL piles up")
		return false
	case a.InRecovery && a.Mode != "always":
		c.ok("archive_mode", "%s; the server is a standby and archives after promotion", a.Mode)
	default:
		c.ok("archive_mode", "%s", a.Mode)
	}
	if a.Timeout == 0 {
		c.add(warning, "archive_timeout", "archive_timeout = 60, and reload", "0: on a quiet server the last transactions stay unarchived without limit")
	} else {
		c.ok("archive_timeout", "%s", a.Timeout)
	}
	return true
}

// restoring judges the settings for following and recovering.
func (c *checkup) restoring(a pg.ArchiveSettings, cfg Config, env []string) *Config {
	switch {
	case a.Restore != "":
		return c.command("restore_command", a.Restore, cfg, env)
	case a.InRecovery:
		c.add(warning, "restore_command", "restore_command = 'restore_command %f %p'",
			"not set: once the primary has recycled what this standby needs, it must be made anew")
	}
	return nil
}

// archiver reads how archiving went; it returns what was archived last.
func (c *checkup) archiver(ctx context.Context, s *pg.Server) []acknowledged {
	st, err := s.ArchiverStats(ctx)
	if err != nil {
		c.add(warning, "pg_stat_archiver", "", "cannot be read: %v", err)
		return nil
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
	name, err := wal.ParseName(st.LastArchived)
	if err != nil || name.Kind() != wal.KindSegment && name.Kind() != wal.KindHistory {
		return nil
	}
	return []acknowledged{{name, st.LastTime}}
}

// overdue is how long a file may wait to be archived without a word.
const overdue = 10 * time.Minute

// archiveStatus reads pg_wal/archive_status: what waits to be archived, and what
// this server was told is archived since it started. Of the latter only the
// current timeline counts: what a base backup or streaming brought along was
// somebody else's to archive.
func (c *checkup) archiveStatus(pgdata string, started time.Time) []acknowledged {
	control, err := wal.ReadControl(pgdata)
	if err != nil {
		return nil // told already
	}
	dir := filepath.Join(pgdata, "pg_wal", "archive_status")
	entries, err := os.ReadDir(dir)
	if err != nil {
		c.add(warning, "pg_wal", firstHint(err, ""), "%v", err)
		return nil
	}
	var told []acknowledged
	waiting, oldest := 0, time.Now()
	for _, e := range entries {
		base, suffix, _ := strings.Cut(e.Name(), ".")
		name, err := wal.ParseName(base)
		var st unix.Stat_t
		if err != nil || unix.Stat(filepath.Join(dir, e.Name()), &st) != nil {
			continue
		}
		// A .ready file is renamed to .done: that changes its ctime alone.
		done := time.Unix(st.Ctim.Unix())
		switch {
		case suffix == "ready":
			waiting++
			if since := time.Unix(st.Mtim.Unix()); since.Before(oldest) {
				oldest = since
			}
		case suffix == "done" && name.Timeline() == control.Timeline && done.After(started.Add(time.Second)):
			told = append(told, acknowledged{name, done})
		}
	}
	c.waiting(waiting, time.Since(oldest).Round(time.Second))
	return told
}

// merged is both lists in the order of time, each file once.
func merged(a, b []acknowledged) []acknowledged {
	all := append(a, b...)
	slices.SortStableFunc(all, func(a, b acknowledged) int { return a.at.Compare(b.at) })
	seen := map[wal.Name]bool{}
	return slices.DeleteFunc(all, func(t acknowledged) bool {
		twice := seen[t.name]
		seen[t.name] = true
		return twice
	})
}

func (c *checkup) waiting(files int, longest time.Duration) {
	switch {
	case files == 0:
		c.ok("pg_wal", "nothing waits to be archived")
	case longest < overdue:
		c.ok("pg_wal", "%s to be archived, waiting for up to %s", count(files, "segment"), longest)
	default:
		c.add(warning, "pg_wal", "see pg_stat_archiver and the server's log; a full pg_wal stops the server",
			"%s to be archived, waiting for up to %s", count(files, "segment"), longest)
	}
}
