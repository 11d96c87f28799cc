package test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledPushLeavesNothingHalf kills archive_command at random moments.
// Under its name a segment is whole or not there; what is left of the others
// is temporary files; the next push succeeds.
func TestKilledPushLeavesNothingHalf(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"tree", "flat"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 15, 16)
			c.set("archive_mode = on", "archive_command = 'false'")
			c.start()
			c.sql(`CREATE TABLE ledger (id int, pad text); INSERT INTO ledger SELECT i, md5(i::text) FROM generate_series(1, 400000) i`)
			segments := c.status(".ready")
			c.kill()
			if len(segments) < 2 {
				t.Fatalf("only %q to archive", segments)
			}
			a := newArchive(t, c, "--layout", form)
			config := c.configure([]*archive{a})
			for _, s := range segments[:2] {
				killPushes(t, c, a, s, config)
			}
			a.wantOnlyTemporary(segments[:2])
			a.wantVerified(c)
		})
	}
}

// killPushes pushes one segment until enough pushes were killed on their way.
func killPushes(t *testing.T, c *cluster, a *archive, segment, config string) {
	t.Helper()
	const wanted = 40
	sent := readFile(t, c.walFile(segment))
	begun := map[string]bool{}
	look := func() int {
		for _, file := range a.temporary() {
			begun[file] = true
		}
		return len(begun)
	}
	before := look()
	starting, writing := moments()
	for killed, pushes := 0, 0; killed < wanted; pushes++ {
		when := starting
		if pushes%2 == 1 {
			when = writing
		}
		if r, _ := a.interrupt(c.push(config, segment), syscall.SIGKILL, when); r.status == -1 {
			killed++
		}
		look()
		switch _, err := os.Stat(a.stored(segment)); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			t.Fatal(err)
		case !bytes.Equal(a.raw(segment), sent):
			t.Fatalf("after %d kills, %s stands there and is not what was sent", killed, segment)
		default:
			check(t, os.Remove(a.stored(segment)))
		}
	}
	if half := look() - before; half < wanted/4 {
		t.Errorf("only %d of %d kills came in the middle of a push", half, wanted)
	}
	if r := run(c.push(config, segment)); r.status != 0 {
		t.Fatalf("the push after the kills: %s", r)
	}
	if !bytes.Equal(a.raw(segment), sent) {
		t.Errorf("%s is not what was sent", segment)
	}
}

// push is archive_command as PostgreSQL runs it.
func (c *cluster) push(config, name string) *exec.Cmd {
	cmd := home.command(home.applet("archive_command"), "-C", config, filepath.Join("pg_wal", name))
	cmd.Dir = c.data
	return cmd
}

// wantOnlyTemporary fails if the archive holds anything besides these files,
// its own marks, and temporary files.
func (a *archive) wantOnlyTemporary(names []string) {
	a.t.Helper()
	known := map[string]bool{"archive.json": true, "archive.id": true}
	for _, n := range names {
		known[filepath.Base(a.stored(n))] = true
	}
	check(a.t, filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !known[d.Name()] && !strings.HasPrefix(d.Name(), ".tmp-") {
			a.t.Errorf("%s was left in the archive", path)
		}
		return err
	}))
}

// archiveFault is something that makes the archive refuse files for a while.
type archiveFault struct {
	name   string
	says   string                         // in the server's log
	disk   func(t *testing.T, a *archive) // what the archive lies on, if it matters
	inject func(t *testing.T, a *archive) (mend func())
	agents bool // archive_command works with an agent
}

