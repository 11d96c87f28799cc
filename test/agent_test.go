package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startsAgents lets the calls of a cluster start an agent, in a place of its own.
// More lines of its configuration may follow. What is started ends with the test.
func (c *cluster) startsAgents(lines ...string) {
	c.t.Helper()
	c.hasAgents(newDirectory(c.t, "g"), "auto", lines...)
}

func (c *cluster) hasAgents(dir, mode string, lines ...string) {
	c.t.Helper()
	c.agent = append([]string{"agent = " + mode, "agent_dir = " + dir}, lines...)
	c.t.Cleanup(func() {
		c.kill()
		for _, a := range agentsLeft(c.dir) {
			_ = syscall.Kill(a.pid, syscall.SIGKILL)
		}
		eventually(c.t, "no agent is left", func() bool { return len(agentsLeft(c.dir)) == 0 })
	})
}

// agentProcess is a process that serves as an agent.
type agentProcess struct {
	pid  int
	line string
}

// agentsLeft are the agents whose command line names something in a directory.
func agentsLeft(dir string) (all []agentProcess) {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		text, err := os.ReadFile(path)
		line := strings.ReplaceAll(string(text), "\x00", " ")
		if err != nil || !strings.Contains(line, dir+"/") || !strings.Contains(line, " agent run ") && !strings.Contains(line, " agent fetch ") || !strings.Contains(line, "pitr") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			all = append(all, agentProcess{pid, line})
		}
	}
	return all
}

// agentTool is a subcommand of pitr agent for this cluster's agent.
func (c *cluster) agentTool(args ...string) []string {
	return append(append([]string{"agent"}, args...), "-C", c.config(), "--pgdata", c.data)
}

// agentStatus is what pitr agent status --json tells.
type agentStatus struct {
	Running bool
	PID     int
	Fetcher struct {
		Running            bool
		PID                int
		Asked, Taken, Held int
	}
}

func (c *cluster) agentStatus() (s agentStatus) {
	c.t.Helper()
	return c.agentOf(c.config())
}

// agentOf is the agent of a configuration file of any name.
func (c *cluster) agentOf(config string) (s agentStatus) {
	c.t.Helper()
	r := pitr("agent", "status", "--json", "-C", config, "--pgdata", c.data)
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		c.t.Fatalf("%v: %s", err, r)
	}
	return s
}

// waitAgent waits until an agent is there that is none of those before.
func (c *cluster) waitAgent(before ...int) int {
	c.t.Helper()
	var s agentStatus
	eventually(c.t, "there is an agent", func() bool {
		s = c.agentStatus()
		return s.Running && !slices.Contains(before, s.PID)
	})
	return s.PID
}

// callsAgent lets the server archive until one of its calls has started an agent.
func (c *cluster) callsAgent(before ...int) int {
	c.t.Helper()
	c.switches(1)
	c.waitArchived()
	return c.waitAgent(before...)
}

// kills kills a process and waits until it is gone.
func (c *cluster) kills(pid int) {
	c.t.Helper()
	check(c.t, syscall.Kill(pid, syscall.SIGKILL))
	c.waitGone(pid)
}

func (c *cluster) waitGone(pid int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alive(pid) })
}

// alive tells whether a process is there and has not ended.
func alive(pid int) bool {
	fields := statOf(pid)
	return fields != nil && fields[0] != "Z"
}

