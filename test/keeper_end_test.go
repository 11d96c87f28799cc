package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// doomedVariable makes TestDoomed wait for its end.
const doomedVariable = "PITR_TEST_DOOMED"

// TestDoomed is run by TestNothingIsLeftOfARunThatEndsBadly, with all that could
// be left: a server, a disk of its own, and a disk that hangs.
func TestDoomed(t *testing.T) {
	if os.Getenv(doomedVariable) == "" {
		t.Skip("not a test by itself: TestNothingIsLeftOfARunThatEndsBadly runs it")
	}
	c := newCluster(t, 15, 1)
	a, b := newArchive(t, c), newArchive(t, c, "--force")
	c.archiveTo(a, b)
	c.start()
	if os.Getuid() == 0 {
		mountDisk(t, a)
		hang(t, mountOverFUSE(t, b.dir))
		c.sql("SELECT pg_switch_wal()") // archive_command is there, too
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	go panic("the end of this run")
	select {}
}

// TestNothingIsLeftOfARunThatEndsBadly: no process, no mount and no file.
func TestNothingIsLeftOfARunThatEndsBadly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		end    func(keeper *os.Process, stdin io.Writer)
		status int
	}{
		{"panic", func(_ *os.Process, stdin io.Writer) { fmt.Fprintln(stdin) }, 2},
		{"SIGTERM", func(keeper *os.Process, _ io.Writer) { _ = keeper.Signal(syscall.SIGTERM) }, 128 + 15},
		{"SIGKILL", func(keeper *os.Process, _ io.Writer) { _ = keeper.Kill() }, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := newDirectory(t, "k")
			keeper, stdin := startDoomed(t, dir)
			tt.end(keeper.Process, stdin)
			if got := exitCode(keeper.Wait()); got != tt.status {
				t.Errorf("got status %d, want %d\n%s", got, tt.status, keeper.Stderr)
			}
			eventually(t, "nothing is left running", func() bool { return len(traces(t, dir)) == 0 })
			if tt.status == -1 { // nobody was left to clean up
				sweepDead(dir)
			}
			if left := glob(t, dir, "*"); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// startDoomed starts this program on TestDoomed and waits until everything that
// could be left is there.
func startDoomed(t *testing.T, dir string) (*exec.Cmd, io.Writer) {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	cmd := exec.Command(self, "-test.run=^TestDoomed$")
	cmd.Env = append(os.Environ(), doomedVariable+"=1", "TMPDIR="+dir, "PITR_TEST_KEEP=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = &bytes.Buffer{}
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	stuck := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { stuck.Stop() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("got %q, %v, want ready\n%s", line, err, cmd.Stderr)
	}
	if len(traces(t, dir)) == 0 {
		t.Fatal("the test is wrong: it does not see what is running")
	}
	return cmd, stdin
}

// traces are the processes that have to do with a directory, by their command
// lines or by what is mounted for them, and the loop devices that lie in it.
func traces(t *testing.T, dir string) (found []string) {
	t.Helper()
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/mounts", "/sys/block/loop*/loop/backing_file"} {
		for _, file := range glob(t, pattern) {
			text, err := os.ReadFile(file)
			if err == nil && bytes.Contains(text, []byte(dir+"/")) {
				found = append(found, fmt.Sprintf("%s: %s", file, text))
			}
		}
	}
	return found
}

func TestSweepRemovesOnlyWhatNobodyNeeds(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	for _, name := range []string{"dead/some", "kept", "alive", "alive/some"} {
		check(t, os.MkdirAll(filepath.Join(parent, treePrefix+name), 0o700))
	}
	check(t, os.WriteFile(filepath.Join(parent, treePrefix+"kept", keptMark), nil, 0o600))
	lock, err := lockTree(filepath.Join(parent, treePrefix+"alive"), unix.LOCK_EX)
	check(t, err)
	defer lock.Close()
	sweepDead(parent)
	left := strings.Join(glob(t, parent, "*"), " ")
	if want := filepath.Join(parent, treePrefix+"alive") + " " + filepath.Join(parent, treePrefix+"kept"); left != want {
		t.Errorf("got %s left, want %s", left, want)
	}
}
