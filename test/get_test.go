package test

import (
	"os"
	"testing"
)

// TestGetPrintsOnlyWhatIsVerified: standard output takes nothing back, so the
// first half of a damaged copy must not stand before the good one.
func TestGetPrintsOnlyWhatIsVerified(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 16)
	first, second := newArchive(t, c), newArchive(t, c)
	c.archiveTo(first, second)
	c.start()
	c.sql("CREATE TABLE ledger (id int, pad text)")
	segment := c.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
	fillLedger(c, 45)
	c.switchWAL()

	stored := readFile(t, first.stored(segment))
	stored[len(stored)*8/10] ^= 1
	check(t, os.WriteFile(first.stored(segment), stored, 0o600))
	r := pitr("wal", "get", "-C", c.configure([]*archive{first, second}), segment, "-")
	if r.status != 0 || r.stdout != string(readFile(t, c.walFile(segment))) {
		t.Errorf("got status %d and %d bytes, want the segment: %s", r.status, len(r.stdout), r.stderr)
	}
	r = pitr("wal", "get", "-C", c.configure([]*archive{first}), segment, "-")
	if r.status != 1 || r.stdout != "" {
		t.Errorf("got status %d and %d bytes of a damaged segment, want 1 and nothing", r.status, len(r.stdout))
	}
}
