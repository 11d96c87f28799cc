//go:build soak

package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soakFor is how long the day lasts; make soak SOAK=5m sets it.
var soakFor = flag.Duration("soak", 5*time.Minute, "how long agents and sshd are killed")

// TestSoakTenThousandFilesWait: a server comes back after a long outage. The last
// thousand of its files are archived as fast as the first thousand, and the agent
// needs no more memory for them.
func TestSoakTenThousandFilesWait(t *testing.T) {
	const files, slice = 10_000, 1_000
	c := newCluster(t, 15, 1)
	c.startsAgents()
	a := newFarArchive(t, c)
	a.route.direct()
	c.archiveTo(a)
	// Nothing of it is removed before it was compared.
	c.set("archive_command = ''", "wal_keep_size = '40GB'", "max_wal_size = '40GB'", "wal_init_zero = off")
	c.start()
	for made := 0; made < files; made += slice {
		c.switches(slice)
	}
	if n := len(c.status(".ready")); n < files {
		t.Fatalf("only %d files wait", n)
	}
	before := c.archived()
	c.archiveTo(a)
	c.reload()
	began := time.Now()
	at := map[int]time.Duration{}
	memory := map[int]int{}
	for _, n := range []int{slice, files - slice, files} {
		for c.archived() < before+n {
			if time.Since(began) > time.Hour {
				t.Fatalf("after an hour %d files are archived", c.archived()-before)
			}
			time.Sleep(20 * time.Millisecond)
		}
		at[n], memory[n] = time.Since(began), residentKB(t, c.waitAgent())
	}
	first, last := slice/at[slice].Seconds(), slice/(at[files]-at[files-slice]).Seconds()
	t.Logf("files a second: %.1f in the beginning, %.1f in the end; the agent's memory: %d kB and %d kB", first, last, memory[slice], memory[files])
	if last < 0.9*first {
		t.Errorf("%.1f files a second in the beginning, %.1f in the end", first, last)
	}
	const slack = 8 << 10
	if memory[files] > memory[slice]+slack {
		t.Errorf("the agent had %d kB after %d files, and %d kB after %d", memory[slice], slice, memory[files], files)
	}
	a.wantAcknowledged(c)
}

// residentKB is what a process has in memory.
func residentKB(t *testing.T, pid int) int {
	t.Helper()
	_, rest, found := strings.Cut(string(readFile(t, fmt.Sprintf("/proc/%d/status", pid))), "VmRSS:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kB, err := strconv.Atoi(number)
	if !found || err != nil {
		t.Fatalf("no VmRSS of %d: %v", pid, err)
	}
	return kB
}

// TestSoakDayOfKills is a bad day in a few minutes: pgbench at full speed, while
// agents and the far side's sshd are killed all the time. In the end everything
// that the server was told is safe is in the archive as it was sent, and a
// recovery from there reaches the last commit.
func TestSoakDayOfKills(t *testing.T) {
	c := newCluster(t, 15, 16)
	c.startsAgents()
	a := newFarArchive(t, c)
	a.route.direct()
	c.archiveTo(a)
	c.set("wal_keep_size = '40GB'", "max_wal_size = '8GB'", "checkpoint_timeout = 60s")
	c.start()
	pgbench := filepath.Join(debian15, "pgbench")
	if r := run(home.command(pgbench, "-h", c.dir, "-U", "postgres", "-i", "-q", "-s", "20", "postgres")); r.status != 0 {
		t.Fatal(r)
	}
	c.switchWAL()
	backup := c.backup()

	load := home.command(pgbench, "-h", c.dir, "-U", "postgres", "-n", "-c", "4", "-T", strconv.Itoa(int(soakFor.Seconds())), "postgres")
	load.SysProcAttr.Pdeathsig = syscall.SIGKILL
	ended := make(chan result, 1)
	go func() { ended <- run(load) }()
	seed := uint64(time.Now().UnixNano())
	kills := killer{cluster: c, archive: a, random: rand.New(rand.NewPCG(seed, 0))}
	t.Logf("seed %d", seed)
	if r := kills.until(ended); r.status != 0 {
		t.Fatal(r)
	}
	t.Logf("%d agents and %d sshd were killed; %s", kills.agents, kills.hosts, c.sql("SELECT archived_count || ' files were archived, ' || failed_count || ' calls failed' FROM pg_stat_archiver"))
	if kills.agents == 0 || kills.hosts == 0 {
		t.Error("too few kills")
	}

	eventuallyWithin(t, 5*time.Minute, "everything is archived", func() bool { return len(c.status(".ready")) == 0 })
	c.sql("SELECT pg_switch_wal()")
	eventuallyWithin(t, 5*time.Minute, "the last segment is archived", func() bool { return len(c.status(".ready")) == 0 })
	history := c.sql("SELECT count(*), sum(delta) FROM pgbench_history")
	c.stop()
	if n := a.wantAcknowledged(c); n < 10 {
		t.Errorf("only %d files were archived", n)
	}
	a.wantVerified(c)

	r := clusterFrom(t, 15, backup)
	r.restoreFrom(a)
	r.set("archive_mode = off")
	r.signalFile("recovery.signal")
	r.start()
	eventuallyWithin(t, 15*time.Minute, "the recovery is at its end", func() bool {
		r.mustRun()
		out, err := r.trySQL("SELECT pg_is_in_recovery()")
		return err == nil && out == "f"
	})
	if got := r.sql("SELECT count(*), sum(delta) FROM pgbench_history"); got != history {
		t.Errorf("the recovery has history %s, and the server had %s", got, history)
	}
}

// killer kills agents, calls and hosts at random.
type killer struct {
	*cluster
	*archive
	random *rand.Rand

	agents, hosts int
}

func (k *killer) until(ended <-chan result) result {
	for {
		select {
		case r := <-ended:
			return r
		case <-time.After(time.Duration(500+k.random.IntN(3500)) * time.Millisecond):
		}
		if k.random.IntN(4) > 0 {
			for _, a := range agentsLeft(k.cluster.dir) {
				if syscall.Kill(a.pid, syscall.SIGKILL) == nil {
					k.agents++
				}
			}
			continue
		}
		k.hosts++
		back := k.route.stop()
		time.Sleep(time.Duration(k.random.IntN(1500)) * time.Millisecond)
		back()
	}
}

func eventuallyWithin(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain until %s", limit, what)
		}
	}
}

// TestSoakSlaveIsAwayForTwoHundredSegments: see TestAgentEmptiesQueues.
func TestSoakSlaveIsAwayForTwoHundredSegments(t *testing.T) {
	wantQueueEmptied(t, 200, newSlave, (*slave).goesDown)
}
