package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// lineage is a cluster that was promoted twice, and whose three timelines are all in
// one archive: the primary went on after both standbys had left it.
type lineage struct {
	v       template
	backup  string
	archive *archive
	rows    [4]int // of each timeline, at its end
	primary *cluster
	heirs   [4]*cluster // of timelines 2 and 3, running
}

// newLineage lives through it. Both standbys are promoted while their fetchers hold
// segments that the primary has archived.
func newLineage(t *testing.T, v template) *lineage {
	t.Helper()
	l := &lineage{v: v, primary: newCluster(t, v.version, v.segmentMB)}
	l.archive = newArchive(t, l.primary)
	l.primary.archiveTo(l.archive)
	l.primary.start()
	l.primary.sql("CREATE TABLE ledger (id int, pad text)")
	l.backup = l.primary.backup()
	l.grow(l.primary, 5)

	for tli := 2; tli <= 3; tli++ {
		// Left to itself, the second one would follow the first.
		c := newReplica(t, v, l.backup, l.archive, "standby.signal", "recovery_target_timeline = '1'", held)
		l.heirs[tli] = c
		c.start()
		eventually(t, "segments are ready", func() bool { return c.agentStatus().Fetcher.Held > 0 })
		fetcher := c.waitFetcher()
		c.set("recovery_min_apply_delay = 0", "archive_mode = on", fmt.Sprintf("primary_conninfo = 'host=%s user=postgres'", l.primary.dir),
			fmt.Sprintf("archive_command = '%s -C %s %%p'", home.applet("archive_command"), c.config()))
		c.stop()
		c.waitGone(fetcher)
		c.start()
		// It leaves its timeline inside a segment, which it archives as .partial.
		eventually(t, "it streams", func() bool { return l.primary.sql("SELECT count(*) FROM pg_stat_replication") == "1" })
		fillLedger(l.primary, 1)
		c.waitLedger(l.primary.ledger())
		c.sql("SELECT pg_promote(false)")
		c.waitOpened()
		l.grow(c, tli)
		l.rows[tli] = c.ledger()
		l.grow(l.primary, 2)
	}
	l.rows[1] = l.primary.ledger()
	return l
}

// grow commits rows into several segments, and archives them.
func (l *lineage) grow(c *cluster, segments int) {
	c.t.Helper()
	for range segments {
		fillLedger(c, 1)
		c.switchWAL()
	}
}

// recovers recovers a timeline from the archive, and wants just its rows.
func (l *lineage) recovers(t *testing.T, target string, rows int, timeline string) {
	t.Helper()
	c := newReplica(t, l.v, l.backup, l.archive, "recovery.signal", "recovery_target_timeline = '"+target+"'")
	c.start()
	c.waitOpened()
	if got := c.ledger(); got != rows {
		t.Errorf("timeline %s: got %d rows, want %d", target, got, rows)
	}
	c.sql("CHECKPOINT")
	if got := c.sql("SELECT timeline_id FROM pg_control_checkpoint()"); got != timeline {
		t.Errorf("timeline %s: it opened timeline %s, want %s", target, got, timeline)
	}
	c.wantNoTrace()
	c.stop()
}

// TestFetchersKeepTimelinesApart: standbys are promoted while segments are read ahead,
// two of them from one archive, and it is recovered to each of its timelines, also to
// the old one that went on, with a .partial of its segments beside them.
func TestFetchersKeepTimelinesApart(t *testing.T) {
	t.Parallel()
	for _, v := range []template{{13, 16}, {15, 1}, {18, 64}} {
		t.Run(fmt.Sprint(v.version), func(t *testing.T) {
			t.Parallel()
			l := newLineage(t, v)
			partials := glob(t, l.archive.dir, "wal", "00000001*", "*.partial*")
			if len(partials) == 0 {
				t.Error("the test is wrong: no segment of timeline 1 was left unfinished")
			}
			l.recovers(t, "latest", l.rows[3], "4")
			l.recovers(t, "2", l.rows[2], "4")
			l.recovers(t, "1", l.rows[1], "4")
			for _, c := range []*cluster{l.primary, l.heirs[2], l.heirs[3]} {
				l.archive.wantAcknowledged(c)
			}
		})
	}
}

