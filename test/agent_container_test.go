package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestPostmasterAsProcessOne is PostgreSQL in a container: it would become the
// parent of an agent that a call starts, and restart every session when that dies
// by a signal. So none is started; and one that somebody else has started may be
// killed.
func TestPostmasterAsProcessOne(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a namespace of its own needs root: run the tests as root")
	}
	c := newCluster(t, 15, 1)
	c.startsAgents()
	a := newFarArchive(t, c)
	c.archiveTo(a)
	stop := c.launchAsProcessOne()
	defer stop()
	if pid := strings.Split(string(readFile(t, filepath.Join(c.data, "postmaster.pid"))), "\n")[0]; pid != "1" {
		t.Fatalf("the postmaster is process %s", pid)
	}
	c.switches(4)
	c.waitArchived()
	if left := agentsLeft(c.dir); len(left) > 0 || c.agentStatus().Running {
		t.Errorf("an agent was started: %v", left)
	}

	t.Log("an agent of somebody else's is killed")
	dir := strings.TrimPrefix(c.agent[1], "agent_dir = ")
	c.agent = []string{"agent = external", "agent_dir = " + dir}
	c.configure([]*archive{a})
	began, archiver := c.sql("SELECT pg_postmaster_start_time()"), c.archiverPID()
	agent := c.runAgentBeside()
	c.switches(4)
	c.waitArchived()
	if got := c.agentStatus(); !got.Running {
		t.Errorf("the agent does not serve: %+v", got)
	}
	c.kills(agent)
	c.switches(4)
	c.waitArchived()
	if left := agentsLeft(c.dir); len(left) > 0 {
		t.Errorf("an agent was started: %v", left)
	}
	if now, same := c.sql("SELECT pg_postmaster_start_time()"), c.archiverPID(); now != began || same != archiver {
		t.Errorf("the server began at %s, and now at %s; its archiver was %s and is %s", began, now, archiver, same)
	}
	if log := c.logged(); strings.Contains(log, "terminating any other active server processes") || strings.Contains(log, "was terminated by signal") {
		t.Error("the postmaster took the agent for a child of its own")
	}
	if n := a.wantAcknowledged(c); n < 12 {
		t.Errorf("only %d files were archived", n)
	}
}

// launchAsProcessOne starts the server as the first process of a PID namespace.
func (c *cluster) launchAsProcessOne() (stop func()) {
	c.t.Helper()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(c.t, err)
	defer log.Close()
	cmd := exec.Command("unshare", append([]string{"--pid", "--fork", "--mount-proc", "--kill-child"}, asServer(filepath.Join(c.bin, "postgres"), "-D", c.data, "-k", c.dir)...)...)
	cmd.Dir, cmd.Env = home.home, c.command("true").Env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(c.t, cmd.Start())
	s := &server{cmd: cmd, exited: make(chan struct{})}
	go func() {
		s.err = cmd.Wait()
		close(s.exited)
	}()
	c.server = s
	c.waitReady()
	return func() {
		_ = syscall.Kill(c.processOne(), syscall.SIGINT)
		c.waitExit()
	}
}

// processOne is the postmaster in its namespace, as it is known here.
func (c *cluster) processOne() int {
	c.t.Helper()
	unshare := c.server.cmd.Process.Pid
	children := strings.Fields(string(readFile(c.t, "/proc/"+strconv.Itoa(unshare)+"/task/"+strconv.Itoa(unshare)+"/children")))
	if len(children) != 1 {
		c.t.Fatalf("unshare has the children %q", children)
	}
	pid, err := strconv.Atoi(children[0])
	check(c.t, err)
	return pid
}

// asServer is a command as the servers' user, for what root must start.
func asServer(args ...string) []string {
	return append([]string{"setpriv", "--reuid=" + strconv.Itoa(int(home.user.Uid)), "--regid=" + strconv.Itoa(int(home.user.Gid)), "--clear-groups"}, args...)
}

// runAgentBeside starts an agent in the server's namespace, as one that somebody
// enters from outside, and returns its process as it is known here.
func (c *cluster) runAgentBeside() int {
	c.t.Helper()
	args := append([]string{"--target", strconv.Itoa(c.processOne()), "--pid", "--mount"}, asServer(append([]string{home.pitr}, c.agentTool("run")...)...)...)
	cmd := exec.Command("nsenter", args...)
	cmd.Dir, cmd.Env = "/", home.command("true").Env
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(c.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var agent int
	eventually(c.t, "the agent is there", func() bool {
		select {
		case err := <-ended:
			c.t.Fatalf("the agent has ended: %v: %s", err, said.String())
		default:
		}
		if !c.agentStatus().Running {
			return false
		}
		for _, a := range agentsLeft(c.dir) {
			if exe, _ := os.Readlink("/proc/" + strconv.Itoa(a.pid) + "/exe"); exe == home.pitr {
				agent = a.pid
			}
		}
		return agent != 0
	})
	return agent
}
