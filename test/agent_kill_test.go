package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledAgentLosesNothing: while pgbench runs, agents are killed, then a call,
// then the far side's sshd, then PostgreSQL itself. Archiving goes on by itself,
// and what the server was told is safe is in the archive as it was sent.
func TestKilledAgentLosesNothing(t *testing.T) {
	t.Parallel()
	c, a := newAgentScene(t)
	stop := c.busy()
	agent := 0
	for range 5 {
		agent = c.waitAgent(agent)
		c.archivesOn(2)
		c.kills(agent)
	}
	c.archivesOn(3)

	agent = c.waitAgent(agent)
	c.killsCall(agent)
	c.archivesOn(3)
	if got := c.waitAgent(); got != agent {
		t.Errorf("a call was killed, and agent %d is now %d", agent, got)
	}

	failed := c.sql("SELECT failed_count FROM pg_stat_archiver")
	back := a.route.stop()
	eventually(t, "the server was told that nothing is archived", func() bool {
		return c.sql("SELECT failed_count FROM pg_stat_archiver") != failed
	})
	back()
	c.archivesOn(3)

	stop()
	c.kill()
	c.start()
	stop = c.busy()
	c.archivesOn(3)
	c.waitAgent()
	stop()
	c.switchWAL()
	if n := a.wantAcknowledged(c); n < 20 {
		t.Errorf("only %d files were archived", n)
	}
	a.wantVerified(c)
	if strings.Contains(c.logged(), "terminating any other active server processes") {
		t.Error("the postmaster has restarted every session")
	}
}

// busy lets pgbench run until stop is called.
func (c *cluster) busy() (stop func()) {
	c.t.Helper()
	pgbench := func(args ...string) *benchProcess {
		cmd := home.command(filepath.Join(debian15, "pgbench"), append([]string{"-h", c.dir, "-U", "postgres"}, append(args, "postgres")...)...)
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		return &benchProcess{cmd.Start, cmd.Wait, func() { _ = cmd.Process.Kill() }}
	}
	if c.sql("SELECT to_regclass('pgbench_accounts') IS NULL") == "t" {
		initial := pgbench("-i", "-q", "-s", "1")
		check(c.t, initial.start())
		check(c.t, initial.wait())
	}
	load := pgbench("-n", "-c", "2", "-T", "3600")
	check(c.t, load.start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = load.wait() // by a signal, or because its server was killed
	}()
	// pgbench alone may be slow on a busy machine: segments end by themselves, too.
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(300 * time.Millisecond):
				_, _ = c.trySQL("SELECT pg_switch_wal()") // the server may be down
			}
		}
	}()
	once := false
	stop = func() {
		if !once {
			once = true
			close(done)
			load.kill()
			<-ended
		}
	}
	c.t.Cleanup(stop)
	return stop
}

type benchProcess struct {
	start, wait func() error
	kill        func()
}

// killsCall kills an archive_command while it waits for an agent, which is stopped
// for that.
func (c *cluster) killsCall(agent int) {
	c.t.Helper()
	check(c.t, syscall.Kill(agent, syscall.SIGSTOP))
	defer func() { check(c.t, syscall.Kill(agent, syscall.SIGCONT)) }()
	before := c.archiverPID()
	var call int
	eventually(c.t, "there is a call", func() bool {
		call = callOf(c.config())
		return call != 0
	})
	check(c.t, syscall.Kill(call, syscall.SIGKILL))
	// Its parent, the archiver, ends by that, and the postmaster starts another.
	eventually(c.t, "there is another archiver", func() bool { return c.archiverPID() != before })
}

// callOf is a running archive_command of a configuration file, or 0.
func callOf(config string) int {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		text, err := os.ReadFile(path)
		args := strings.Split(string(text), "\x00")
		if err != nil || filepath.Base(args[0]) != "archive_command" || !strings.Contains(string(text), config) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			return pid
		}
	}
	return 0
}

// TestStopWithSilentArchive: pg_ctl stop -m fast comes to its end while the archive
// says nothing, with an agent and without.
func TestStopWithSilentArchive(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"auto", "off"} {
		t.Run("agent "+mode, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 15, 1)
			c.hasAgents(newDirectory(t, "g"), mode)
			a := newFarArchive(t, c)
			a.route.timeout = "10s" // as it comes: it is not that which ends a call
			c.archiveTo(a)
			c.start()
			c.switches(2)
			c.waitArchived()
			mend := a.route.goes(silentHost)
			c.switches(3)
			eventually(t, "a call waits", func() bool { return callOf(c.config()) != 0 })

			began := time.Now()
			c.stop()
			const limit = 3*5*time.Second + 5*time.Second
			if took := time.Since(began); took > limit {
				t.Errorf("it took %s, more than %s", took, limit)
			} else {
				t.Log(took)
			}
			eventually(t, "no agent is left", func() bool { return len(agentsLeft(c.dir)) == 0 })
			mend()
			c.start()
			c.waitArchived()
			if n := a.wantAcknowledged(c); n < 5 {
				t.Errorf("only %d files were archived", n)
			}
		})
	}
}

