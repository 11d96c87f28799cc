package test

import (
	"strings"
	"testing"
)

// TestDivergedServersNeverMix: two servers are recovered from one archive to
// one place and promoted, and both archive. What is acknowledged to either is
// in the archive as it was sent, and the one whose WAL is not taken is told.
func TestDivergedServersNeverMix(t *testing.T) {
	t.Parallel()
	v := template{15, 1}
	primary := newCluster(t, v.version, v.segmentMB)
	a := newArchive(t, primary)
	primary.archiveTo(a)
	primary.start()
	primary.sql("CREATE TABLE ledger (id int, pad text)")
	backup := primary.backup()
	fillLedger(primary, 4)
	primary.sql("SELECT pg_create_restore_point('fork')")
	primary.switchWAL()
	primary.stop()

	var twins [2]*cluster
	for i := range twins {
		c := clusterFrom(t, v.version, backup)
		c.archiveTo(a)
		c.restoreFrom(a)
		c.set("recovery_target_name = 'fork'", "recovery_target_action = promote")
		c.set("archive_command = ''") // nothing is archived until both are open: they choose the same timeline
		c.signalFile("recovery.signal")
		c.start()
		twins[i] = c
	}
	for _, c := range twins {
		c.waitOpened()
		fillLedger(c, 8) // the same rows, but not the same transactions' times
		c.sql("SELECT pg_switch_wal()")
	}
	for _, c := range twins {
		c.archiveTo(a)
		c.reload()
	}

	eventually(t, "both archivers have come to an end", func() bool {
		return twins[0].archiverIsThrough() && twins[1].archiverIsThrough()
	})
	for _, c := range twins {
		if a.wantAcknowledged(c) == 0 {
			t.Errorf("nothing was acknowledged")
		}
	}
	winner, loser := twins[0], twins[1]
	if winner.refused() {
		winner, loser = loser, winner
	}
	if winner.refused() || !loser.refused() {
		t.Fatalf("refused: %v and %v, want just one", winner.refused(), loser.refused())
	}
	wantConflictTold(t, loser)
	a.wantVerified(winner)
}

// archiverIsThrough tells whether there is nothing to archive any more, or
// nothing that the archive takes.
func (c *cluster) archiverIsThrough() bool {
	c.t.Helper()
	return c.refused() || len(c.status(".ready")) == 0
}

// refused tells whether the archive has refused a file of this server.
func (c *cluster) refused() bool {
	c.t.Helper()
	return c.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t"
}

// wantConflictTold looks for what a loser is told: by its log, by its
// statistics, and by a file that stays unarchived.
func wantConflictTold(t *testing.T, loser *cluster) {
	t.Helper()
	failed := loser.sql("SELECT last_failed_wal FROM pg_stat_archiver")
	if !strings.HasPrefix(failed, "00000002") {
		t.Errorf("pg_stat_archiver says that %q was refused", failed)
	}
	log := loser.logged()
	for _, want := range []string{failed, "the archive holds another file of this name", "HINT:", "exit code 4"} {
		if !strings.Contains(log, want) {
			t.Errorf("the loser's log does not say %q", want)
		}
	}
	if len(loser.status(".ready")) == 0 {
		t.Error("the loser has nothing left to archive")
	}
}
