package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take that a test waits for. The machine
// may be busy; nothing gets slower by a long limit.
const patience = 4 * time.Minute

// cluster is a PostgreSQL server: its data directory, and the server while it
// runs. It is stopped and removed at the end of its test.
type cluster struct {
	t       testing.TB
	version int
	bin     string
	dir     string // holds data, log and socket
	data    string
	log     string
	server  *server  // nil while stopped
	agent   []string // how archive_command is told to work with an agent; none by default: nothing may outlive a test
	environ []string // more of the environment of the server, and of what works for it
}

// server is a running postmaster.
type server struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the postmaster has ended
	err    error         // how; set before exited is closed
}

// template is what clusters are copies of.
type template struct {
	version   int
	segmentMB int
}

var (
	templates   sync.Map // template -> func() (string, error)
	serverBins  sync.Map // version -> func() (string, error)
	directories atomic.Int64
)

// settings are the same for every cluster: small, quiet, quick to notice.
const settings = `
listen_addresses = ''
fsync = off
shared_buffers = 16MB
max_connections = 20
max_wal_senders = 4
wal_level = replica
autovacuum = off
checkpoint_timeout = 1h
max_wal_size = 2GB
wal_keep_size = 1GB
wal_retrieve_retry_interval = 200ms
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
timezone = 'UTC'
`

// newCluster makes a cluster that is not started. Clusters of one version and
// segment size are copies of one template and so share a system identifier.
func newCluster(t testing.TB, version, segmentMB int) *cluster {
	t.Helper()
	c := emptyCluster(t, version)
	initdb, _ := templates.LoadOrStore(template{version, segmentMB}, sync.OnceValues(func() (string, error) {
		dir := filepath.Join(home.dir, fmt.Sprintf("template-%d-%d", version, segmentMB))
		return dir, initdb(c.bin, dir, segmentMB)
	}))
	from, err := initdb.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	copyTree(t, from, c.data)
	return c
}

// newForeignCluster makes a cluster with a system identifier of its own.
func newForeignCluster(t testing.TB, version, segmentMB int) *cluster {
	t.Helper()
	c := emptyCluster(t, version)
	if err := initdb(c.bin, c.data, segmentMB); err != nil {
		t.Fatal(err)
	}
	return c
}

// clusterFrom makes a cluster out of a backup, or a stopped data directory.
func clusterFrom(t testing.TB, version int, backup string) *cluster {
	t.Helper()
	c := emptyCluster(t, version)
	copyTree(t, backup, c.data)
	return c
}

func emptyCluster(t testing.TB, version int) *cluster {
	t.Helper()
	bin, _ := serverBins.LoadOrStore(version, sync.OnceValues(func() (string, error) { return home.serverBin(version) }))
	path, err := bin.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	dir := newDirectory(t, "c")
	c := &cluster{t: t, version: version, bin: path, dir: dir, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log"), agent: []string{"agent = off"}}
	t.Cleanup(c.close)
	return c
}

func initdb(bin, dir string, segmentMB int) error {
	cmd := home.command(filepath.Join(bin, "initdb"), "-D", dir, "-U", "postgres", "-A", "trust", "-E", "UTF8",
		"--locale=C", "--no-sync", "--wal-segsize="+strconv.Itoa(segmentMB))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return appendFile(filepath.Join(dir, "postgresql.conf"), settings)
}

// close stops the server, shows its log if the test failed, and removes it.
func (c *cluster) close() {
	c.kill()
	if c.t.Failed() {
		c.t.Logf("log of the server in %s:\n%s", c.dir, tail(withoutDebug(c.logged()), 40))
	}
}

// withoutDebug leaves out of a log what log_min_messages = debug2 adds, except
// what it says about restore_command.
func withoutDebug(log string) string {
	var kept []string
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "DEBUG:") || strings.Contains(line, "restore file") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// set adds settings, one a line, that win over all earlier ones.
func (c *cluster) set(lines ...string) {
	c.t.Helper()
	check(c.t, appendFile(filepath.Join(c.data, "postgresql.auto.conf"), strings.Join(lines, "\n")+"\n"))
}

// reload makes a running server read its settings again.
func (c *cluster) reload() {
	c.t.Helper()
	check(c.t, c.server.cmd.Process.Signal(syscall.SIGHUP))
}

// signalFile makes recovery.signal or standby.signal.
func (c *cluster) signalFile(name string) {
	c.t.Helper()
	writeFile(c.t, filepath.Join(c.data, name), "")
}

// command is a command in the environment of this cluster.
func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := home.command(name, args...)
	cmd.Env = append(cmd.Env, c.environ...)
	return cmd
}

