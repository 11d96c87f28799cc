package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// retry is restore_retry in these tests: faults here do not pass by themselves. An
// answer that is none of doubt takes as long as a busy machine needs for it.
func (s *scene) retry(f fault) string {
	switch {
	case f.answer != doubt:
		return "restore_retry = 20s"
	case s.route != nil:
		return "restore_retry = 2s"
	}
	return "restore_retry = 1s"
}

// TestRestoreExitCodes is the table of docs/exit-codes.md on live servers: no
// fault of the archive opens a database early, none brings a standby down, and
// when it is mended every row is there.
func TestRestoreExitCodes(t *testing.T) {
	t.Parallel()
	p := newPast(t)
	if n := p.rowsUntil(p.middle); n == 0 || n == p.rows {
		t.Fatalf("the test is wrong: %d of %d rows lie before the middle", n, p.rows)
	}
	for _, f := range faults() {
		t.Run(f.form+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			t.Run("statuses", func(t *testing.T) { t.Parallel(); wantStatuses(t, newScene(t, p, f), f) })
			t.Run("recovery", func(t *testing.T) { t.Parallel(); wantRecovery(t, newScene(t, p, f), f) })
			t.Run("standby", func(t *testing.T) { t.Parallel(); wantStandby(t, newScene(t, p, f), f) })
		})
	}
	// These prove the test itself: a plain copy loses rows, and it notices.
	for _, name := range []string{"gap", "zeroed", "archive missing"} {
		t.Run("cp opens early/"+name, func(t *testing.T) { t.Parallel(); wantEarlyOpening(t, p, name) })
	}
}

// wantStatuses runs restore_command by itself, as PostgreSQL would: for the
// segment, and for the history that it asks for to see whether there is a newer
// timeline.
func wantStatuses(t *testing.T, s *scene, f fault) {
	f.inject(s)
	history := absent
	if f.whole {
		history = doubt
	}
	for _, mode := range []struct {
		signal string
		status map[answer]int
	}{
		{"recovery.signal", map[answer]int{present: 0, absent: 1, doubt: 255}},
		{"standby.signal", map[answer]int{present: 0, absent: 1, doubt: 1}},
		{"", map[answer]int{present: 0, absent: 1, doubt: 255}}, // as under pg_rewind
	} {
		c := likeness(t, s.backup)
		if mode.signal != "" {
			c.signalFile(mode.signal)
		}
		if f.fetcher {
			c.hasAgents(newDirectory(t, "g"), "external")
		}
		c.configure([]*archive{s.archive}, append(f.config, s.retry(f))...)
		if f.fetcher {
			defer c.runFetcher()()
		}
		c.wantStatus(s, f.ask(s.past), f.answer, mode.status[f.answer])
		c.wantStatus(s, "00000002.history", history, mode.status[history])
		if asked := c.agentStatus().Fetcher.Asked; f.fetcher && asked < 2 {
			t.Errorf("the fetcher was asked %d times", asked)
		}
	}
}

// wantStatus runs restore_command for one file.
func (c *cluster) wantStatus(s *scene, name string, answer answer, status int) {
	c.t.Helper()
	const target = "RECOVERYXLOG"
	cmd := home.command(home.applet("restore_command"), "-C", filepath.Join(c.dir, "pitr.ini"), name, filepath.Join("pg_wal", target))
	cmd.Dir = c.data
	r := run(cmd)
	if r.status != status {
		c.t.Errorf("got status %d, want %d: %s", r.status, status, r)
	}
	restored, err := os.ReadFile(c.walFile(target))
	switch {
	case answer == present && !bytes.Equal(restored, s.archive.raw(name)):
		c.t.Errorf("%d bytes were restored that are not %s (%v)", len(restored), name, err)
	case answer != present && err == nil:
		c.t.Errorf("there is a file, although the answer was no: %s", r)
	case answer == doubt && r.stderr == "":
		c.t.Errorf("not a word about the fault: %s", r)
	}
	check(c.t, os.RemoveAll(c.walFile(target)))
}

// likeness is what restore_command sees of a data directory, and no more.
func likeness(t *testing.T, backup string) *cluster {
	t.Helper()
	c := emptyCluster(t, pastVersion)
	for _, dir := range []string{"", "global", "pg_wal"} {
		path := filepath.Join(c.data, dir)
		check(t, os.Mkdir(path, 0o700))
		check(t, home.give(path))
	}
	for _, file := range []string{"PG_VERSION", "global/pg_control"} {
		writeFile(t, filepath.Join(c.data, file), string(readFile(t, filepath.Join(backup, file))))
	}
	return c
}

// wantRecovery lets a recovery without a target run into the fault.
func wantRecovery(t *testing.T, s *scene, f fault) {
	c := s.heldServer(f, "recovery.signal")
	mend := f.inject(s)
	c.goOn()

	rows := s.rows
	switch f.answer {
	case absent:
		rows = s.rowsUntil(s.middle)
	case doubt:
		c.wantRefusal(f.noticedAt(s.past))
		mend()
		c.launch()
	}
	c.waitOpened()
	if got := c.ledger(); got != rows {
		t.Errorf("got %d rows, want %d", got, rows)
	}
	// PostgreSQL writes the checkpoint of the new timeline before it opens.
	if got := c.control("Latest checkpoint's TimeLineID"); got != "2" {
		t.Errorf("got timeline %s, want 2", got)
	}
}