// statOf are the fields of /proc/PID/stat behind the name, from the state on; nil
// if there is no such process.
func statOf(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// archived is how many files the server was told are safe.
func (c *cluster) archived() int {
	c.t.Helper()
	n, err := strconv.Atoi(c.sql("SELECT archived_count FROM pg_stat_archiver"))
	check(c.t, err)
	return n
}

// archivesOn waits until so many more files are archived.
func (c *cluster) archivesOn(files int) {
	c.t.Helper()
	want := c.archived() + files
	eventually(c.t, fmt.Sprintf("%d files are archived", want), func() bool { return c.archived() >= want })
}

// newFarArchive is an archive behind a real sshd and a proxy.
func newFarArchive(t testing.TB, c *cluster, flags ...string) *archive {
	t.Helper()
	a := &archive{t: t, dir: filepath.Join(newDirectory(t, "a"), "archive"), route: newRoute(t)}
	a.init(c, flags...)
	return a
}

// newAgentScene is a running server that archives to a far archive through agents.
func newAgentScene(t *testing.T, lines ...string) (*cluster, *archive) {
	t.Helper()
	c := newCluster(t, 15, 1)
	c.startsAgents(lines...)
	a := newFarArchive(t, c)
	c.archiveTo(a)
	c.start()
	return c, a
}

// TestAgentIsNobodysBurden: the first call starts an agent, which has nothing of
// PostgreSQL's; it comes back when it is told to end, and ends with its server.
func TestAgentIsNobodysBurden(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 1)
	c.startsAgents()
	a := newFarArchive(t, c)
	c.archiveTo(a)
	c.set("logging_collector = on", "log_directory = '"+c.dir+"'", "log_filename = 'collected'")
	c.start()
	if s := c.agentStatus(); s.Running {
		t.Fatalf("nobody has asked, and there is an agent: %+v", s)
	}
	first := c.callsAgent()
	wantDetached(t, c, first)

	if r := pitr(c.agentTool("status")...); r.status != 0 || !strings.Contains(r.stdout, strconv.Itoa(first)) {
		t.Errorf("pitr agent status does not tell of process %d: %s", first, r)
	}
	if r := pitr(c.agentTool("stop")...); r.status != 0 {
		t.Errorf("pitr agent stop: %s", r)
	}
	c.waitGone(first)
	if s := c.agentStatus(); s.Running {
		t.Errorf("it was stopped, and is there: %+v", s)
	}
	second := c.callsAgent(first)
	check(t, syscall.Kill(second, syscall.SIGTERM))
	c.waitGone(second)
	third := c.callsAgent(first, second)
	c.switches(5)
	c.waitArchived()
	if n := a.wantAcknowledged(c); n < 8 {
		t.Errorf("only %d files were archived", n)
	}
	c.stop()
	c.waitGone(third)
	a.wantVerified(c)
}

// wantDetached fails unless an agent has a session, a directory and descriptors
// of its own.
func wantDetached(t *testing.T, c *cluster, pid int) {
	t.Helper()
	fields := statOf(pid)
	if fields == nil {
		t.Fatalf("process %d is gone", pid)
	}
	id := strconv.Itoa(pid)
	parent, group, session := fields[1], fields[2], fields[3]
	if group != id || session != id {
		t.Errorf("its process group is %s and its session %s, want its own, %s", group, session, id)
	}
	if parent == strconv.Itoa(c.server.cmd.Process.Pid) {
		t.Error("it is the postmaster's child")
	}
	if dir, err := os.Readlink("/proc/" + id + "/cwd"); err != nil || dir != "/" {
		t.Errorf("its working directory is %s (%v)", dir, err)
	}
	has := descriptors(t, pid)
	for _, fd := range []string{"0", "1", "2"} {
		if has[fd] != "/dev/null" {
			t.Errorf("its descriptor %s is %s", fd, has[fd])
		}
	}
	archiver, err := strconv.Atoi(c.archiverPID())
	check(t, err)
	for _, theirs := range []int{c.server.cmd.Process.Pid, archiver} {
		for _, file := range descriptors(t, theirs) {
			for fd, mine := range has {
				if mine == file && file != "/dev/null" && !strings.HasPrefix(file, "anon_inode:") {
					t.Errorf("its descriptor %s is PostgreSQL's %s", fd, file)
				}
			}
		}
	}
}

// descriptors are what a process has open: number to file.
func descriptors(t *testing.T, pid int) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range glob(t, "/proc", strconv.Itoa(pid), "fd", "*") {
		if file, err := os.Readlink(path); err == nil { // it may have been closed
			all[filepath.Base(path)] = file
		}
	}
	if len(all) == 0 {
		t.Errorf("process %d has nothing open, or is gone", pid)
	}
	return all
}

