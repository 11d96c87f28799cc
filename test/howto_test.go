package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHowTo is the how-to of pitrtools, with its own configuration: a primary
// ships to a slave with cmd_archiver, and a warm standby there lives from what
// it gets, through pg_standby, until it is told to take over.
func TestHowTo(t *testing.T) {
	t.Parallel()
	for _, version := range []int{13, 15} {
		t.Run(fmt.Sprint("PostgreSQL ", version), func(t *testing.T) {
			t.Parallel()
			one := newSlave(t)
			s := newShipping(t, version, []*slave{one})
			primary := s.primary
			primary.set("archive_mode = on", "archive_command = '"+s.command()+"'")
			primary.start()
			primary.sql("CREATE TABLE ledger (id int, pad text)")
			backup := primary.backup()

			standby := clusterFrom(t, version, backup)
			trigger := filepath.Join(standby.dir, "trigger")
			standby.set("archive_mode = off", "hot_standby = on", fmt.Sprintf("restore_command = '%s -d -s 1 -t %s %s %%f %%p'",
				home.applet("pg_standby"), trigger, one.dir))
			if version >= 15 {
				// The server reads ahead, and would keep the last records of a segment
				// to itself until the next one is there.
				standby.set("recovery_prefetch = off")
			}
			standby.signalFile("recovery.signal")
			fillLedger(primary, 10)
			primary.switchWAL()
			rows := primary.ledger()
			standby.start()
			standby.waitLedger(rows)

			fillLedger(primary, 10)
			primary.switchWAL()
			rows = primary.ledger()
			standby.waitLedger(rows)
			writeFile(t, trigger, "smart")
			standby.waitOpened()
			if got := standby.ledger(); got != rows {
				t.Errorf("the standby took over with %d rows, want %d", got, rows)
			}
			if n := one.wantAcknowledged(primary); n < 5 {
				t.Errorf("only %d files were archived", n)
			}
			if _, err := os.Stat(filepath.Join(one.dir, "archive.json")); err != nil {
				t.Error(err)
			}
			if r := s.run(); r.status == 2 || !strings.Contains(r.stdout, "queue of "+one.host+": empty") {
				t.Errorf("cmd_archiver -C finds fault with what works: %s", r)
			}
			if got := s.alerted(); len(got) != 1 || got[0] != "" {
				t.Errorf("nothing happened, and there are alerts: %q", got)
			}
		})
	}
}