// wantStandby lets a standby run into the fault.
func wantStandby(t *testing.T, s *scene, f fault) {
	c := s.heldServer(f, "standby.signal")
	mend := f.inject(s)
	c.goOn()

	if f.answer != present {
		refused := refusal(f.noticedAt(s.past), 1)
		eventually(t, "the standby has asked three times", func() bool {
			c.mustRun()
			return len(refused.FindAllString(c.logged(), -1)) >= 3
		})
		if got, want := c.ledger(), s.rowsUntil(f.ask(s.past)); got > want {
			t.Errorf("got %d rows during the fault, want no more than %d", got, want)
		}
		mend()
	}
	eventually(t, "the standby has caught up", func() bool {
		c.mustRun()
		return c.ledger() == s.rows
	})
	if !c.recovering() {
		t.Error("the standby was promoted")
	}
	if strings.Contains(c.logged(), "FATAL") {
		t.Error("there is a FATAL in the standby's log")
	}
}

// wantEarlyOpening shows what the same fault does with cp as restore_command.
func wantEarlyOpening(t *testing.T, p *past, name string) {
	for _, f := range faults() {
		if f.name != name {
			continue
		}
		f.form = "flat"
		s := newScene(t, p, f)
		c := s.heldServer(f, "recovery.signal", fmt.Sprintf("restore_command = 'cp %s/%%f %%p'", s.archive.dir))
		f.inject(s)
		c.goOn()
		c.waitOpened()
		if got := c.ledger(); got >= s.rows {
			t.Errorf("cp lost nothing: %d of %d rows", got, s.rows)
		}
		return
	}
	t.Fatalf("there is no fault %q", name)
}

// heldServer is a restored server that is consistent and holds still before
// the first commit after the backup. What happens to the archive now happens in
// the middle of its recovery.
func (s *scene) heldServer(f fault, signal string, lines ...string) *cluster {
	s.t.Helper()
	c := clusterFrom(s.t, pastVersion, s.backup)
	c.set("archive_mode = off", "hot_standby = on", "log_min_messages = debug2", held)
	if f.fetcher {
		c.startsAgents("prefetch = 1MB") // what it holds already is in nobody's way
	}
	c.restoreFrom(s.archive, append(f.config, s.retry(f))...)
	c.set(lines...)
	c.signalFile(signal)
	c.start()
	if got := c.ledger(); got != 0 {
		s.t.Fatalf("the test is wrong: there are %d rows, the server does not hold still", got)
	}
	return c
}

// held stops replay at the first commit once the server is consistent.
const held = "recovery_min_apply_delay = '10d'"

// goOn ends what held began.
func (c *cluster) goOn() {
	c.t.Helper()
	c.set("recovery_min_apply_delay = 0")
	c.reload()
}

// ledger counts the rows. It is -1 while the server cannot be asked.
func (c *cluster) ledger() int {
	out, err := c.trySQL("SELECT count(*) FROM ledger")
	var n int
	if _, e := fmt.Sscan(out, &n); err != nil || e != nil {
		return -1
	}
	return n
}

// waitOpened waits until the server has ended its recovery.
func (c *cluster) waitOpened() {
	c.t.Helper()
	eventually(c.t, "the database is open", func() bool {
		c.mustRun()
		out, err := c.trySQL("SELECT pg_is_in_recovery()")
		return c.ready() && err == nil && out == "f"
	})
}

// wantRefusal waits until the recovery has given up because of this segment,
// and makes sure that it did not open the database.
func (c *cluster) wantRefusal(segment string) {
	c.t.Helper()
	eventually(c.t, "recovery stops", func() bool {
		if out, err := c.trySQL("SELECT pg_is_in_recovery()"); err == nil && out == "f" {
			c.t.Fatalf("the database was opened early, with %d rows", c.ledger())
		}
		return !c.running()
	})
	if code := c.waitExit(); code == 0 {
		c.t.Errorf("the postmaster ended with status 0")
	}
	if !refusal(segment, 255).MatchString(c.logged()) {
		c.t.Errorf("the log does not say that restore_command of %s gave 255", segment)
	}
	if got := c.control("Latest checkpoint's TimeLineID"); got != "1" {
		c.t.Errorf("got timeline %s, want 1", got)
	}
	if got := c.control("Database cluster state"); got != "in archive recovery" {
		c.t.Errorf("got a cluster %q", got)
	}
	if _, err := os.Stat(filepath.Join(c.data, "recovery.signal")); err != nil {
		c.t.Error(err)
	}
}

// refusal finds what the server logs when restore_command of a segment ends
// with a status: at DEBUG2 up to 125, as FATAL above.
func refusal(segment string, status int) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`could not restore file "%s" from archive: child process exited with exit code %d\b`, segment, status))
}