// TestOneAgentServes: of two that are started at once one stays; what a dead one
// has left stands in nobody's way; one whose socket is gone ends; and one that
// does not answer is done without.
func TestOneAgentServes(t *testing.T) {
	t.Parallel()
	c, a := newAgentScene(t)
	c.callsAgent()
	if r := pitr(c.agentTool("stop")...); r.status != 0 {
		t.Fatal(r)
	}

	t.Log("two at once")
	survivor := c.wantOneOfTwo()

	t.Log("stale socket and lock")
	c.kills(survivor)
	dir := filepath.Dir(c.socket())
	left := glob(t, dir, "*")
	if len(left) != 2 {
		t.Errorf("a killed agent has left %q, want a socket and a lock", left)
	}
	next := c.callsAgent(survivor)

	t.Log("another file in the socket's place")
	socket := c.socket()
	check(t, os.Rename(socket, socket+".away"))
	writeFile(t, socket, "")
	c.waitGone(next)
	last := c.callsAgent(next)

	t.Log("no answer")
	check(t, syscall.Kill(last, syscall.SIGSTOP))
	c.switches(1)
	c.waitArchived()
	check(t, syscall.Kill(last, syscall.SIGCONT))
	c.switches(3)
	c.waitArchived()
	if got := c.waitAgent(); got != last {
		t.Errorf("agent %d was asleep, and now there is %d", last, got)
	}
	if n := a.wantAcknowledged(c); n < 7 {
		t.Errorf("only %d files were archived", n)
	}
	a.wantVerified(c)
}

// socket is the path of the agent's socket: the only one in its directory.
func (c *cluster) socket() string {
	c.t.Helper()
	dir := strings.TrimPrefix(c.agent[1], "agent_dir = ")
	found := glob(c.t, dir, "*.sock")
	if len(found) != 1 {
		c.t.Fatalf("got sockets %q, want one", found)
	}
	return found[0]
}

// wantOneOfTwo starts two agents and returns the one that stays.
func (c *cluster) wantOneOfTwo() int {
	c.t.Helper()
	type end struct {
		pid int
		result
	}
	ended := make(chan end, 2)
	var pids []int
	for range 2 {
		cmd := home.command(home.pitr, c.agentTool("run")...)
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		check(c.t, cmd.Start())
		pid := cmd.Process.Pid
		pids = append(pids, pid)
		go func() {
			err := cmd.Wait()
			ended <- end{pid, result{strings.Join(cmd.Args, " "), exitCode(err), "", said.String()}}
		}()
	}
	var loser end
	select {
	case loser = <-ended:
	case <-time.After(patience):
		c.t.Fatal("both of two agents stay")
	}
	if loser.status <= 0 || !strings.Contains(loser.stderr, "another agent") {
		c.t.Errorf("want the other one to be named, and a failure: %s", loser.result)
	}
	survivor := c.waitAgent()
	if survivor == loser.pid || !slices.Contains(pids, survivor) {
		c.t.Errorf("agent %d serves, of %v, of which %d has ended", survivor, pids, loser.pid)
	}
	return survivor
}

