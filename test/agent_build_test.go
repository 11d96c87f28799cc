package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAgentIsReplaced when a call is of another build, or its configuration is
// another one: the file is shipped, and the next agent is like the call.
func TestAgentIsReplaced(t *testing.T) {
	t.Parallel()
	c, a := newAgentScene(t)
	first := c.callsAgent()

	t.Log("another build")
	newer := otherBuild(t)
	c.set(fmt.Sprintf("archive_command = '%s archive_command -C %s %%p'", newer, c.config()))
	c.reload()
	c.waitSetting("archive_command", newer)
	second := c.archivesUntilReplaced(first)
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", second)); err != nil || exe != newer {
		t.Errorf("the agent after an upgrade is %s (%v), want %s", exe, err, newer)
	}

	t.Log("another configuration")
	c.configure([]*archive{a}, "compress_level = 3")
	third := c.archivesUntilReplaced(second)
	c.switches(3)
	c.waitArchived()
	if got := c.waitAgent(); got != third {
		t.Errorf("nothing has changed, and agent %d is now %d", third, got)
	}
	if n := a.wantAcknowledged(c); n < 7 {
		t.Errorf("only %d files were archived", n)
	}
	a.wantVerified(c)
}

// archivesUntilReplaced archives a file until another agent serves. No call fails
// by that.
func (c *cluster) archivesUntilReplaced(before int) int {
	c.t.Helper()
	failed := c.sql("SELECT failed_count FROM pg_stat_archiver")
	after := 0
	eventually(c.t, "another agent serves", func() bool {
		c.switches(1)
		c.waitArchived()
		s := c.agentStatus()
		after = s.PID
		return s.Running && s.PID != before
	})
	c.waitGone(before)
	if now := c.sql("SELECT failed_count FROM pg_stat_archiver"); now != failed {
		c.t.Errorf("%s calls had failed before the agent was replaced, %s after", failed, now)
	}
	return after
}

// waitSetting waits until a running server has a setting with this text in it.
func (c *cluster) waitSetting(name, text string) {
	c.t.Helper()
	eventually(c.t, name+" is in force", func() bool { return strings.Contains(c.sql("SHOW "+name), text) })
}

// otherBuild is pitr with another version.
func otherBuild(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(newDirectory(t, "o"), "pitr")
	cmd := exec.Command("make", "--silent", "build", "BINARY="+binary, "VERSION="+builtVersion+"-other")
	cmd.Dir = home.source
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if r := run(cmd); r.status != 0 {
		t.Fatal(r)
	}
	return binary
}