// TestArchiveFaultLosesNothing: a live server meets an archive that takes
// nothing. It is told why, its archiver lives on, nothing half-written is left
// under a final name, and when the fault is mended everything is archived.
func TestArchiveFaultLosesNothing(t *testing.T) {
	t.Parallel()
	for _, f := range []archiveFault{
		{"full disk", "no space left on device", mountDisk, fillDisk, false},
		{"read-only file system", "read-only file system", mountDisk, remountReadOnly, false},
		{"read-only directory", "permission denied", nil, forbidWriting, false},
		{"missing directory", "no archive here", nil, moveAway, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			wantNothingLost(t, f)
		})
	}
	t.Run("hanging disk", func(t *testing.T) {
		t.Parallel()
		var disk *os.Process
		wantNothingLost(t, archiveFault{"hanging disk", "push_timeout",
			func(t *testing.T, a *archive) { disk = mountOverFUSE(t, a.dir) },
			func(t *testing.T, _ *archive) (mend func()) { return hang(t, disk) },
			false,
		})
	})
}

func wantNothingLost(t *testing.T, f archiveFault) {
	c := newCluster(t, 15, 1)
	if f.agents {
		c.startsAgents()
	}
	a := newArchive(t, c, "--compress", "none")
	if f.disk != nil {
		f.disk(t, a)
	}
	c.archiveTo(a)
	c.configure([]*archive{a}, "push_timeout = 4s")
	c.start()
	c.sql("CREATE TABLE ledger (id int, pad text)")
	c.switchWAL()
	if f.agents {
		c.waitAgent()
	}
	archiver := c.archiverPID()

	mend := f.inject(t, a)
	fillLedger(c, 30)
	eventually(t, "the archiver has given up once", func() bool {
		return c.sql("SELECT failed_count >= 3 FROM pg_stat_archiver") == "t"
	})
	if !strings.Contains(c.logged(), f.says) {
		t.Errorf("the log does not say %q", f.says)
	}
	for line := range strings.Lines(c.logged()) {
		if strings.Count(line, "it has not answered since") > 1 {
			t.Errorf("an old answer is part of a newer one: %s", line)
			break
		}
	}
	if got := c.archiverPID(); got != archiver {
		t.Errorf("the archiver was restarted: its PID was %s and is %s", archiver, got)
	}
	acknowledged := c.status(".done")
	c.stop() // the fault must not keep the server from ending either
	mend()
	c.configure([]*archive{a}) // a second may be too short for a sync on a busy machine
	c.start()
	c.sql("SELECT pg_switch_wal()")
	c.waitArchived()
	for _, name := range acknowledged {
		if _, err := os.Stat(a.stored(name)); err != nil {
			t.Errorf("%s was acknowledged before the fault ended: %v", name, err)
		}
	}
	if n := a.wantAcknowledged(c); n < 6 {
		t.Errorf("only %d files were archived", n)
	}
	a.wantVerified(c)
}

func (c *cluster) archiverPID() string {
	c.t.Helper()
	pid := ""
	eventually(c.t, "there is an archiver", func() bool {
		pid = c.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'")
		return pid != ""
	})
	return pid
}

// mountDisk moves an archive to a small file system of its own.
func mountDisk(t *testing.T, a *archive) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a disk of its own can only be mounted by root: run the tests as root")
	}
	image := filepath.Join(newDirectory(t, "d"), "image")
	before := a.dir + ".before"
	check(t, os.Rename(a.dir, before))
	check(t, os.Mkdir(a.dir, 0o755))
	for _, step := range [][]string{
		{"truncate", "-s", "48M", image},
		{"/sbin/mkfs.ext4", "-q", "-m", "0", "-d", before, image},
		{"mount", "-o", "loop", image, a.dir},
	} {
		if r := run(exec.Command(step[0], step[1:]...)); r.status != 0 {
			t.Fatal(r)
		}
	}
	t.Cleanup(func() {
		if r := run(exec.Command("umount", a.dir)); r.status != 0 {
			t.Error(r)
		}
	})
	check(t, home.give(a.dir))
}

// fillDisk leaves room for three and a half segments.
func fillDisk(t *testing.T, a *archive) (mend func()) {
	var disk syscall.Statfs_t
	check(t, syscall.Statfs(a.dir, &disk))
	filler := filepath.Join(a.dir, "filler")
	free := int64(disk.Bavail) * disk.Bsize
	check(t, os.WriteFile(filler, make([]byte, free-7<<19), 0o600))
	return func() { check(t, os.Remove(filler)) }
}

