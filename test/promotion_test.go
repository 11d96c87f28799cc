package test

import (
	"fmt"
	"strings"
	"testing"
)

// TestPromotionWithoutTheArchive: a standby on timeline 2 is promoted while the
// archive is away. PostgreSQL asks for the history of timeline 2 after it has
// removed standby.signal; were it stopped there, it would open timeline 2
// itself at the next start.
func TestPromotionWithoutTheArchive(t *testing.T) {
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
			before := primary.ledger()
			primary.stop()

			first := newStandby(t, v, backup, a)
			first.waitLedger(before)
			first.sql("SELECT pg_promote()")
			first.waitOpened()
			fillLedger(first, 2)
			first.switchWAL()
			rows := first.ledger()

			second := newStandby(t, v, backup, a)
			second.waitLedger(rows)
			mend := moveAway(t, a)
			second.sql("SELECT pg_promote(false)")
			second.waitOpened()
			if got := second.ledger(); got != rows {
				t.Errorf("got %d rows, want %d", got, rows)
			}
			second.sql("CHECKPOINT")
			if got := second.sql("SELECT timeline_id FROM pg_control_checkpoint()"); got != "3" {
				t.Errorf("got timeline %s, want 3", got)
			}
			if strings.Contains(second.logged(), "FATAL:  could not restore") {
				t.Error("the promotion was stopped")
			}
			mend()
		})
	}
}
