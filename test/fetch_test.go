package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRestoreExitCodesThroughAFetcher is the table of docs/exit-codes.md where a
// fetcher asks the archive: not one status is another one.
func TestRestoreExitCodesThroughAFetcher(t *testing.T) {
	t.Parallel()
	p := newPast(t)
	for _, f := range faults() {
		f.fetcher = true
		t.Run(f.form+"/"+f.name, func(t *testing.T) { t.Parallel(); wantStatuses(t, newScene(t, p, f), f) })
	}
}

// runFetcher starts a fetcher as a service, and returns what ends it.
func (c *cluster) runFetcher(options ...string) (stop func()) {
	c.t.Helper()
	cmd := home.command(home.pitr, append([]string{"agent", "fetch", "--data", c.data, "-C", c.config()}, options...)...)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var said strings.Builder
	cmd.Stderr = &said
	check(c.t, cmd.Start())
	eventually(c.t, "there is a fetcher", func() bool { return c.agentStatus().Fetcher.Running })
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("the fetcher ended: %v: %s", err, said.String())
		}
	}
}

// waitFetcher waits until a fetcher is there that is none of those before.
func (c *cluster) waitFetcher(before ...int) int {
	c.t.Helper()
	pid := 0
	eventually(c.t, "there is a fetcher", func() bool {
		pid = c.agentStatus().Fetcher.PID
		for _, b := range before {
			if b == pid {
				return false
			}
		}
		return pid != 0
	})
	return pid
}

// wantNoTrace fails if something of a fetcher lies about in pg_wal.
func (c *cluster) wantNoTrace() {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.data, "pg_wal"))
	check(c.t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() && e.Name() != "archive_status" && e.Name() != "summaries" {
			c.t.Errorf("pg_wal has %s", e.Name())
		}
	}
}

// newReplica restores a backup that reads ahead. It is not started.
func newReplica(t *testing.T, v template, backup string, a *archive, signal string, lines ...string) *cluster {
	t.Helper()
	c := clusterFrom(t, v.version, backup)
	c.startsAgents()
	c.restoreFrom(a, "restore_retry = 20s")
	c.set("archive_mode = off", "hot_standby = on")
	c.set(lines...)
	c.signalFile(signal)
	return c
}

// TestFetcherIsNobodysBurden: the first call starts a fetcher, which has nothing of
// PostgreSQL's. It is killed, is told to end, sleeps, is of yesterday's
// configuration: the recovery goes on, and ends with every row.
func TestFetcherIsNobodysBurden(t *testing.T) {
	t.Parallel()
	p := newPast(t)
	for _, form := range []string{"tree", "flat"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			a := p.archives[form].copyFor(t)
			a.route = newRoute(t)
			c := newReplica(t, template{pastVersion, pastSegmentMB}, p.backup, a, "standby.signal", held)
			c.start()
			first := c.waitFetcher()
			eventually(t, "segments are ready", func() bool { return c.agentStatus().Fetcher.Held > 2 })
			c.wantNoTrace()
			id := fmt.Sprint(first)
			if fields := statOf(first); fields[2] != id || fields[3] != id {
				t.Errorf("its process group is %s and its session %s, want its own, %s", fields[2], fields[3], id)
			}
			for fd, file := range descriptors(t, first) {
				if strings.Contains(file, c.log) || len(fd) == 1 && fd < "3" && file != "/dev/null" {
					t.Errorf("its descriptor %s is %s", fd, file)
				}
			}
			c.kills(first)
			c.goOn()
			second := c.waitFetcher(first)
			c.waitLedger(p.rows)

			t.Log("no answer")
			check(t, syscall.Kill(second, syscall.SIGSTOP))
			eventually(t, "the call does without it", func() bool { return strings.Contains(c.logged(), "the fetcher does not answer") })
			check(t, syscall.Kill(second, syscall.SIGCONT))

			t.Log("another configuration")
			c.restoreFrom(a, "restore_retry = 19s")
			third := c.waitFetcher(second)
			c.waitGone(second)

			t.Log("told to end")
			if r := pitr(c.agentTool("stop")...); r.status != 0 || !strings.Contains(r.stdout, "the fetcher has ended") {
				t.Errorf("pitr agent stop: %s", r)
			}
			c.waitGone(third)
			fourth := c.waitFetcher(third)
			c.stop()
			c.waitGone(fourth)
			c.wantNoTrace()
		})
	}
}

