package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mount is an archive's mount that a process serves in the foreground.
type mount struct {
	t      testing.TB
	dir    string
	log    string // what the daemon has said
	cmd    *exec.Cmd
	exited chan struct{} // closed when the daemon has ended
	notify *net.UnixConn // what it tells a service manager
}

// TestMain's child has mounts of its own where root runs it: what is done to
// /dev and /usr/sbin here, the machine does not see.

// fuseForAll lets everybody use /dev/fuse, as udev does where fuse3 is installed.
var fuseForAll = sync.OnceValue(func() error {
	if os.Getuid() != 0 {
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("this needs FUSE: %w (run the tests as root, or make /dev/fuse accessible)", err)
		}
		return f.Close()
	}
	device := filepath.Join(home.dir, "fuse")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		return err
	}
	if err := os.Chmod(device, 0o666); err != nil {
		return err
	}
	return unix.Mount(device, "/dev/fuse", "", unix.MS_BIND, "")
})

// needFUSE skips a test where nobody can mount.
func needFUSE(t testing.TB) {
	t.Helper()
	if err := fuseForAll(); err != nil {
		t.Skip(err)
	}
}

// asRoot is a command that runs as we do: as root, where root runs the tests.
func asRoot(name string, args ...string) *exec.Cmd {
	cmd := home.command(name, args...)
	cmd.SysProcAttr.Credential = nil
	return cmd
}

// startMount mounts what a configuration names: as whoever the command runs as.
func startMount(t testing.TB, command func(string, ...string) *exec.Cmd, config string, flags ...string) *mount {
	t.Helper()
	needFUSE(t)
	dir := newDirectory(t, "m")
	m := &mount{t: t, dir: filepath.Join(dir, "mnt"), log: filepath.Join(dir, "log")}
	check(t, os.Mkdir(m.dir, 0o755))
	check(t, home.give(m.dir))
	m.start(command, append([]string{"-C", config, "--cache-dir", filepath.Join(dir, "cache")}, flags...)...)
	t.Cleanup(m.end)
	return m
}

// start starts the daemon, and waits until it says that it is ready.
func (m *mount) start(command func(string, ...string) *exec.Cmd, flags ...string) {
	m.t.Helper()
	socket := filepath.Join(filepath.Dir(m.dir), "notify")
	os.Remove(socket)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(m.t, err)
	check(m.t, os.Chmod(socket, 0o666))
	m.t.Cleanup(func() { conn.Close() })
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(m.t, err)
	defer log.Close()
	cmd := command(home.pitr, append(append([]string{"mount", "--foreground"}, flags...), m.dir)...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket)
	cmd.Stderr = log
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	check(m.t, cmd.Start())
	m.cmd, m.notify, m.exited = cmd, conn, make(chan struct{})
	go func(exited chan struct{}) { _ = cmd.Wait(); close(exited) }(m.exited)
	m.wantTold("READY=1")
}

// wantTold waits for what the service manager is told next.
func (m *mount) wantTold(want string) {
	m.t.Helper()
	got := make([]byte, 100)
	for end := time.Now().Add(patience); ; {
		_ = m.notify.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := m.notify.Read(got)
		if err == nil {
			if string(got[:n]) != want {
				m.t.Errorf("the service manager is told %q, want %q", got[:n], want)
			}
			return
		}
		if !m.running() || time.Now().After(end) {
			m.t.Fatalf("nothing is told, want %q; running %v, the log:\n%s", want, m.running(), readFile(m.t, m.log))
		}
	}
}

func (m *mount) running() bool {
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// waitEnded waits for the daemon's end, and returns its status.
func (m *mount) waitEnded() int {
	m.t.Helper()
	select {
	case <-m.exited:
	case <-time.After(patience):
		m.cmd.Process.Kill()
		m.t.Fatalf("the mount's daemon does not end; its log:\n%s", readFile(m.t, m.log))
	}
	return m.cmd.ProcessState.ExitCode()
}

// end ends the daemon with the test, and makes sure that it leaves nothing.
func (m *mount) end() {
	m.t.Helper()
	if m.running() {
		_ = m.cmd.Process.Signal(syscall.SIGCONT)
		_ = m.cmd.Process.Signal(syscall.SIGTERM)
	}
	if status := m.waitEnded(); status > 0 {
		m.t.Errorf("the mount's daemon ended with status %d", status)
	}
	for isMounted(m.t, m.dir) {
		m.t.Errorf("%s is still mounted", m.dir)
		if unix.Unmount(m.dir, unix.MNT_DETACH) != nil && exec.Command("fusermount3", "-uz", m.dir).Run() != nil {
			break
		}
	}
	if m.t.Failed() {
		m.t.Logf("log of the mount on %s:\n%s", m.dir, tail(string(readFile(m.t, m.log)), 30))
	}
}

// isMounted looks into the list of mounts: nothing else is sure not to hang.
func isMounted(t testing.TB, dir string) bool {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, "/proc/self/mountinfo"))) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == dir {
			return true
		}
	}
	return false
}