// launch starts the server and does not wait for anything.
func (c *cluster) launch() {
	c.t.Helper()
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(c.t, err)
	defer log.Close()
	cmd := c.command(filepath.Join(c.bin, "postgres"), "-D", c.data, "-k", c.dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // nothing is left running when a test is killed
	check(c.t, cmd.Start())
	s := &server{cmd: cmd, exited: make(chan struct{})}
	go func() {
		s.err = cmd.Wait()
		close(s.exited)
	}()
	c.server = s
}

// start starts the server and waits until it takes connections.
func (c *cluster) start() {
	c.t.Helper()
	c.launch()
	c.waitReady()
}

// waitReady waits until the server takes connections, also read-only ones.
func (c *cluster) waitReady() {
	c.t.Helper()
	eventually(c.t, "the server takes connections", func() bool {
		c.mustRun()
		return c.ready()
	})
}

// ready tells whether the server takes connections.
func (c *cluster) ready() bool {
	pid, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	lines := strings.Split(string(pid), "\n")
	return err == nil && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
}

// running tells whether the postmaster lives.
func (c *cluster) running() bool {
	if c.server == nil {
		return false
	}
	select {
	case <-c.server.exited:
		return false
	default:
		return true
	}
}

// mustRun fails the test if the postmaster has ended.
func (c *cluster) mustRun() {
	c.t.Helper()
	if !c.running() {
		c.t.Fatalf("the server went down: %v", c.server.err)
	}
}

// stop shuts the server down fast and clean.
func (c *cluster) stop() { c.t.Helper(); c.signal(syscall.SIGINT) }

// kill stops the server as pg_ctl stop -m immediate does: as a crash would.
func (c *cluster) kill() { c.t.Helper(); c.signal(syscall.SIGQUIT) }

func (c *cluster) signal(sig syscall.Signal) {
	c.t.Helper()
	if c.server == nil {
		return
	}
	if c.running() {
		check(c.t, c.server.cmd.Process.Signal(sig))
	}
	c.waitExit()
}

// waitExit waits until the postmaster has ended and returns its exit status.
func (c *cluster) waitExit() int {
	c.t.Helper()
	select {
	case <-c.server.exited:
	case <-time.After(patience):
		c.server.cmd.Process.Kill()
		c.t.Fatalf("the server did not end within %s", patience)
	}
	code := exitCode(c.server.err)
	c.server = nil
	return code
}

// sql runs a script and returns what it prints, unaligned, without headers.
func (c *cluster) sql(script string) string {
	c.t.Helper()
	out, err := c.trySQL(script)
	if err != nil {
		c.t.Fatalf("sql: %v\n%s", err, script)
	}
	return out
}

func (c *cluster) trySQL(script string) (string, error) {
	cmd := c.psql()
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func (c *cluster) psql() *exec.Cmd {
	return home.command(filepath.Join(debian15, "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", c.dir, "-U", "postgres", "-d", "postgres", "-f", "-")
}

// logged is what the server wrote to its log so far.
func (c *cluster) logged() string {
	b, err := os.ReadFile(c.log)
	if err != nil && !os.IsNotExist(err) {
		c.t.Error(err)
	}
	return string(b)
}

// recovering tells whether the server is in recovery, by its own word.
func (c *cluster) recovering() bool {
	c.t.Helper()
	return c.sql("SELECT pg_is_in_recovery()") == "t"
}

// control is one field of pg_control, as pg_controldata prints it. It is for
// version 15.
func (c *cluster) control(field string) string {
	c.t.Helper()
	out, err := home.command(filepath.Join(debian15, "pg_controldata"), c.data).CombinedOutput()
	if err != nil {
		c.t.Fatalf("pg_controldata: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(field) + `:\s*(.*)$`).FindStringSubmatch(string(out))
	if m == nil {
		c.t.Fatalf("pg_controldata has no %q", field)
	}
	return m[1]
}

// switchWAL ends the current segment and waits until everything is archived.
func (c *cluster) switchWAL() {
	c.t.Helper()
	c.sql("SELECT pg_switch_wal()")
	c.waitArchived()
}

// waitArchived waits until no file waits for the archiver.
func (c *cluster) waitArchived() {
	c.t.Helper()
	eventually(c.t, "everything is archived", func() bool { return len(c.status(".ready")) == 0 })
}

// status lists the files whose archive status is suffix, without it.
func (c *cluster) status(suffix string) []string {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.data, "pg_wal", "archive_status", "*"+suffix))
	check(c.t, err)
	for i, f := range found {
		found[i] = strings.TrimSuffix(filepath.Base(f), suffix)
	}
	return found
}

// walFile is the path of a file in pg_wal.
func (c *cluster) walFile(name string) string { return filepath.Join(c.data, "pg_wal", name) }
