package test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pitr/test/proxy"
)

// holder starts a process that uses a mount.
func (m *mount) holder(script string, args ...string) *exec.Cmd {
	m.t.Helper()
	cmd := home.command("bash", append([]string{"-c", script, "bash"}, args...)...)
	cmd.Env = append(cmd.Env, "M="+m.dir)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	out, err := cmd.StdoutPipe()
	check(m.t, err)
	check(m.t, cmd.Start())
	m.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	ready := make([]byte, 1)
	if _, err := out.Read(ready); err != nil {
		m.t.Fatalf("%s: it never was ready: %v", script, err)
	}
	return cmd
}

// mountBusy: who holds a mount is named, with what; only --lazy goes on.
func mountBusy(t *testing.T, p *past) {
	m := startMount(t, asRoot, mountConfig(t, p.archives["tree"], p.backup))
	umount := func(flags ...string) result {
		return run(asRoot(home.pitr, append([]string{"umount", m.dir}, flags...)...))
	}
	for what, script := range map[string]string{
		"working directory " + m.dir + "/wal": `cd $M/wal; echo; exec sleep 1001`,
		"open file " + m.wal(p.middle):        `exec 7<$M/wal/$1; echo; exec sleep 1001`,
	} {
		h := m.holder(script, p.middle)
		r := umount()
		want := fmt.Sprintf("process %d (sleep 1001): %s", h.Process.Pid, what)
		if r.status != 1 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "--lazy") || !isMounted(t, m.dir) {
			t.Errorf("want %q: %s", want, r)
		}
		h.Process.Kill()
		h.Wait()
	}
	// Lazy: out of sight at once, and good to who has it open.
	in, out, err := os.Pipe()
	check(t, err)
	defer out.Close()
	reader := home.command("bash", "-c", `exec 7<$M/wal/$1; echo; read; cat <&7 | cmp - "$2"`, "bash", p.middle, p.archives["flat"].stored(p.middle))
	reader.Env, reader.Stdin = append(reader.Env, "M="+m.dir), in
	said, err := reader.StdoutPipe()
	check(t, err)
	check(t, reader.Start())
	in.Close()
	_, err = said.Read(make([]byte, 1))
	check(t, err)
	if r := umount("--lazy"); r.status != 0 || isMounted(t, m.dir) {
		t.Errorf("lazily: %s", r)
	}
	eventually(t, "the daemon has seen that it is out of sight", func() bool { return strings.Contains(string(readFile(t, m.log)), "still has it") })
	if !m.running() {
		t.Error("the daemon ended while a file was open")
	}
	_, err = out.WriteString("go on\n")
	check(t, err)
	if err := reader.Wait(); err != nil {
		t.Errorf("who had it open: %v", err)
	}
	if status := m.waitEnded(); status != 0 {
		t.Errorf("the daemon ended with %d", status)
	}
}

// mountWaitedFor: who waits for an archive that is away has nothing open, and holds the
// mount nevertheless. The end of the daemon is the end of the wait.
func mountWaitedFor(t *testing.T, p *past) {
	a := p.archives["tree"].copyFor(t)
	m := startMount(t, asRoot, mountConfig(t, a, p.backup))
	check(t, os.Rename(a.dir, a.dir+".away"))
	h := m.holder(`echo; exec cat "$M/wal/$1"`, p.middle)
	named := regexp.MustCompile(fmt.Sprintf(`process %d \(cat .*\): waits for an answer`, h.Process.Pid))
	eventually(t, "the reader waits", func() bool { return strings.Contains(string(readFile(t, m.log)), "readers wait") })
	r := run(asRoot(home.pitr, "umount", m.dir))
	if r.status != 1 || !isMounted(t, m.dir) || os.Getuid() == 0 && !named.MatchString(r.stderr) {
		t.Errorf("want %s: %s", named, r)
	}
	check(t, m.cmd.Process.Signal(syscall.SIGTERM))
	if status := m.waitEnded(); status != 0 {
		t.Errorf("the daemon ended with %d", status)
	}
	if err := h.Wait(); err == nil {
		t.Error("the reader was given what is not there")
	}
}