func remountReadOnly(t *testing.T, a *archive) (mend func()) {
	remount := func(mode string) {
		if r := run(exec.Command("mount", "-o", "remount,"+mode, a.dir)); r.status != 0 {
			t.Fatal(r)
		}
	}
	remount("ro")
	return func() { remount("rw") }
}

func forbidWriting(t *testing.T, a *archive) (mend func()) {
	dirs := append(glob(t, a.dir, "wal", "*"), filepath.Join(a.dir, "wal"), a.dir)
	chmod := func(mode fs.FileMode) {
		for _, d := range dirs {
			if info, err := os.Stat(d); err == nil && info.IsDir() {
				check(t, os.Chmod(d, mode))
			}
		}
	}
	chmod(0o555)
	return func() { chmod(0o755) }
}

func moveAway(t *testing.T, a *archive) (mend func()) {
	check(t, os.Rename(a.dir, a.dir+".away"))
	return func() { check(t, os.Rename(a.dir+".away", a.dir)) }
}

// TestTerminatedPushCleansUp: SIGTERM in the middle of a push is 143, and what
// it had begun is gone.
func TestTerminatedPushCleansUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 16)
	c.set("archive_mode = on", "archive_command = 'false'")
	c.start()
	c.sql(`CREATE TABLE ledger AS SELECT i, md5(i::text) pad FROM generate_series(1, 400000) i`)
	segment := c.status(".ready")[0]
	c.kill()
	a := newArchive(t, c)
	config := c.configure([]*archive{a})
	const wanted, most = 20, 200
	const hung = 400 * time.Millisecond // less than what a push waits for the disk
	_, writing := moments()
	for terminated, pushes := 0, 0; terminated < wanted; pushes++ {
		if pushes == most {
			t.Fatalf("only %d of %d pushes met SIGTERM on their way", terminated, pushes)
		}
		r, took := a.interrupt(c.push(config, segment), syscall.SIGTERM, writing)
		left := a.temporary()
		switch {
		case r.status == 0: // it was quicker
			check(t, os.Remove(a.stored(segment)))
		case r.status != 143:
			t.Fatalf("want status 143: %s", r)
		case took > hung: // the disk did not answer; cleaning up is left to the next push
			continue
		default:
			terminated++
		}
		if len(left) > 0 {
			t.Fatalf("left behind: %q; %s", left, r)
		}
	}
}

// moment is when a push is interrupted: at random within a while after it has
// begun, or after it has made a temporary file of its own.
type moment struct {
	writes bool
	within time.Duration
}

// moments are one at which the push may not even have looked at its settings,
// and one at which it writes.
func moments() (starting, writing moment) {
	return moment{false, 100 * time.Millisecond}, moment{true, 15 * time.Millisecond}
}

// interrupt runs a push and sends it a signal, unless it was quicker. It
// returns how long the push lived after that, too.
func (a *archive) interrupt(push *exec.Cmd, sig os.Signal, m moment) (r result, took time.Duration) {
	a.t.Helper()
	var stderr bytes.Buffer
	push.Stderr = &stderr
	old := a.temporary() // of pushes that were killed
	check(a.t, push.Start())
	ended := make(chan result, 1)
	go func() {
		err := push.Wait()
		ended <- result{strings.Join(push.Args, " "), exitCode(err), "", stderr.String()}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for m.writes && !slices.ContainsFunc(a.temporary(), func(name string) bool { return !slices.Contains(old, name) }) {
		select {
		case r := <-ended:
			return r, 0
		case <-tick.C:
		}
	}
	time.Sleep(rand.N(m.within))
	struck := time.Now()
	_ = push.Process.Signal(sig)
	return <-ended, time.Since(struck)
}

// temporary lists the temporary files in an archive.
func (a *archive) temporary() (found []string) {
	a.t.Helper()
	check(a.t, filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasPrefix(d.Name(), ".tmp-") {
			found = append(found, path)
		}
		return err
	}))
	return found
}
