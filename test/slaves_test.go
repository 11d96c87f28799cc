package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pitr/test/proxy"
)

// TestSlaveThatWasAwayMissesNothing: of two slaves one is away for 30 segments.
// PostgreSQL never notices, the other slave does not wait for longer than
// ssh_timeout, and the one that comes back gets everything, in order.
func TestSlaveThatWasAwayMissesNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		make func(*testing.T) *slave
		away func(*slave) (back func())
	}{
		{"connection refused", newSlave, func(s *slave) func() {
			s.stop()
			return s.start
		}},
		{"silent", newFarSlave, func(s *slave) func() {
			s.proxy.Set(proxy.Silent())
			return func() { s.proxy.Set(proxy.Plan{}) }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near, far := newSlave(t), tt.make(t)
			s := newShipping(t, 15, []*slave{far, near}, "ssh_timeout: 10", "ssh_timeout: 10\n    queue_wait: 10", "debug: on", "debug: off")
			s.observe()
			s.primary.start()
			s.primary.switchWAL()
			if got := s.alerted(); got[0] != "" {
				t.Errorf("nothing happened, and there are alerts: %q", got)
			}

			back := tt.away(far)
			s.primary.switches(30)
			s.primary.waitArchived()
			if n := len(s.waiting(far)); n < 30 {
				t.Errorf("only %d files wait for the slave that is away", n)
			}
			back()
			eventually(t, "the queue is empty", func() bool {
				s.primary.switches(1)
				s.primary.waitArchived()
				return len(s.waiting(far)) == 0
			})

			s.wantQuick(near, 5*time.Second) // half of ssh_timeout: who waits for the other slave waits longer
			for _, slave := range s.slaves {
				if n := slave.wantAcknowledged(s.primary); n < 32 {
					t.Errorf("%s: only %d files are there", slave.host, n)
				}
				slave.wantInOrder(t, slave.host, s.primary.status(".done"))
			}
			s.wantAlerts(far.host, "WARNING", "OK")
		})
	}
}

// wantQuick fails unless every call succeeded and had its file at a slave soon
// after it began: what the processes need, and what another slave may cost.
func (s *shipping) wantQuick(slave *slave, other time.Duration) {
	s.t.Helper()
	const slack = 1500 * time.Millisecond
	_, at := slave.sofar()
	var longest, calls time.Duration
	for _, c := range s.called() {
		took := at[c.name].Sub(c.began)
		whole := c.ended.Sub(c.began)
		longest, calls = max(longest, took), calls+whole
		if whole >= other && took > whole*3/4 {
			s.t.Errorf("%s: it was on %s after %s of a call of %s: it waited for the other slave", c.name, slave.host, took, whole)
		}
		if c.status != 0 || at[c.name].IsZero() || took > other+slack {
			s.t.Errorf("%s: exit status %d after %s, on %s after %s", c.name, c.status, c.ended.Sub(c.began), slave.host, took)
		}
	}
	s.t.Logf("%d calls took %s; the slave that was there had every file within %s", len(s.called()), calls, longest)
}

// wantAlerts fails unless these alerts were given, for one slave, and no other.
func (s *shipping) wantAlerts(host string, words ...string) {
	s.t.Helper()
	var got []string
	for _, line := range s.alerted() {
		word, _, _ := strings.Cut(line, " ")
		got = append(got, word)
		if !strings.HasPrefix(line, word+" pitr: slave "+host+": ") {
			s.t.Errorf("got alert %q", line)
		}
	}
	if !slices.Equal(got, words) {
		s.t.Errorf("got alerts %q, want %q", s.alerted(), words)
	}
}