// TestAgentAnswersForTheFileAsItIs: a file that was pushed ahead of its question
// is looked at again when it was touched since, as by a clock that was set back;
// and it is no answer for another content.
func TestAgentAnswersForTheFileAsItIs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 1)
	c.startsAgents()
	a := newFarArchive(t, c)
	c.archiveTo(a)
	c.set("archive_command = ''") // this test is the archiver
	c.start()
	c.switches(8)
	names := c.status(".ready")
	if len(names) < 8 {
		t.Fatalf("only %q to archive", names)
	}
	archive := func(name string, status int) result {
		t.Helper()
		r := run(c.push(c.config(), name))
		if r.status != status {
			t.Fatalf("%s: want status %d: %s", name, status, r)
		}
		if status == 0 {
			check(t, os.Rename(filepath.Join(c.data, "pg_wal/archive_status", name+".ready"), filepath.Join(c.data, "pg_wal/archive_status", name+".done")))
		}
		return r
	}
	archive(names[0], 0)
	c.waitAgent()
	archive(names[1], 0)
	touched, changed := names[3], names[5]
	eventually(t, changed+" is there before it was asked for", func() bool {
		_, err := os.Stat(a.stored(changed))
		return err == nil
	})
	past := time.Now().Add(-48 * time.Hour)
	check(t, os.Chtimes(c.walFile(touched), past, past))
	archive(names[2], 0)
	archive(touched, 0)
	archive(names[4], 0)

	whole := readFile(t, c.walFile(changed))
	other := bytes.Clone(whole)
	other[len(other)-1] ^= 1
	check(t, os.WriteFile(c.walFile(changed), other, 0o600))
	if r := archive(changed, 4); !strings.Contains(r.stderr, "the archive holds another file of this name") {
		t.Errorf("it is another file by now: %s", r)
	}
	check(t, os.WriteFile(c.walFile(changed), whole, 0o600))
	check(t, os.Chtimes(c.walFile(changed), past, past))
	for _, name := range names[5:] {
		archive(name, 0)
	}
	a.wantAcknowledged(c)
}

// TestAgentFollowsItsServer through a renamed data directory, and to nowhere
// else.
func TestAgentFollowsItsServer(t *testing.T) {
	t.Parallel()
	c, a := newAgentScene(t)
	first := c.callsAgent()
	c.stop()
	c.waitGone(first)

	renamed := c.data + "-renamed"
	check(t, os.Rename(c.data, renamed))
	c.data = renamed
	c.archiveTo(a) // another pgdata
	c.start()
	second := c.callsAgent(first)
	c.switches(3)
	c.waitArchived()
	c.kill()
	c.waitGone(second)
	if n := a.wantAcknowledged(c); n < 5 {
		t.Errorf("only %d files were archived", n)
	}
	if _, err := os.Stat(strings.TrimSuffix(renamed, "-renamed")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something has made the old data directory again: %v", err)
	}
}

// TestFourServersHaveAnAgentEach, in one place, and do not disturb each other.
func TestFourServersHaveAnAgentEach(t *testing.T) {
	t.Parallel()
	dir := newDirectory(t, "g")
	var servers []*cluster
	var archives []*archive
	server := newSSHD(t)
	for range 4 {
		c := newCluster(t, 15, 1)
		c.hasAgents(dir, "auto")
		a := &archive{t: t, dir: filepath.Join(newDirectory(t, "a"), "archive"), route: &route{server: server, addr: server.Addr()}}
		a.init(c)
		c.archiveTo(a)
		c.start()
		servers, archives = append(servers, c), append(archives, a)
	}
	var pids []int
	for _, c := range servers {
		pids = append(pids, c.callsAgent())
	}
	if distinct := slices.Compact(slices.Sorted(slices.Values(pids))); len(distinct) != 4 {
		t.Fatalf("four servers have agents %v", pids)
	}
	servers[0].kills(pids[0])
	servers[1].kill()
	servers[1].waitGone(pids[1])
	for _, i := range []int{0, 2, 3} {
		servers[i].switches(3)
	}
	for _, i := range []int{0, 2, 3} {
		servers[i].waitArchived()
		if got := servers[i].waitAgent(); (got == pids[i]) != (i != 0) {
			t.Errorf("server %d had agent %d and has %d", i, pids[i], got)
		}
	}
	for i, c := range servers {
		stored, acknowledged := len(glob(t, archives[i].dir, "wal", "*", "0*")), archives[i].wantAcknowledged(c)
		if want := 4; stored != acknowledged || i != 1 && acknowledged != want {
			t.Errorf("server %d has %d files in its archive, and was told that %d are", i, stored, acknowledged)
		}
	}
}
