package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestForkSegmentOfAFollower: a standby with archive_mode = always that follows
// a promotion archives the segment in which the old timeline was left, whose
// WAL ends inside it, under its full name. That name must stay free for the
// genuine segment of the old primary, which goes on.
func TestForkSegmentOfAFollower(t *testing.T) {
	t.Parallel()
	for _, v := range []template{{13, 1}, {15, 1}, {18, 1}} {
		t.Run(fmt.Sprint(v.version), func(t *testing.T) {
			t.Parallel()
			primary := newCluster(t, v.version, v.segmentMB)
			a := newArchive(t, primary)
			primary.archiveTo(a)
			primary.start()
			primary.sql("CREATE TABLE ledger (id int, pad text)")
			backup := primary.backup()
			fillLedger(primary, 4)
			primary.switchWAL()
			first := newFollower(t, v, backup, a, primary)
			second := newFollower(t, v, backup, a, first)
			fillLedger(primary, 1)
			rows := primary.ledger()
			first.waitLedger(rows)
			second.waitLedger(rows)

			first.sql("SELECT pg_promote()")
			first.waitOpened()
			fillLedger(first, 3)
			first.sql("SELECT pg_switch_wal()")
			second.waitLedger(first.ledger())
			fork := forkOf(t, a)
			eventually(t, "the follower archived the segment of the fork", func() bool {
				return second.marked(fork, ".done") || !second.marked(fork, ".ready") && second.marked(next(fork), ".done")
			})
			first.waitArchived()
			second.waitArchived()

			// Rows that are committed on the old timeline after the fork.
			fillLedger(primary, 1)
			primary.switchWAL()
			if failed := primary.sql("SELECT failed_count FROM pg_stat_archiver"); failed != "0" {
				t.Errorf("the old primary was refused %s times:\n%s", failed, primary.logged())
			}
			if got, want := string(a.raw(fork)), string(readFile(t, primary.walFile(fork))); got != want {
				t.Errorf("%s is not the old primary's", fork)
			}
			a.wantVerified(primary)
		})
	}
}

// newFollower makes a standby that streams from another server and archives all
// that it gets.
func newFollower(t *testing.T, v template, backup string, a *archive, from *cluster) *cluster {
	t.Helper()
	c := clusterFrom(t, v.version, backup)
	c.archiveTo(a)
	c.restoreFrom(a)
	c.set("archive_mode = always", "recovery_target_timeline = latest", fmt.Sprintf("primary_conninfo = 'host=%s user=postgres'", from.dir))
	c.signalFile("standby.signal")
	c.start()
	eventually(t, "it streams", func() bool { return from.sql("SELECT count(*) FROM pg_stat_replication") == "1" })
	return c
}

// forkOf is the segment in which timeline 1 was left.
func forkOf(t *testing.T, a *archive) string {
	t.Helper()
	eventually(t, "the history is archived", func() bool { _, err := os.Stat(a.stored("00000002.history")); return err == nil })
	fields := strings.Fields(string(a.raw("00000002.history")))
	lsn := parseLSN(t, fields[1])
	return fmt.Sprintf("00000001%08X%08X", lsn>>32, lsn&0xFFFFFFFF>>20)
}

// marked tells whether a file has an archive status.
func (c *cluster) marked(name, mark string) bool {
	_, err := os.Stat(filepath.Join(c.data, "pg_wal", "archive_status", name+mark))
	return err == nil
}

// TestStraysOfAnInterruptedPromotion: a promotion that is stopped before it has
// written the history leaves a segment of a timeline that never began: the
// beginning of one, or nothing but zeros. Archiving goes on, and nobody takes
// the timeline for real.
func TestStraysOfAnInterruptedPromotion(t *testing.T) {
	t.Parallel()
	for _, v := range []template{{13, 1}, {15, 1}, {18, 1}} {
		for _, boundary := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d boundary %v", v.version, boundary), func(t *testing.T) {
				t.Parallel()
				c, a := interrupted(t, v, boundary)
				strays := glob(t, c.data, "pg_wal", "00000002????????????????")
				if len(strays) == 0 {
					t.Fatal("the promotion left no segment of timeline 2")
				}
				c.set("max_wal_size = 2MB", "min_wal_size = 2MB", "wal_keep_size = 0")
				c.launch()
				c.waitOpened()
				stray := filepath.Base(strays[0])
				eventually(t, "the stray is marked to be archived", func() bool {
					fillLedger(c, 3)
					c.sql("CHECKPOINT; SELECT pg_switch_wal()")
					return c.marked(stray, ".ready") || c.marked(stray, ".done") || len(glob(t, strays[0])) == 0
				})
				c.waitArchived()
				if failed := c.sql("SELECT failed_count FROM pg_stat_archiver"); failed != "0" {
					t.Errorf("archive_command failed %s times:\n%s", failed, c.logged())
				}
				if _, err := os.Stat(a.stored(stray)); err == nil {
					t.Errorf("%s is stored under its full name", stray)
				}
				config := c.configure([]*archive{a})
				r := run(home.command(home.applet("restore_command"), "-C", config, "00000002.history", filepath.Join(c.dir, "RECOVERYHISTORY")))
				if r.status != 1 {
					t.Errorf("the history of a timeline that never began: want 1: %s", r)
				}
				a.wantVerified(c)
			})
		}
	}
}

// interrupted makes a standby whose promotion was stopped between the removal of
// standby.signal and the history: in the middle of a segment, or, fed from the
// archive alone, at the beginning of one.
func interrupted(t *testing.T, v template, boundary bool) (*cluster, *archive) {
	t.Helper()
	primary := newCluster(t, v.version, v.segmentMB)
	a := newArchive(t, primary)
	primary.archiveTo(a)
	primary.start()
	primary.sql("CREATE TABLE ledger (id int, pad text)")
	backup := primary.backup()
	fillLedger(primary, 4)
	primary.switchWAL()
	c := clusterFrom(t, v.version, backup)
	c.archiveTo(a)
	c.restoreFrom(a)
	script := filepath.Join(c.dir, "restore")
	writeFile(t, script, fmt.Sprintf("#!/bin/sh\n[ $1 = 00000001.history ] && exit 255\nexec %s -C %s/pitr.ini $1 $2\n", home.applet("restore_command"), c.dir))
	check(t, os.Chmod(script, 0o755))
	c.set(fmt.Sprintf("restore_command = '%s %%f %%p'", script))
	if !boundary {
		fillLedger(primary, 1)
		c.set(fmt.Sprintf("primary_conninfo = 'host=%s user=postgres'", primary.dir))
	}
	c.signalFile("standby.signal")
	c.start()
	c.waitLedger(primary.ledger())
	primary.stop()
	c.sql("SELECT pg_promote(false)")
	eventually(t, "the promotion is stopped", func() bool { return !c.running() })
	c.waitExit()
	return c, a
}