// TestAnotherRestoreInTheSamePlace: what a fetcher holds for one recovery is not for
// the next one, of the same cluster or of another one.
func TestAnotherRestoreInTheSamePlace(t *testing.T) {
	t.Parallel()
	p := newPast(t)
	a := p.archives["tree"].copyFor(t)
	c := newReplica(t, template{pastVersion, pastSegmentMB}, p.backup, a, "standby.signal", held)
	c.start()
	eventually(t, "segments are ready", func() bool { return c.agentStatus().Fetcher.Held > 2 })
	first := c.waitFetcher()
	c.kill()

	again := func(backup string, lines ...string) {
		check(t, os.RemoveAll(c.data))
		copyTree(t, backup, c.data)
		c.set("archive_mode = off", "hot_standby = on")
		c.restoreFrom(a, "restore_retry = 20s")
		c.set(lines...)
		c.signalFile("recovery.signal")
	}
	// Its directory is away for too short a time to be noticed.
	check(t, syscall.Kill(first, syscall.SIGSTOP))
	again(p.backup)
	check(t, syscall.Kill(first, syscall.SIGCONT))
	c.start()
	c.waitOpened()
	if got := c.ledger(); got != p.rows {
		t.Errorf("got %d rows, want %d", got, p.rows)
	}
	c.stop()

	other := newForeignCluster(t, pastVersion, pastSegmentMB)
	b := newArchive(t, other)
	other.archiveTo(b)
	other.start()
	other.sql("CREATE TABLE ledger (id int, pad text)")
	backup := other.backup()
	commits := fillLedger(other, 3)
	other.switchWAL()
	other.stop()
	stop := c.runFetcher("--after", p.segments[0]) // of the first cluster
	eventually(t, "segments are ready", func() bool { return c.agentStatus().Fetcher.Held > 2 })
	check(t, os.Rename(a.dir, a.dir+".old"))
	check(t, os.Rename(b.dir, a.dir))
	again(backup)
	c.start()
	c.waitOpened()
	if got, want := c.ledger(), commits[len(commits)-1].rows; got != want {
		t.Errorf("another cluster: got %d rows, want %d", got, want)
	}
	stop()
}

// TestNoFetcherIsLeftToProcessOne: where the postmaster is process 1, as in a
// container, a fetcher would become its child. Calls do without, or use one that
// somebody else runs, whose death nobody notices.
func TestNoFetcherIsLeftToProcessOne(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs a PID namespace: run it as root, as CI does")
	}
	p := newPast(t)
	a := p.archives["tree"].copyFor(t)
	c := newReplica(t, template{pastVersion, pastSegmentMB}, p.backup, a, "standby.signal")
	stop := c.launchAsProcessOne()
	defer stop()
	c.waitLedger(p.rows)
	if left := agentsLeft(c.dir); len(left) > 0 || c.agentStatus().Fetcher.Running {
		t.Errorf("a fetcher was started: %v", left)
	}
	began := c.sql("SELECT pg_postmaster_start_time()")
	asked := func() bool { return c.agentStatus().Fetcher.Asked > 0 }
	c.runFetcher()
	eventually(t, "it is asked", asked)
	c.kills(c.waitFetcher())
	defer c.runFetcher()()
	eventually(t, "the standby asks on", asked)
	if now := c.sql("SELECT pg_postmaster_start_time()"); now != began {
		t.Errorf("the server began at %s, and now at %s", began, now)
	}
}
