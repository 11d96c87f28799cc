package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// archive is an archive directory.
type archive struct {
	t     testing.TB
	dir   string
	route *route // how the servers reach it; nil is the directory itself
	mount *mount // through which they reach it, if any
}

// newArchive makes an archive of a cluster with pitr init.
func newArchive(t testing.TB, c *cluster, flags ...string) *archive {
	t.Helper()
	a := &archive{t: t, dir: filepath.Join(newDirectory(t, "a"), "archive")}
	a.init(c, flags...)
	return a
}

func (a *archive) init(c *cluster, flags ...string) {
	a.t.Helper()
	config := c.configure([]*archive{a})
	if r := pitr(append([]string{"init", "-C", config}, flags...)...); r.status != 0 {
		a.t.Fatalf("pitr init: %s", r)
	}
}

// copyOf makes a copy of an archive: what a test does to it hurts no other.
func (a *archive) copyFor(t testing.TB) *archive {
	t.Helper()
	b := &archive{t: t, dir: filepath.Join(newDirectory(t, "a"), "archive")}
	copyTree(t, a.dir, b.dir)
	return b
}

func (a *archive) url() string {
	if a.mount != nil {
		return "file://" + a.mount.dir
	}
	if a.route != nil {
		return a.route.url(a.dir)
	}
	return "file://" + a.dir
}

// stored is the path under which a file of PostgreSQL lies, in the form the
// archive has: that of docs/format.md.
func (a *archive) stored(name string) string {
	if _, err := os.Stat(filepath.Join(a.dir, "wal")); err != nil {
		return filepath.Join(a.dir, name)
	}
	dir := filepath.Join(a.dir, "wal")
	if !strings.HasSuffix(name, ".history") {
		dir = filepath.Join(dir, name[:16])
	}
	if strings.Contains(string(readFile(a.t, filepath.Join(a.dir, "archive.json"))), `"zstd"`) {
		name += ".zst"
	}
	return filepath.Join(dir, name)
}

// raw is what a stored file holds, read with stock tools.
func (a *archive) raw(name string) []byte {
	a.t.Helper()
	path := a.stored(name)
	if !strings.HasSuffix(path, ".zst") {
		return readFile(a.t, path)
	}
	var stderr bytes.Buffer
	cmd := exec.Command("zstd", "-dcq", path)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		a.t.Fatalf("zstd -d %s: %v\n%s", path, err, &stderr)
	}
	return out
}

// wantAcknowledged fails unless each file whose archiving was acknowledged to a
// cluster is in the archive as it was sent. It returns how many there are.
func (a *archive) wantAcknowledged(c *cluster) int {
	a.t.Helper()
	done := c.status(".done")
	for _, name := range done {
		sent := readFile(a.t, c.walFile(name))
		if got := a.raw(name); !bytes.Equal(got, sent) {
			a.t.Errorf("%s was acknowledged and differs in the archive (%d bytes there, %d sent)", name, len(got), len(sent))
		}
	}
	return len(done)
}

// wantVerified fails unless pitr wal verify finds nothing wrong.
func (a *archive) wantVerified(c *cluster) {
	a.t.Helper()
	if r := pitr("wal", "verify", "-C", c.configure([]*archive{a})); r.status != 0 {
		a.t.Errorf("pitr wal verify: %s", r)
	}
}

// configure writes the cluster's configuration file, outside its data
// directory, and returns its path.
func (c *cluster) configure(archives []*archive, lines ...string) string {
	c.t.Helper()
	var urls []string
	for _, a := range archives {
		urls = append(urls, a.url())
		if a.route != nil {
			lines = append(lines, a.route.lines()...)
		}
	}
	lines = append(lines, c.agent...)
	path := c.config()
	writeFile(c.t, path, fmt.Sprintf("[DEFAULT]\narchive = %s\npgdata = %s\n%s\n",
		strings.Join(urls, ", "), c.data, strings.Join(lines, "\n")))
	return path
}

// config is the path of the cluster's configuration file.
func (c *cluster) config() string { return filepath.Join(c.dir, "pitr.ini") }

// archiveTo makes the cluster archive with archive_command.
func (c *cluster) archiveTo(archives ...*archive) {
	c.t.Helper()
	config := c.configure(archives)
	c.set("archive_mode = on", fmt.Sprintf("archive_command = '%s -C %s %%p'", home.applet("archive_command"), config))
}

// restoreFrom makes the cluster restore with restore_command.
func (c *cluster) restoreFrom(a *archive, lines ...string) {
	c.t.Helper()
	config := c.configure([]*archive{a}, lines...)
	c.set(fmt.Sprintf("restore_command = '%s -C %s %%f %%p'", home.applet("restore_command"), config))
}

// result is what a command came to.
type result struct {
	command        string
	status         int
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("%s: exit status %d\n%s%s", r.command, r.status, r.stdout, r.stderr)
}

// pitr runs the admin tool as the servers' user.
func pitr(args ...string) result { return run(home.command(home.pitr, args...)) }

// run runs a command to its end.
func run(cmd *exec.Cmd) result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{strings.Join(cmd.Args, " "), exitCode(err), stdout.String(), stderr.String()}
	if r.status == -1 {
		r.stderr += err.Error()
	}
	return r
}