// TestSmartShutdownArchivesWhileClientsStay: a server that was told to stop, and
// waits for a client, archives as ever, also by calls that take their time.
func TestSmartShutdownArchivesWhileClientsStay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 1)
	c.hasAgents(newDirectory(t, "g"), "off")
	a := newFarArchive(t, c)
	a.route.timeout = "30s" // longer than the test: it is not that which ends a call
	c.archiveTo(a)
	c.start()
	c.switches(2)
	c.waitArchived()
	client := c.psql()
	script, err := client.StdinPipe()
	check(t, err)
	check(t, client.Start())
	defer func() { _ = client.Wait() }()
	defer script.Close()
	_, err = io.WriteString(script, "SELECT 1;\n")
	check(t, err)
	eventually(t, "the client is there", func() bool {
		return c.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'") == "2"
	})

	mend := a.route.goes(silentHost)
	c.switches(1)
	call := 0
	eventually(t, "a call waits", func() bool { call = callOf(c.config()); return call != 0 })
	check(t, c.server.cmd.Process.Signal(syscall.SIGTERM))
	time.Sleep(8 * time.Second) // more than a call has in a server that is shutting down
	if !alive(call) {
		t.Errorf("a call was ended while the server lives: %s", c.logged())
	}
	mend()
	_, err = io.WriteString(script, strings.Repeat("SELECT pg_logical_emit_message(true, 'a', 'b'); SELECT pg_switch_wal();\n", 2))
	check(t, err)
	eventually(t, "the client's WAL is archived", func() bool { return len(c.status(".done")) >= 5 })
	c.mustRun()
	check(t, script.Close())
	c.waitExit()
}

// TestDivergedServersWithAgentsNeverMix: two servers are promoted at one place, and
// the agents of both bring WAL into one archive, ahead of their servers. One has
// all of its WAL there; the other one has nothing there after its first conflict.
func TestDivergedServersWithAgentsNeverMix(t *testing.T) {
	t.Parallel()
	v := template{15, 1}
	primary := newCluster(t, v.version, v.segmentMB)
	a := newFarArchive(t, primary)
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
		c.startsAgents()
		c.restoreFrom(a)
		c.archiveTo(a)
		c.set("recovery_target_name = 'fork'", "recovery_target_action = promote")
		c.set("archive_command = ''") // nothing is archived until both are open: they choose the same timeline
		c.signalFile("recovery.signal")
		c.start()
		twins[i] = c
	}
	for _, c := range twins {
		c.waitOpened()
		fillLedger(c, 8)
		c.sql("SELECT pg_switch_wal()")
	}
	for _, c := range twins {
		c.archiveTo(a)
		c.reload()
	}
	eventually(t, "both archivers have come to an end", func() bool {
		return twins[0].archiverIsThrough() && twins[1].archiverIsThrough()
	})
	winner, loser := twins[0], twins[1]
	if winner.refused() {
		winner, loser = loser, winner
	}
	if winner.refused() || !loser.refused() {
		t.Fatalf("refused: %v and %v, want just one", winner.refused(), loser.refused())
	}
	for range 3 { // on, after the conflict
		fillLedger(winner, 2)
		fillLedger(loser, 2)
		winner.switchWAL()
		loser.sql("SELECT pg_switch_wal()")
	}
	wantConflictTold(t, loser)
	winner.wantWhole(a, "00000002")
	for _, c := range twins {
		a.wantAcknowledged(c)
	}
	a.wantVerified(winner)
}

// wantWhole fails unless what the archive has of a timeline is this cluster's, and
// all of it.
func (c *cluster) wantWhole(a *archive, timeline string) {
	c.t.Helper()
	var names []string
	for _, path := range glob(c.t, a.dir, "wal", timeline+"*", timeline+"*") {
		names = append(names, strings.TrimSuffix(filepath.Base(path), ".zst"))
	}
	if done := len(c.status(".done")); len(names) == 0 || done == 0 {
		c.t.Errorf("%d files in the archive, %d of the server", len(names), done)
	}
	for _, name := range names {
		sent, err := os.ReadFile(c.walFile(name))
		if err != nil || string(sent) != string(a.raw(name)) {
			c.t.Errorf("%s in the archive is not that of the server which has won (%v)", name, err)
		}
	}
	for _, name := range c.status(".done") {
		if strings.HasPrefix(name, timeline) {
			if _, err := os.Stat(a.stored(name)); err != nil {
				c.t.Error(fmt.Errorf("%s of the server which has won: %w", name, err))
			}
		}
	}
}