// TestOfflineKeepsWAL: state: offline, written into the file while the server
// runs, is refused with status 5, and nothing is lost.
func TestOfflineKeepsWAL(t *testing.T) {
	t.Parallel()
	one := newSlave(t)
	s := newShipping(t, 15, []*slave{one})
	s.observe()
	s.primary.start()
	s.primary.switchWAL()
	before := len(s.called())

	s.change("state: online", "state: offline")
	s.primary.switches(3)
	eventually(t, "the server was refused", func() bool { return len(s.called()) >= before+2 })
	for _, c := range s.called()[before:] {
		if c.status != 5 {
			t.Errorf("%s: got exit status %d, want 5", c.name, c.status)
		}
	}
	waiting := s.primary.status(".ready")
	if len(waiting) != 3 {
		t.Errorf("got %q to be archived, want 3 segments", waiting)
	}
	for _, name := range waiting {
		if _, err := os.Stat(s.primary.walFile(name)); err != nil {
			t.Errorf("the server threw it away: %v", err)
		}
	}
	if queued, came := s.waiting(one), one.wantAcknowledged(s.primary); len(queued) > 0 || came != before {
		t.Errorf("got %q in the queue and %d files on the slave, want nothing new", queued, came)
	}

	s.change("state: offline", "state: online")
	s.primary.switches(1)
	s.primary.waitArchived()
	one.wantInOrder(t, one.host, s.primary.status(".done"))
	if n := one.wantAcknowledged(s.primary); n != before+4 {
		t.Errorf("%d files are on the slave, want %d", n, before+4)
	}
}

// TestQueueThatTakesNothingIsAFailure: the slave is away, and its queue cannot
// take the file either. PostgreSQL is told so, nothing half-written lies there
// under a final name, and when the fault is mended the file is taken.
func TestQueueThatTakesNothingIsAFailure(t *testing.T) {
	t.Parallel()
	one := newSlave(t)
	s := newShipping(t, 15, []*slave{one}, "debug: on", "debug: off\n    queue_min_free: 0")
	s.primary.set("archive_mode = on", "archive_command = 'false'")
	s.primary.start()
	s.primary.switches(12)
	s.primary.stop()
	segments := s.primary.status(".ready")
	one.stop()
	queues := &archive{t: t, dir: s.queues}
	for _, tt := range []struct {
		name, says string
		inject     func(*testing.T, *archive) (mend func())
	}{
		{"missing", "HINT: is the file system of l_archivedir mounted?", moveAway},
		{"read-only directory", "permission denied", forbidWriting},
		{"a file in the folder's place", "not a directory", func(t *testing.T, _ *archive) func() {
			folder := &archive{t: t, dir: filepath.Join(s.queues, one.host)}
			back := moveAway(t, folder)
			writeFile(t, folder.dir, "")
			return func() { check(t, os.Remove(folder.dir)); back() }
		}},
		{"a file in its place", "not a directory", func(t *testing.T, a *archive) func() {
			back := moveAway(t, a)
			writeFile(t, a.dir, "")
			return func() { check(t, os.Remove(a.dir)); back() }
		}},
		{"full disk", "no space left", func(t *testing.T, a *archive) func() {
			mountDisk(t, a)
			return fillDisk(t, a)
		}},
		{"read-only file system", "read-only file system", func(t *testing.T, a *archive) func() {
			check(t, os.RemoveAll(a.dir+".before")) // of the disk that was full
			mountDisk(t, a)
			return remountReadOnly(t, a)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mend := tt.inject(t, queues)
			segment := s.wantTrouble(segments, tt.says)
			mend()
			if r := s.run("-F", filepath.Join("pg_wal", segment)); r.status != 0 {
				t.Errorf("it is mended: %s", r)
			}
			s.wantQueued(one, segment)
		})
	}
}

// wantTrouble offers files until one is refused, which it returns.
func (s *shipping) wantTrouble(segments []string, says string) string {
	s.t.Helper()
	for _, segment := range segments {
		r := s.run("-F", filepath.Join("pg_wal", segment))
		if r.status == 0 {
			s.wantQueued(s.slaves[0], segment) // there was room for it, or it waited already
			continue
		}
		if r.status != 1 || !strings.Contains(r.stderr, says) {
			s.t.Errorf("want status 1 and %q: %s", says, r)
		}
		if left := glob(s.t, s.queues, s.slaves[0].host, segment); len(left) > 0 {
			s.t.Errorf("it was refused, and lies in the queue")
		}
		return segment
	}
	s.t.Fatal("every file was taken")
	return ""
}

func (s *shipping) wantQueued(slave *slave, segment string) {
	s.t.Helper()
	queued := readFile(s.t, filepath.Join(s.queues, slave.host, segment))
	if string(queued) != string(readFile(s.t, s.primary.walFile(segment))) {
		s.t.Errorf("%s is not in the queue as it was sent", segment)
	}
	if left := glob(s.t, s.queues, ".tmp-*"); len(left) > 0 {
		s.t.Errorf("left among the queues: %q", left)
	}
}