// mountsLeft are the mounts of archives below a directory, and the processes that
// serve one.
func mountsLeft(dir string) (all []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " - fuse.pitr ") && strings.Contains(line, dir+"/") {
			all = append(all, line)
		}
	}
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		text, err := os.ReadFile(path)
		words := strings.Split(string(text), "\x00")
		if err == nil && len(words) > 1 && words[1] == "mount" && strings.Contains(string(text), dir+"/") {
			all = append(all, strings.Join(words, " "))
		}
	}
	return all
}

// descriptors counts the files of the cache that the daemon has open. (Connections
// and the pipes that it copies through are kept.)
func (m *mount) descriptors() (n int) {
	for _, path := range glob(m.t, "/proc", strconv.Itoa(m.cmd.Process.Pid), "fd", "*") {
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, filepath.Dir(m.dir)) {
			n++
		}
	}
	return n
}

// wal is the path of a file in the mount.
func (m *mount) wal(name string) string { return filepath.Join(m.dir, "wal", name) }

// shell runs a script as the servers' user, with the mount as $M and everything
// else as arguments. No test may touch a mount itself: it could not be killed where
// that hangs.
func (m *mount) shell(script string, args ...string) result {
	cmd := home.command("timeout", append([]string{"-k", "1", "120", "bash", "-c", script, "bash"}, args...)...)
	cmd.Env = append(cmd.Env, "M="+m.dir, "PGBIN="+debian15)
	return run(cmd)
}

// want runs a script that must succeed, and returns what it prints.
func (m *mount) want(script string, args ...string) string {
	m.t.Helper()
	r := m.shell(script, args...)
	if r.status != 0 {
		m.t.Errorf("%s", r)
	}
	return strings.TrimSpace(r.stdout)
}

// mountConfig writes a configuration for a mount.
func mountConfig(t testing.TB, a *archive, pgdata string, lines ...string) string {
	t.Helper()
	path := filepath.Join(newDirectory(t, "i"), "pitr.ini")
	if a.route != nil {
		lines = append(lines, a.route.lines()...)
	}
	if pgdata != "" {
		lines = append(lines, "pgdata = "+pgdata)
	}
	writeFile(t, path, fmt.Sprintf("[DEFAULT]\narchive = %s\n%s\n", a.url(), strings.Join(lines, "\n")))
	return path
}

// TestMount shows one cluster's archives in every way.
func TestMount(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	p := newPast(t)
	t.Run("shows the archive", func(t *testing.T) {
		t.Parallel()
		for name, command := range map[string]func(string, ...string) *exec.Cmd{"root": asRoot, "user": home.command} {
			for _, form := range []string{"tree", "flat"} {
				t.Run(name+"/"+form, func(t *testing.T) { t.Parallel(); mountShows(t, p, command, form) })
			}
		}
	})
	t.Run("without identity", func(t *testing.T) { t.Parallel(); mountWithoutIdentity(t, p) })
	t.Run("background", func(t *testing.T) { t.Parallel(); mountInBackground(t, p) })
	t.Run("at once", func(t *testing.T) { t.Parallel(); mountedAtOnce(t, p) })
	t.Run("busy", func(t *testing.T) { t.Parallel(); mountBusy(t, p) })
	t.Run("waited for", func(t *testing.T) { t.Parallel(); mountWaitedFor(t, p) })
	t.Run("killed", func(t *testing.T) { t.Parallel(); mountKilled(t, p) })
	t.Run("silent", func(t *testing.T) { t.Parallel(); mountSilent(t, p) })
	t.Run("frozen", func(t *testing.T) { t.Parallel(); mountFrozen(t, p) })
	t.Run("signals", func(t *testing.T) { t.Parallel(); mountSignals(t, p) })
	t.Run("open files", func(t *testing.T) { t.Parallel(); mountOpenFiles(t, p) })
	t.Run("fstab", func(t *testing.T) { t.Parallel(); mountByFstab(t, p) })
	t.Run("automount", func(t *testing.T) { t.Parallel(); mountByAutomount(t, p) })
	t.Run("hints", func(t *testing.T) { t.Parallel(); mountHints(t, p) })
	t.Run("namespaces", func(t *testing.T) { t.Parallel(); mountInNamespaces(t, p) })
	t.Run("as an archive", func(t *testing.T) { t.Parallel(); mountAsArchive(t, p) })
	t.Run("restore_command", func(t *testing.T) { t.Parallel(); restoreOverMount(t, p) })
	t.Run("cp opens early", func(t *testing.T) { t.Parallel(); copyOpensEarly(t, p) })
	t.Run("cp", func(t *testing.T) { t.Parallel(); copyFromMount(t, p) })
}

