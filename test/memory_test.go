package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// measureArg makes the test binary run a command and tell its peak memory. A
// process between is needed: what a child inherits from the one that started
// it counts as its own peak, and that one must be small.
const measureArg = "measure-peak-memory"

// measured is what measure prints.
type measured struct {
	Status int
	PeakKB int64
	Output string
}

func measure(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	m := measured{Status: exitCode(err), Output: string(out)}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.PeakKB = usage.Maxrss
	}
	if json.NewEncoder(os.Stdout).Encode(m) != nil {
		return 1
	}
	return 0
}

// wantPeak runs a command in the cluster's data directory and fails if it needs
// more memory.
func (c *cluster) wantPeak(limitMB int64, name string, args ...string) {
	c.t.Helper()
	cmd := home.command(home.measurer(c.t), append([]string{measureArg, name}, args...)...)
	cmd.Dir = c.data
	r := run(cmd)
	var m measured
	if err := json.Unmarshal([]byte(r.stdout), &m); err != nil || m.Status != 0 {
		c.t.Fatalf("%v: %s", err, r)
	}
	c.t.Logf("%-16s peak %5.1f MB", filepath.Base(name), float64(m.PeakKB)/1024)
	if m.PeakKB > limitMB<<10 {
		c.t.Errorf("%s needed %.1f MB, more than %d", filepath.Base(name), float64(m.PeakKB)/1024, limitMB)
	}
}

// measurer is a copy of this test binary where the servers' user can run it.
func (h house) measurer(t testing.TB) string {
	t.Helper()
	path := filepath.Join(newDirectory(t, "x"), "measure")
	self, err := os.Executable()
	check(t, err)
	copyTree(t, self, path)
	check(t, os.Chmod(path, 0o755))
	return path
}

// TestPeakMemory: one segment, there and back, in every form.
func TestPeakMemory(t *testing.T) {
	t.Parallel()
	for _, size := range []struct {
		segmentMB int
		limitMB   int64
		load      int // rows of about 1 kB that cannot be compressed
	}{
		{16, 40, 20_000},
		{1024, 64, 150_000},
	} {
		t.Run(fmt.Sprintf("%d MB", size.segmentMB), func(t *testing.T) {
			if testing.Short() && size.segmentMB > 64 {
				t.Skip("-short")
			}
			c := newForeignCluster(t, 15, size.segmentMB)
			segment := c.oneSegment(size.load)
			for _, form := range [][]string{{"--layout", "tree"}, {"--layout", "tree", "--compress", "none"}, {"--layout", "flat"}} {
				c.wantSmall(segment, size.limitMB, form)
			}
		})
	}
}

// oneSegment lets the server write a segment, full of records as far as rows
// go, and returns its name.
func (c *cluster) oneSegment(rows int) string {
	c.t.Helper()
	c.set("archive_mode = on", "archive_command = 'false'", "min_wal_size = '2GB'", "max_wal_size = '4GB'")
	c.start()
	c.sql(fmt.Sprintf(`CREATE TABLE noise AS
		SELECT (SELECT string_agg(md5(i::text || '/' || j), '') FROM generate_series(1, 30) j) pad FROM generate_series(1, %d) i;
		SELECT pg_switch_wal()`, rows))
	c.stop()
	return c.status(".ready")[0]
}

func (c *cluster) wantSmall(segment string, limitMB int64, form []string) {
	c.t.Helper()
	a := newArchive(c.t, c, form...)
	config := c.configure([]*archive{a})
	c.t.Log(form)
	c.wantPeak(limitMB, home.applet("archive_command"), "-C", config, "pg_wal/"+segment)
	c.wantPeak(limitMB, home.applet("archive_command"), "-C", config, "pg_wal/"+segment) // found there
	c.wantPeak(limitMB, home.applet("restore_command"), "-C", config, segment, "pg_wal/RECOVERYXLOG")
	if !bytes.Equal(digest(c.t, c.walFile(segment)), digest(c.t, c.walFile("RECOVERYXLOG"))) {
		c.t.Errorf("%s came back different", segment)
	}
	check(c.t, os.Remove(c.walFile("RECOVERYXLOG")))
	check(c.t, os.Remove(a.stored(segment)))
}

func digest(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	check(t, err)
	return h.Sum(nil)
}