// mountKilled: the daemon dies. Nobody hangs, and the next mount clears what is left.
func mountKilled(t *testing.T, p *past) {
	for name, command := range map[string]func(string, ...string) *exec.Cmd{"root": asRoot, "user": home.command} {
		t.Run(name, func(t *testing.T) {
			config := mountConfig(t, p.archives["tree"], p.backup)
			m := startMount(t, command, config)
			h := m.holder(`exec 7<$M/wal/$1; cd $M; echo; exec sleep 1001`, p.middle)
			check(t, m.cmd.Process.Kill())
			m.waitEnded()
			for _, script := range []string{`ls $M/wal`, `cat $M/wal/$1`, fmt.Sprintf(`cat /proc/%d/fd/7`, h.Process.Pid)} {
				r := m.shell(script, p.middle)
				if r.status == 0 || r.status > 2 || !strings.Contains(r.stderr, "Transport endpoint is not connected") && !strings.Contains(r.stderr, "Permission denied") {
					t.Errorf("%s", r)
				}
			}
			before := len(readFile(t, m.log))
			m.start(command, "-C", config, "--cache-dir", filepath.Join(filepath.Dir(m.dir), "cache"))
			if log := string(readFile(t, m.log)[before:]); !strings.Contains(log, "a dead mount of an earlier run was cleared") {
				t.Errorf("the log says %q", log)
			}
			m.want(`cmp $M/wal/$1 "$2"`, p.middle, p.archives["flat"].stored(p.middle))
			// umount clears one too, though somebody is still in it.
			m.holder(`cd $M; echo; exec sleep 1001`)
			check(t, m.cmd.Process.Kill())
			m.waitEnded()
			if r := run(command(home.pitr, "umount", m.dir)); r.status != 0 || !strings.Contains(r.stdout, "dead mount was cleared") || isMounted(t, m.dir) {
				t.Errorf("umount: %s", r)
			}
			m.killed()
		})
	}
}

// killed forgets a daemon that was killed.
func (m *mount) killed() {
	m.cmd = exec.Command("true")
	check(m.t, m.cmd.Run())
}

// mountSilent: a daemon that is stopped hangs nobody who asks about it.
func mountSilent(t *testing.T, p *past) {
	m := startMount(t, asRoot, mountConfig(t, p.archives["tree"], p.backup))
	mend := hang(t, m.cmd.Process)
	if r := run(asRoot(home.pitr, "mount", mountConfig(t, p.archives["tree"], p.backup), m.dir)); r.status != 1 || !strings.Contains(r.stderr, "no answer within") {
		t.Errorf("mount: %s", r)
	}
	if r := run(asRoot(home.pitr, "umount", "--lazy", m.dir)); r.status != 0 || isMounted(t, m.dir) {
		t.Errorf("umount --lazy: %s", r)
	}
	mend()
	m.waitEnded()
}

// mountFrozen: a daemon is stopped while somebody waits for an archive that is away. Its
// question was taken, so no signal ends the reader; the end of the mount does, or, where
// only root could do that, the end of the daemon, which is named.
func mountFrozen(t *testing.T, p *past) {
	for name, command := range map[string]func(string, ...string) *exec.Cmd{"root": asRoot, "user": home.command} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := p.archives["tree"].copyFor(t)
			m := startMount(t, command, mountConfig(t, a, p.backup))
			check(t, os.Rename(a.dir, a.dir+".away"))
			h := m.holder(`echo; exec cat "$M/wal/$1"`, p.middle)
			eventually(t, "the reader waits", func() bool { return strings.Contains(string(readFile(t, m.log)), "readers wait") })
			mend := hang(t, m.cmd.Process)
			check(t, h.Process.Kill())
			named := fmt.Sprintf("process %d (", m.cmd.Process.Pid)
			r := run(command(home.pitr, "umount", m.dir))
			if r.status != 1 || !strings.Contains(r.stderr, named) || !strings.Contains(r.stderr, "umount --lazy") || !isMounted(t, m.dir) {
				t.Errorf("umount: want %q: %s", named, r)
			}
			r = run(command(home.pitr, "umount", "--lazy", m.dir))
			if r.status != 0 || isMounted(t, m.dir) {
				t.Errorf("umount --lazy: %s", r)
			}
			if os.Getuid() != 0 || name == "user" && strings.Contains(r.stderr, "kill -9") {
				if !strings.Contains(r.stderr, named) {
					t.Errorf("the daemon is not named: %s", r)
				}
				check(t, m.cmd.Process.Kill())
				m.waitEnded()
				defer m.killed()
			} else {
				defer func() { mend(); m.waitEnded() }()
			}
			gone := make(chan error, 1)
			go func() { gone <- h.Wait() }()
			select {
			case err := <-gone:
				if err == nil {
					t.Error("the reader was given what is not there")
				}
			case <-time.After(patience):
				t.Error("the reader hangs for ever")
			}
		})
	}
}