// TestRewindWithAFetcher: a standby that reads ahead is stopped and rewound at once,
// to a server that left its timeline. pg_rewind lists pg_wal, and must find in the end
// what it found in the beginning; and it fetches WAL by restore_command itself.
func TestRewindWithAFetcher(t *testing.T) {
	t.Parallel()
	v := template{15, 1}
	primary := newCluster(t, v.version, v.segmentMB)
	a := newArchive(t, primary)
	primary.archiveTo(a)
	primary.set("wal_log_hints = on", "full_page_writes = on", "wal_keep_size = 0", "max_wal_size = 4MB", "min_wal_size = 2MB")
	primary.start()
	primary.sql("CREATE TABLE ledger (id int, pad text)")
	backup := primary.backup()
	fillLedger(primary, 4)
	primary.switchWAL()

	heir := newReplica(t, v, backup, a, "standby.signal")
	heir.start()
	heir.waitLedger(primary.ledger())
	heir.set("archive_mode = on", fmt.Sprintf("archive_command = '%s -C %s %%p'", home.applet("archive_command"), heir.config()))
	heir.stop()
	heir.start()
	heir.sql("SELECT pg_promote()")
	heir.waitOpened()
	heir.sql("CHECKPOINT") // else pg_rewind takes it to be on timeline 1
	fillLedger(heir, 2)
	heir.switchWAL()

	// The old primary goes on for so long that its WAL since the fork is in the archive
	// only, and a server that follows it reads ahead until the moment it is stopped.
	for range 6 {
		fillLedger(primary, 4)
		primary.switchWAL()
		primary.sql("CHECKPOINT")
	}
	lost := primary.ledger()
	target := newReplica(t, v, backup, a, "standby.signal", "recovery_target_timeline = '1'", "wal_keep_size = 2MB", "checkpoint_completion_target = 0")
	target.start()
	target.waitLedger(lost)
	target.sql("CHECKPOINT")
	// Its own life, so that it has diverged, and is no mere standby.
	target.sql("SELECT pg_promote()")
	target.waitOpened()
	target.sql("INSERT INTO ledger VALUES (0)") // small: this WAL must still be there
	target.stop()
	eventually(t, "the server's own fetcher ends", func() bool { return !target.agentStatus().Fetcher.Running })
	stop := target.runFetcher("--after", filepath.Base(glob(t, primary.data, "pg_wal", "00000001????????????????")[0]))
	before := target.agentStatus().Fetcher.PID

	rewind := home.command(filepath.Join(target.bin, "pg_rewind"), "--target-pgdata", target.data, "--restore-target-wal",
		"--source-server", "host="+heir.dir+" user=postgres dbname=postgres")
	if r := run(rewind); r.status != 0 {
		t.Fatalf("pg_rewind: %s", r)
	}
	if now := target.agentStatus().Fetcher; now.PID != before {
		t.Errorf("there was fetcher %d, now %+v", before, now)
	}
	stop()
	target.set("recovery_target_timeline = 'latest'", fmt.Sprintf("primary_conninfo = 'host=%s user=postgres'", heir.dir), "archive_mode = off", "checkpoint_completion_target = 0")
	target.restoreFrom(a, "restore_retry = 20s")
	target.signalFile("standby.signal")
	target.start()
	target.waitLedger(heir.ledger())
	fillLedger(heir, 1)
	target.waitLedger(heir.ledger())
	target.wantNoTrace()
	if strings.Contains(target.logged(), "PANIC") {
		t.Error("there is a PANIC in its log")
	}
}
