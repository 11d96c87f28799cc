package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStory is continuous archiving from end to end on every version: a
// primary archives, a standby follows it through the archive, recoveries stop
// where they are told to, the primary dies, the standby takes over, and another
// standby follows it onto the new timeline.
func TestStory(t *testing.T) {
	t.Parallel()
	for _, v := range []template{{13, 16}, {14, 16}, {15, 16}, {16, 16}, {17, 16}, {18, 16}, {18, 1}, {18, 64}} {
		t.Run(fmt.Sprintf("PostgreSQL %d with %d MB", v.version, v.segmentMB), func(t *testing.T) {
			t.Parallel()
			tellStory(t, v)
		})
	}
}

func tellStory(t *testing.T, v template) {
	primary := newCluster(t, v.version, v.segmentMB)
	a := newArchive(t, primary)
	primary.archiveTo(a)
	primary.start()
	primary.sql(`CREATE TABLE ledger (id int, pad text);
		INSERT INTO ledger SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i`)
	backup := primary.backup()

	standby := newStandby(t, v, backup, a)
	targets := primary.liveOn()
	primary.switchWAL()
	standby.waitLedger(targets[len(targets)-1].rows + 1)
	if r := pitr("check", "-C", primary.configure([]*archive{a})); r.status == 2 {
		t.Errorf("pitr check finds fault with an archive in order: %s", r)
	}

	t.Run("recoveries", func(t *testing.T) {
		for _, target := range targets {
			t.Run(target.setting, func(t *testing.T) { t.Parallel(); wantTarget(t, v, backup, a, target) })
		}
	})

	primary.sql("INSERT INTO ledger VALUES (0, 'not archived any more')")
	rows := primary.ledger()
	primary.kill()
	standby.takeUnarchived(primary)
	standby.waitLedger(rows)
	standby.sql("SELECT pg_promote()")
	standby.waitOpened()
	standby.sql("INSERT INTO ledger VALUES (-1, 'on timeline 2')")
	standby.switchWAL()
	wantArchivedKinds(t, a)
	a.wantAcknowledged(standby)

	follower := newStandby(t, v, backup, a)
	follower.waitLedger(rows + 1)
	a.wantVerified(standby)
}

// target is a place to stop a recovery at, and what is to be seen there.
type target struct {
	setting string
	rows    int
}

// liveOn commits one row at a time and notes, between two commits, the places
// that a recovery can be told to stop at.
func (c *cluster) liveOn() []target {
	c.t.Helper()
	var all []target
	note := func(name, query string) {
		c.sql("INSERT INTO ledger VALUES (0, '')")
		all = append(all, target{fmt.Sprintf("recovery_target_%s = '%s'", name, c.sql(query)), c.ledger()})
	}
	note("lsn", "SELECT pg_current_wal_insert_lsn()")
	note("time", "SELECT clock_timestamp()")
	note("name", "SELECT 'here' FROM pg_create_restore_point('here')")
	c.sql("INSERT INTO ledger VALUES (0, 'after all of them')")
	return all
}

func wantTarget(t *testing.T, v template, backup string, a *archive, target target) {
	c := clusterFrom(t, v.version, backup)
	c.set("archive_mode = off", "recovery_target_action = promote", target.setting)
	c.restoreFrom(a)
	c.signalFile("recovery.signal")
	c.start()
	c.waitOpened()
	if got := c.ledger(); got != target.rows {
		t.Errorf("%s: got %d rows, want %d", target.setting, got, target.rows)
	}
}

// newStandby starts a standby that lives from the archive alone and will
// archive into it when it is promoted.
func newStandby(t *testing.T, v template, backup string, a *archive) *cluster {
	t.Helper()
	c := clusterFrom(t, v.version, backup)
	c.archiveTo(a)
	c.restoreFrom(a)
	c.signalFile("standby.signal")
	c.start()
	return c
}

// takeUnarchived copies the WAL that a dead primary did not get archived.
func (c *cluster) takeUnarchived(primary *cluster) {
	c.t.Helper()
	done := primary.status(".done")
	for _, path := range glob(c.t, primary.data, "pg_wal", "0*") {
		if name := filepath.Base(path); len(name) == 24 && !slices.Contains(done, name) {
			aside := filepath.Join(c.dir, name)
			copyTree(c.t, path, aside)
			check(c.t, os.Rename(aside, c.walFile(name))) // whole, or not there
		}
	}
}

func (c *cluster) waitLedger(rows int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("the standby has %d rows", rows), func() bool {
		c.mustRun()
		return c.ledger() == rows
	})
	if !c.recovering() {
		c.t.Error("the standby was promoted")
	}
}

// wantArchivedKinds makes sure that every kind of file is in the archive, so
// that what is said of all of them is said of each.
func wantArchivedKinds(t *testing.T, a *archive) {
	t.Helper()
	kinds := map[string]bool{}
	check(t, filepath.WalkDir(filepath.Join(a.dir, "wal"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name := strings.TrimSuffix(d.Name(), ".zst")
			kinds[filepath.Ext(name)] = true
		}
		return err
	}))
	for _, kind := range []string{"", ".history", ".partial", ".backup"} {
		if !kinds[kind] {
			t.Errorf("there is no file %q in the archive", "*"+kind)
		}
	}
}

// TestStockToolsReadEveryKind: zstd -d of every stored kind of file is what
// PostgreSQL sent.
func TestStockToolsReadEveryKind(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 1)
	a := newArchive(t, c)
	c.archiveTo(a)
	c.start()
	c.sql("CREATE TABLE ledger AS SELECT repeat('x', 800) pad FROM generate_series(1, 3000)")
	backup := c.backup()
	c.switchWAL()
	c.sql("CHECKPOINT")
	sent := slices.Concat(c.status(".done"))
	if a.wantAcknowledged(c) < 4 {
		t.Fatalf("only %q were archived", sent)
	}
	d := newStandby(t, template{15, 1}, backup, a)
	d.waitLedger(3000)
	c.sql("INSERT INTO ledger VALUES ('not archived any more')")
	c.kill()
	d.takeUnarchived(c)
	d.waitLedger(3001)
	d.sql("SELECT pg_promote()")
	d.waitOpened()
	d.waitArchived()
	a.wantAcknowledged(d)
	wantArchivedKinds(t, a)
	sent = append(sent, d.status(".done")...)
	for _, kind := range []string{".history", ".partial", ".backup", ""} {
		if !slices.ContainsFunc(sent, func(name string) bool { return filepath.Ext(name) == kind }) {
			t.Errorf("no file %q was compared", "*"+kind)
		}
	}
}