// mountSignals: told to end, it unmounts and ends well, also while it is in use.
func mountSignals(t *testing.T, p *past) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		for _, use := range []string{"idle", "busy"} {
			m := startMount(t, asRoot, mountConfig(t, p.archives["tree"], p.backup))
			if use == "busy" {
				m.holder(`exec 7<$M/wal/$1; cd $M; echo; exec sleep 1001`, p.middle)
			}
			check(t, m.cmd.Process.Signal(sig))
			m.wantTold("STOPPING=1")
			want := 0
			if sig == syscall.SIGHUP {
				want = 129
			}
			if status := m.waitEnded(); status != want || isMounted(t, m.dir) {
				t.Errorf("%s, %s: status %d, mounted %v", sig, use, status, isMounted(t, m.dir))
			}
			if log := string(readFile(t, m.log)); use == "busy" && !strings.Contains(log, "sleep 1001") {
				t.Errorf("who used it is not told: %s", log)
			}
			m.killed()
		}
	}
}

// mountOpenFiles: what a reader has open survives everything that can be mended.
func mountOpenFiles(t *testing.T, p *past) {
	a := p.archives["flat"].copyFor(t)
	a.route = newRoute(t)
	config := mountConfig(t, a, p.backup)
	m := startMount(t, asRoot, config, "--ahead", "0")
	last := len(p.segments) - 1
	read := func(name string) {
		t.Helper()
		m.want(`cmp $M/wal/$1 "$2"`, name, a.stored(name))
	}
	read(p.segments[1]) // of the first one nothing proves yet that it will stay good

	// sshd away: a reader waits, and goes on when it is back.
	mend := a.route.stop()
	h := m.holder(`exec 7<"$2"; echo; exec cmp $M/wal/$1 - <&7`, p.segments[0], a.stored(p.segments[0]))
	read(p.segments[1]) // what was fetched needs no sshd
	mend()
	if err := h.Wait(); err != nil {
		t.Errorf("the reader that waited for sshd: %v", err)
	}

	// A connection that is cut in mid file.
	mend = a.route.goes(proxy.Plan{Down: proxy.Flow{After: 500_000, Then: proxy.Cut}})
	h = m.holder(`exec 7<"$2"; echo; exec cmp $M/wal/$1 - <&7`, p.segments[2], a.stored(p.segments[2]))
	mend()
	if err := h.Wait(); err != nil {
		t.Errorf("the reader whose connection was cut: %v", err)
	}

	// The daemon restarts: what was open is lost, what is opened again is there.
	read(p.segments[last])
	check(t, m.cmd.Process.Signal(syscall.SIGTERM))
	m.waitEnded()
	mend = a.route.stop()
	mend()
	m.start(asRoot, "-C", config, "--cache-dir", filepath.Join(filepath.Dir(m.dir), "cache"))
	read(p.segments[last])
	read(p.segments[3])

	// A reader that is interrupted while it waits ends at once.
	mend = a.route.stop()
	defer mend()
	h = m.holder(`echo; exec cat $M/wal/$1 >/dev/null`, p.segments[4])
	eventually(t, "the reader waits", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.Process.Pid))
		return err == nil && strings.HasPrefix(string(stat), "cat")
	})
	check(t, h.Process.Signal(syscall.SIGINT))
	if err := h.Wait(); err == nil {
		t.Error("it was interrupted and ended well")
	}
}

