package multicall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startAgentOf is a run of `pitr agent run` for a data directory, with settings.
func startAgentOf(t *testing.T, pgdata string, settings ...string) *exec.Cmd {
	t.Helper()
	cmd := command(t, "pitr", append([]string{"agent", "run", "--data", pgdata, "--agent-dir", filepath.Join(t.TempDir(), "agents")}, settings...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func endAgent(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

func TestAgentWritesItsFiguresAndThatItEnds(t *testing.T) {
	pgdata := dataDirectoryOf(t, map[string]time.Time{"000000010000000000000008.ready": time.Now()})
	file := filepath.Join(t.TempDir(), "pitr.prom")
	left := filepath.Join(filepath.Dir(file), ".pitr.prom.tmp") // of one that was killed
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := startAgentOf(t, pgdata, "--archive=file:///nowhere", "--metrics-file="+file)
	text := await(t, file)
	for _, want := range []string{"\npitr_agent_running{", "\npitr_wal_waiting_files{pgdata=\"" + pgdata + "\"} 1\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	if !strings.Contains(text, fmt.Sprintf("pitr_agent_running{pgdata=%q} 1\n", pgdata)) {
		t.Errorf("it does not run:\n%s", text)
	}
	endAgent(t, agent)
	if text = await(t, file); !strings.Contains(text, fmt.Sprintf("pitr_agent_running{pgdata=%q} 0\n", pgdata)) {
		t.Errorf("after its end it runs:\n%s", text)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a temporary file is left: %v", err)
	}
}

func TestAgentAlertsAndSaysWhenItIsOver(t *testing.T) {
	pgdata := dataDirectoryOf(t, map[string]time.Time{"000000010000000000000008.ready": time.Now().Add(-time.Hour)})
	bad, good := t.TempDir(), t.TempDir()
	agent := startAgentOf(t, pgdata, "--archive=file:///nowhere", "--notify-critical="+argumentRecorder(t, bad), "--notify-ok="+argumentRecorder(t, good))
	if got := await(t, filepath.Join(bad, "args")); !strings.Contains(got, "[pitr: 000000010000000000000008 has waited in pg_wal for 1h0m") {
		t.Errorf("got %q", got)
	}
	env := await(t, filepath.Join(bad, "env"))
	for _, want := range []string{"PITR_EVENT=critical\n", "PITR_EVENT_KIND=age\n", "PITR_EVENT_FILE=000000010000000000000008\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is not in %q", want, env)
		}
	}
	if err := os.Remove(filepath.Join(pgdata, "pg_wal", "archive_status", "000000010000000000000008.ready")); err != nil {
		t.Fatal(err)
	}
	if got := await(t, filepath.Join(good, "args")); !strings.Contains(got, "longer than alert_age any more") {
		t.Errorf("got %q", got)
	}
	// The agent is the parent of who looks after an alert, and has to take its status.
	for deadline := time.Now().Add(lifetime); len(childrenOf(agent.Process.Pid)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q", childrenOf(agent.Process.Pid))
		}
	}
	endAgent(t, agent)
}

// childrenOf are the children of a process, also those that have ended and that
// nobody waited for.
func childrenOf(pid int) (found []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			found = append(found, string(text))
		}
	}
	return found
}
