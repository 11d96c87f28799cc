package test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// backup takes a base backup of a running cluster and returns its directory.
func (c *cluster) backup() string {
	c.t.Helper()
	dir := filepath.Join(newDirectory(c.t, "b"), "backup")
	if c.version == 15 {
		c.pgBasebackup(dir)
	} else {
		c.lowLevelBackup(dir)
	}
	return dir
}

// pgBasebackup leaves the WAL to the archive.
func (c *cluster) pgBasebackup(dir string) {
	c.t.Helper()
	r := run(home.command(filepath.Join(debian15, "pg_basebackup"), "-h", c.dir, "-U", "postgres", "-D", dir,
		"-X", "none", "-c", "fast", "--no-sync"))
	if r.status != 0 {
		c.t.Fatal(r)
	}
}

// lowLevelBackup is PostgreSQL's documented procedure, for servers whose
// version pg_basebackup 15 refuses.
func (c *cluster) lowLevelBackup(dir string) {
	c.t.Helper()
	start, stop := "pg_backup_start('test', true)", "pg_backup_stop(true)"
	if c.version < 15 {
		start, stop = "pg_start_backup('test', true, false)", "pg_stop_backup(false, true)"
	}
	s := c.session()
	defer s.close()
	s.sql("SELECT " + start)
	c.copyData(dir)
	label, err := hex.DecodeString(s.sql("SELECT encode(convert_to(labelfile, 'UTF8'), 'hex') FROM " + stop))
	check(c.t, err)
	writeFile(c.t, filepath.Join(dir, "backup_label"), string(label))
}

// copyData copies a live data directory without what a backup leaves out. It
// is small and its files do not vanish while it is copied: autovacuum is off.
func (c *cluster) copyData(dir string) {
	c.t.Helper()
	copyTree(c.t, c.data, dir)
	for _, gone := range append(glob(c.t, dir, "pg_wal", "0*"), glob(c.t, dir, "pg_wal", "archive_status", "*")...) {
		check(c.t, exec.Command("rm", "-rf", gone).Run())
	}
	for _, gone := range []string{"postmaster.pid", "postmaster.opts"} {
		check(c.t, exec.Command("rm", "-f", filepath.Join(dir, gone)).Run())
	}
}

// session is a connection that is kept open.
type session struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

func (c *cluster) session() *session {
	c.t.Helper()
	s := &session{t: c.t, cmd: c.psql()}
	var err error
	s.stdin, err = s.cmd.StdinPipe()
	check(c.t, err)
	stdout, err := s.cmd.StdoutPipe()
	check(c.t, err)
	s.stdout = bufio.NewReader(stdout)
	s.cmd.Stderr = &s.stderr
	check(c.t, s.cmd.Start())
	return s
}

// sql runs one statement and returns what it prints.
func (s *session) sql(statement string) string {
	s.t.Helper()
	const end = "--end of answer--"
	fmt.Fprintf(s.stdin, "%s;\n\\echo %s\n", statement, end)
	var answer strings.Builder
	for {
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			s.cmd.Wait()
			s.t.Fatalf("%s: %v: %s", statement, err, &s.stderr)
		}
		if strings.TrimSpace(line) == end {
			return strings.TrimSpace(answer.String())
		}
		answer.WriteString(line)
	}
}

func (s *session) close() {
	s.stdin.Close()
	s.cmd.Wait()
}