// linkHelper puts mount.pitr where mount(8) looks for it, for this process and
// its children alone.
var linkHelper = sync.OnceValue(func() error {
	const sbin = "/usr/sbin"
	was, links := filepath.Join(home.dir, "sbin-was"), filepath.Join(home.dir, "sbin")
	for _, dir := range []string{was, links} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(sbin, was, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	entries, err := os.ReadDir(was)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "mount.pitr" {
			if err := os.Symlink(filepath.Join(was, e.Name()), filepath.Join(links, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Symlink(home.applet("mount.pitr"), filepath.Join(links, "mount.pitr")); err != nil {
		return err
	}
	return unix.Mount(links, sbin, "", unix.MS_BIND, "")
})

// mountByFstab: mount(8) finds the helper, for a line of fstab and by hand.
func mountByFstab(t *testing.T, p *past) {
	if os.Getuid() != 0 {
		t.Skip("mount -a is root's: run the tests as root")
	}
	check(t, linkHelper())
	a := p.archives["tree"].copyFor(t)
	a.route = newRoute(t)
	dir := newDirectory(t, "m")
	fstab := filepath.Join(dir, "fstab")
	mounts := []string{filepath.Join(dir, "by file"), filepath.Join(dir, "url")}
	for _, mnt := range mounts {
		check(t, os.Mkdir(mnt, 0o755))
	}
	config := mountConfig(t, a, p.backup)
	writeFile(t, fstab, fmt.Sprintf("%s %s pitr ro,_netdev,nofail,x-systemd.automount,cache=%s/c1 0 0\n%s %s pitr uid=%d,cache=%s/c2,identity_file=%s,known_hosts=%s,on_error=fail 0 0\n",
		config, strings.ReplaceAll(mounts[0], " ", `\040`), dir,
		a.url(), mounts[1], userID(), dir, a.route.server.Identity, a.route.server.KnownHosts))
	for range 2 { // the second time everything is there
		if r := run(asRoot("mount", "-a", "-T", fstab)); r.status != 0 {
			t.Fatal(r)
		}
	}
	for _, mnt := range mounts {
		m := &mount{t: t, dir: mnt}
		m.want(`cmp "$M/wal/$1" "$2" && findmnt -no FSTYPE,OPTIONS "$M" | grep -q 'fuse.pitr *ro,nosuid,nodev'`, p.middle, p.archives["flat"].stored(p.middle))
		pid := daemonOf(t, mnt)
		if r := run(asRoot("umount", mnt)); r.status != 0 || isMounted(t, mnt) {
			t.Errorf("umount: %s", r)
		}
		waitGone(t, pid)
	}
	// Statuses are those that mount(8) knows.
	for _, tt := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-t", "pitr", config, mounts[1], "-o", "alow_other"}, 1, `did you mean "allow_other"?`},
		{[]string{"-t", "pitr", filepath.Join(dir, "none.ini"), mounts[1]}, 1, "no such file"},
		{[]string{"-t", "pitr", "file:///nonexistent/archive", mounts[1]}, 32, "no archive here"},
		{[]string{"-t", "pitr", config, filepath.Join(dir, "none")}, 32, ""}, // mount(8) or the helper says so
		{[]string{"-f", "-t", "pitr", config, mounts[1]}, 0, ""},
	} {
		if r := run(asRoot("mount", tt.args...)); r.status != tt.status || !strings.Contains(r.stderr, tt.says) || isMounted(t, mounts[1]) {
			t.Errorf("want status %d: %s", tt.status, r)
		}
	}
}

// mountByAutomount plays systemd's part for x-systemd.automount: whoever comes to the
// directory waits until the helper has mounted there.
func mountByAutomount(t *testing.T, p *past) {
	if os.Getuid() != 0 {
		t.Skip("an automount is root's: run the tests as root")
	}
	dir := newDirectory(t, "m")
	mnt := filepath.Join(dir, "mnt")
	check(t, os.Mkdir(mnt, 0o755))
	asks, w, err := os.Pipe()
	check(t, err)
	defer asks.Close()
	err = unix.Mount("test", mnt, "autofs", 0, fmt.Sprintf("fd=%d,pgrp=%d,minproto=5,maxproto=5,direct", w.Fd(), unix.Getpgrp()))
	w.Close()
	if errors.Is(err, syscall.ENODEV) {
		t.Skip("this kernel has no autofs")
	}
	check(t, err)
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	control, err := os.Open(mnt)
	check(t, err)
	defer control.Close()

	var came result
	done := make(chan struct{})
	go func() {
		defer close(done)
		cmd := asRoot("cmp", filepath.Join(mnt, "wal", p.middle), p.archives["flat"].stored(p.middle))
		cmd.SysProcAttr.Setsid = true // a stranger to who mounts
		came = run(cmd)
	}()
	packet := make([]byte, 304) // struct autofs_v5_packet: version, type, token, ...
	_, err = io.ReadFull(asks, packet)
	check(t, err)
	r := run(asRoot(home.applet("mount.pitr"), mountConfig(t, p.archives["tree"], p.backup), mnt, "-o", "rw,cache="+filepath.Join(dir, "cache")))
	answer := uint(0x9360) // AUTOFS_IOC_READY
	if r.status != 0 {
		t.Errorf("the helper: %s", r)
		answer = 0x9361 // AUTOFS_IOC_FAIL
	}
	check(t, unix.IoctlSetInt(int(control.Fd()), answer, int(binary.NativeEndian.Uint32(packet[8:]))))
	<-done
	if came.status != 0 {
		t.Errorf("who came there: %s", came)
	}
	if r.status == 0 {
		pid := daemonOf(t, mnt)
		if r := run(asRoot(home.pitr, "umount", mnt)); r.status != 0 {
			t.Errorf("umount: %s", r)
		}
		waitGone(t, pid)
	}
}

// unsharing runs a script in namespaces of its own.
func unsharing(command func(string, ...string) *exec.Cmd, flags, script string, args ...string) result {
	return run(command("unshare", append([]string{flags, "bash", "-c", script, "bash"}, args...)...))
}

// mountHints: each way in which a mount cannot be is explained.
func mountHints(t *testing.T, p *past) {
	if os.Getuid() != 0 {
		t.Skip("what is missing has to be taken away: run the tests as root")
	}
	dir := newDirectory(t, "m")
	mnt := filepath.Join(dir, "mnt")
	check(t, os.Mkdir(mnt, 0o755))
	check(t, home.give(mnt))
	config := mountConfig(t, p.archives["tree"], p.backup)
	const asUser = `exec setpriv --reuid=$UID_ --regid=$UID_ --clear-groups "$0" mount -C "$2" --cache-dir "$3" "$1"`
	for name, tt := range map[string]struct{ script, says string }{
		"no device":                  {`mount -t tmpfs x /dev; mknod -m 666 /dev/null c 1 3; "$0" mount -C "$2" --cache-dir "$3" "$1"`, "/dev/fuse is missing"},
		"no capability":              {`exec setpriv --bounding-set=-sys_admin "$0" mount -C "$2" --cache-dir "$3" "$1"`, "--cap-add SYS_ADMIN"},
		"a user, device 0600":        {`umount /dev/fuse; chmod 600 /dev/fuse; ` + asUser, "chmod 666 /dev/fuse"},
		"a user without fusermount3": {`mount --bind /dev/null /usr/bin/fusermount3; ` + asUser, "install fuse3"},
		"a user for others":          {`mount --bind /dev/null /etc/fuse.conf; ` + strings.Replace(asUser, "mount -C", "mount --allow-other -C", 1), "user_allow_other"},
	} {
		cmd := asRoot("unshare", "-m", "bash", "-c", strings.ReplaceAll(tt.script, "$UID_", fmt.Sprint(userID())), home.pitr, mnt, config, filepath.Join(dir, name))
		r := run(cmd)
		if r.status != 1 || !strings.Contains(r.stderr, "HINT: ") || !strings.Contains(r.stderr, tt.says) {
			t.Errorf("%s: want %q: %s", name, tt.says, r)
		}
	}
}

// mountInNamespaces: a user's own namespace, and one where the daemon is process 1.
func mountInNamespaces(t *testing.T, p *past) {
	config := mountConfig(t, p.archives["tree"], p.backup)
	dir := newDirectory(t, "m")
	mnt := filepath.Join(dir, "mnt")
	check(t, os.Mkdir(mnt, 0o755))
	check(t, home.give(mnt))
	const round = `"$1" mount -C "$2" --cache-dir "$6" "$3" && cmp "$3/wal/$4" "$5" && "$1" umount "$3"`
	args := []string{home.pitr, config, mnt, p.middle, p.archives["flat"].stored(p.middle), filepath.Join(dir, "cache")}
	if r := unsharing(home.command, "-Urm", round, args...); r.status != 0 {
		t.Errorf("unshare -Urm: %s", r)
	}
	if os.Getuid() != 0 {
		return
	}
	// Without a daemon left behind the namespace ends with its first process.
	args[len(args)-1] += " of root's" // nobody else's is believed
	const first = `exec "$1" mount -C "$2" --cache-dir "$6" "$3"`
	cmd := asRoot("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", first, "bash"}, args...)...)
	check(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	eventually(t, "process 1 serves", func() bool {
		out, err := exec.Command("pgrep", "-f", "mount -C "+config+" .*"+mnt+"$").Output()
		if err != nil {
			return false
		}
		for _, pid := range strings.Fields(string(out)) {
			stat, _ := os.ReadFile("/proc/" + pid + "/status")
			mounts, _ := os.ReadFile("/proc/" + pid + "/mountinfo")
			if strings.Contains(string(stat), "NSpid:\t"+pid+"\t1\n") && strings.Contains(string(mounts), mnt) {
				return exec.Command("kill", "-TERM", pid).Run() == nil
			}
		}
		return false
	})
	if err := cmd.Wait(); err != nil {
		t.Errorf("process 1 ended with %v", err)
	}
}