// mountShows reads an archive behind an sshd with everybody's programs.
func mountShows(t *testing.T, p *past, command func(string, ...string) *exec.Cmd, form string) {
	a := p.archives[form].copyFor(t)
	a.route = newRoute(t)
	m := startMount(t, command, mountConfig(t, a, p.backup))
	m.want(`cat $M/wal/$1 >/dev/null`, p.segments[0])
	before := m.descriptors()
	plain := newDirectory(t, "p")
	for _, name := range p.segments {
		writeFile(t, filepath.Join(plain, name), string(a.raw(name)))
	}
	got := m.want(`cd $M/wal && find . -type f -name '0*' -printf '%f %s\n' | sort | grep -E '^[0-9A-F]{24} '`)
	var want []string
	for _, name := range p.segments {
		want = append(want, fmt.Sprintf("%s %d", name, pastSegmentMB<<20))
	}
	if !strings.Contains(got, strings.Join(want, "\n")) {
		t.Errorf("find says\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	m.want(`for f in "$1"/*; do cmp "$f" "$M/wal/${f##*/}" || exit; done`, plain)
	m.want(`tar -C $M/wal -cf - . | tar -C "$1" -xf - && diff -rq "$1" $M/wal && ls $M/wal | wc -l`, newDirectory(t, "x"))
	m.want(`rsync -r $M/wal/ "$1"/ && diff -rq "$1" $M/wal`, newDirectory(t, "x"))
	m.want(`$PGBIN/pg_waldump -q -p $M/wal "$1" "$2" || true; $PGBIN/pg_waldump -p $M/wal "$1" | grep -q COMMIT`, p.segments[len(p.segments)/2], p.middle)
	m.want(`test "$(cat $M/.pitr/identity.json | tr -d ' \n' | wc -c)" -gt 50 && cat $M/.pitr/health.json $M/.pitr/metrics >/dev/null && test -d $M/backup`)
	m.wantReadOnly(p.middle)
	if r := m.shell(`cat $M/wal/0000000100000000000000FF`); r.status != 1 || !strings.Contains(r.stderr, "No such file") {
		t.Errorf("a segment that never was: %s", r)
	}
	// What the kernel and the readers have let go of, the daemon has, too.
	eventually(t, "no descriptor is left", func() bool { return m.descriptors() <= before })
}

// wantReadOnly tries every way to change something.
func (m *mount) wantReadOnly(name string) {
	m.t.Helper()
	for _, change := range []string{
		"rm -f $M/wal/$1", "touch $M/wal/$1", "touch $M/new", "mv $M/wal/$1 $M/wal/x", "chmod 600 $M/wal/$1", "truncate -s 0 $M/wal/$1", "echo >> $M/wal/$1",
		"mkdir $M/backup/x", "rmdir $M/backup", "ln $M/wal/$1 $M/wal/x", "ln -s x $M/x", "mkfifo $M/x", "rm -f $M/.pitr/health.json",
	} {
		for who, command := range map[string]func(string, ...string) *exec.Cmd{"user": home.command, "root": asRoot} {
			cmd := command("bash", "-c", change, "bash", name)
			cmd.Env = append(cmd.Env, "M="+m.dir)
			r := run(cmd)
			allowed := who == "user" || m.cmd.SysProcAttr.Credential == nil // root is another user to a user's mount
			if allowed && (r.status == 0 || !strings.Contains(r.stderr, "Read-only file system")) {
				m.t.Errorf("%s: %s", who, r)
			}
		}
	}
}

// mountWithoutIdentity mounts a directory of plain files.
func mountWithoutIdentity(t *testing.T, p *past) {
	a := p.archives["flat"].copyFor(t)
	check(t, os.Remove(filepath.Join(a.dir, "archive.json")))
	for name, pgdata := range map[string]string{"pgdata": p.backup, "no pgdata": ""} {
		m := startMount(t, asRoot, mountConfig(t, a, pgdata, "layout = flat"), "--uid", strconv.Itoa(userID()))
		m.want(`cmp "$1" $M/wal/$2 && test ! -e $M/wal/archive.json`, a.stored(p.middle), p.middle)
		if t.Failed() {
			t.Logf("with %s", name)
		}
	}
	// Not asked for, it is no archive.
	m := &mount{dir: filepath.Join(newDirectory(t, "m"), "mnt")}
	check(t, os.Mkdir(m.dir, 0o755))
	r := run(asRoot(home.pitr, "mount", "-C", mountConfig(t, a, p.backup), m.dir))
	if r.status != 1 || !strings.Contains(r.stderr, "layout: flat") || isMounted(t, m.dir) {
		t.Errorf("without layout: %s", r)
	}
}

// userID is the servers' user.
func userID() int {
	if home.user != nil {
		return int(home.user.Uid)
	}
	return os.Getuid()
}

// mountInBackground: the command returns when the mount answers, and what serves it
// is nobody's child.
func mountInBackground(t *testing.T, p *past) {
	config := mountConfig(t, p.archives["tree"], p.backup)
	dir := newDirectory(t, "m")
	mnt, log := filepath.Join(dir, "mnt"), filepath.Join(dir, "log")
	check(t, os.Mkdir(mnt, 0o755))
	cmd := asRoot(home.pitr, "mount", config, mnt, "--cache-dir", filepath.Join(dir, "cache"), "--log", log)
	r := run(cmd) // whose pipes would be held open by a child that has them
	if r.status != 0 || r.stdout+r.stderr != "" || !isMounted(t, mnt) {
		t.Fatal(r)
	}
	pid := daemonOf(t, mnt)
	stat := strings.Fields(string(readFile(t, fmt.Sprintf("/proc/%d/stat", pid))))
	if group, session := stat[4], stat[5]; group != strconv.Itoa(pid) || session != strconv.Itoa(pid) {
		t.Errorf("process %d is in group %s and session %s", pid, group, session)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
		t.Errorf("it works in %s, %v", cwd, err)
	}
	if again := run(asRoot(home.pitr, "mount", config, mnt)); again.status != 1 || !strings.Contains(again.stderr, "is mounted there already") {
		t.Errorf("a second time: %s", again)
	}
	if r := run(asRoot(home.pitr, "umount", mnt)); r.status != 0 || isMounted(t, mnt) {
		t.Errorf("umount: %s", r)
	}
	waitGone(t, pid)
	if text := string(readFile(t, log)); !strings.Contains(text, "mounted dir="+mnt) || !strings.Contains(text, "unmounted dir="+mnt) {
		t.Errorf("the log says %q", text)
	}
	if r := run(asRoot(home.pitr, "umount", mnt)); r.status != 1 || !strings.Contains(r.stderr, "nothing is mounted on") {
		t.Errorf("umount again: %s", r)
	}
}

// mountedAtOnce: of many who mount on one directory at the same time one does, and the
// others say that it is mounted.
func mountedAtOnce(t *testing.T, p *past) {
	config := mountConfig(t, p.archives["tree"], p.backup)
	dir := newDirectory(t, "m")
	mnt := filepath.Join(dir, "mnt")
	check(t, os.Mkdir(mnt, 0o755))
	results := make([]result, 4)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() {
			results[i] = run(asRoot(home.pitr, "mount", config, mnt, "--cache-dir", fmt.Sprintf("%s/cache%d", dir, i/2)))
		})
	}
	all.Wait()
	mounted := 0
	for _, r := range results {
		switch {
		case r.status == 0:
			mounted++
		case r.status != 1 || !strings.Contains(r.stderr, "is mounted there already"):
			t.Errorf("%s", r)
		}
	}
	if n := strings.Count(string(readFile(t, "/proc/self/mountinfo")), " "+mnt+" "); n != 1 || mounted != 1 {
		t.Errorf("mounted %d times, and %d commands say so", n, mounted)
	}
	for isMounted(t, mnt) {
		pid := daemonOf(t, mnt)
		if r := run(asRoot(home.pitr, "umount", mnt)); r.status != 0 {
			t.Fatalf("umount: %s", r)
		}
		waitGone(t, pid)
	}
}

// daemonOf finds who serves a mount.
func daemonOf(t testing.TB, mnt string) int {
	t.Helper()
	for _, path := range glob(t, "/proc", "[0-9]*", "cmdline") {
		line, _ := os.ReadFile(path)
		words := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if len(words) > 2 && words[1] == "mount" && words[len(words)-1] == mnt {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			return pid
		}
	}
	t.Fatalf("nobody serves %s", mnt)
	return 0
}

func waitGone(t testing.TB, pid int) {
	t.Helper()
	eventually(t, "the daemon has ended", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}
