package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// overMount lets a scene's archive be reached through a mount of its own, which reads
// nothing ahead: what the cache has, no fault of the archive takes away.
func (s *scene) overMount(f fault, flags ...string) *mount {
	s.t.Helper()
	m := startMount(s.t, home.command, mountConfig(s.t, s.archive, s.backup, f.config...), append(flags, "--ahead", "0")...)
	s.archive.mount = m
	return m
}

// restoreOverMount is the table of docs/exit-codes.md with a mount in between:
// its faults happen to the archive that the mount shows.
func restoreOverMount(t *testing.T, p *past) {
	for _, f := range faults() {
		scene := func(t *testing.T) *scene {
			s := newScene(t, p, f)
			s.overMount(f)
			return s
		}
		t.Run(f.form+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			t.Run("statuses", func(t *testing.T) { t.Parallel(); wantStatuses(t, scene(t), f) })
			if f.live {
				t.Run("recovery", func(t *testing.T) { t.Parallel(); wantRecovery(t, scene(t), f) })
				t.Run("standby", func(t *testing.T) { t.Parallel(); wantStandby(t, scene(t), f) })
			}
		})
	}
	f := faults()[0]
	t.Run("nothing mounted", func(t *testing.T) {
		t.Parallel()
		f := f
		f.whole = true
		f.inject = func(s *scene) func() {
			check(t, s.archive.mount.cmd.Process.Signal(os.Interrupt))
			s.archive.mount.waitEnded()
			return nil
		}
		s := newScene(t, p, f)
		s.overMount(f)
		wantStatuses(t, s, f)
	})
	t.Run("daemon killed", func(t *testing.T) {
		t.Parallel()
		f := f
		f.whole = true
		f.inject = func(s *scene) func() {
			check(t, s.archive.mount.cmd.Process.Kill())
			s.archive.mount.waitEnded()
			t.Cleanup(func() { check(t, asRoot(home.pitr, "umount", s.archive.mount.dir).Run()) })
			s.archive.mount.killed()
			return nil
		}
		s := newScene(t, p, f)
		s.overMount(f)
		wantStatuses(t, s, f)
	})
	t.Run("daemon stopped", func(t *testing.T) {
		t.Parallel()
		f := f
		f.whole = true
		f.inject = func(s *scene) func() { return hang(t, s.archive.mount.cmd.Process) }
		s := newScene(t, p, f)
		s.overMount(f)
		wantStatuses(t, s, f)
	})
}

// copyFromMount shows what plain cp does in each row: docs/mount.md has this.
func copyFromMount(t *testing.T, p *past) {
	rows := faults()
	for _, f := range sshFaults() {
		if f.name == "host down" || f.name == "host silent" || f.name == "key refused" || f.name == "cut in mid file" {
			prepare := f.prepare
			f.prepare = func(s *scene) {
				s.route = newRoute(s.t)
				s.archive.route = s.route
				if prepare != nil {
					prepare(s)
				}
			}
			rows = append(rows, f)
		}
	}
	for _, f := range rows {
		if f.name == "hanging disk" {
			continue // the same as one that is missing, after the 30 s that a daemon gives a disk
		}
		t.Run(f.form+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, p, f)
			m := s.overMount(f, "--retry", "1s")
			f.inject(s)
			name := f.ask(p)
			to := filepath.Join(newDirectory(t, "t"), "file")
			r := m.shell(`cp $M/wal/$1 "$2"`, name, to)
			size := int64(-1)
			if info, err := os.Stat(to); err == nil {
				size = info.Size()
			}
			t.Logf("cp: status %d, a file of %d bytes: %s", r.status, size, strings.TrimSpace(r.stderr))
			switch {
			case f.answer == present && r.status != 0:
				t.Errorf("%s", r)
			case f.answer != present && r.status != 1:
				t.Errorf("want status 1: %s", r)
			case f.answer != present && size > 0:
				t.Errorf("%d bytes were copied: %s", size, r)
			}
			proven := strings.Contains(r.stderr, "No such file")
			if want := f.answer == absent || f.name == "gap"; f.answer != present && proven != want {
				t.Errorf("want ENOENT %v: %s", want, r)
			}
		})
	}
}

// copyOpensEarly shows why cp is no restore_command: a gap and an archive out of
// reach are the end of WAL to PostgreSQL.
func copyOpensEarly(t *testing.T, p *past) {
	for _, f := range faults() {
		if f.name != "gap" && f.name != "archive missing" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, p, f)
			m := s.overMount(f, "--retry", "1s")
			c := s.heldServer(f, "recovery.signal", fmt.Sprintf("restore_command = 'cp %s/wal/%%f %%p'", m.dir))
			f.inject(s)
			c.goOn()
			c.waitOpened()
			if got := c.ledger(); got >= s.rows {
				t.Errorf("cp lost nothing: %d of %d rows", got, s.rows)
			}
		})
	}
}

// mountAsArchive: a mount is an archive to every command that reads, and none to
// those that write.
func mountAsArchive(t *testing.T, p *past) {
	m := startMount(t, asRoot, mountConfig(t, p.archives["tree"], p.backup))
	c := likeness(t, p.backup)
	through := &archive{t: t, dir: p.archives["tree"].dir, mount: m}
	for _, at := range []string{m.dir, filepath.Join(m.dir, "wal")} {
		through.mount = &mount{dir: at}
		config := c.configure([]*archive{through})
		for _, words := range [][]string{
			{"check"}, {"wal", "list"}, {"wal", "verify"}, {"wal", "get", p.middle, filepath.Join(newDirectory(t, "g"), "file")},
		} {
			r := pitr(append(words, "-C", config)...)
			if r.status != 0 && !(words[0] == "check" && r.status == 1) {
				t.Errorf("%s", r)
			}
			if words[0] == "check" && !strings.Contains(r.stdout, "a mount of ") {
				t.Errorf("check does not say that it is a mount: %s", r)
			}
		}
		got := filepath.Join(newDirectory(t, "g"), "file")
		if r := pitr("wal", "get", "-C", config, p.middle, got); r.status != 0 || string(readFile(t, got)) != string(through.raw(p.middle)) {
			t.Errorf("wal get: %s", r)
		}
		segment := c.walFile(p.middle)
		writeFile(t, segment, string(through.raw(p.middle)))
		for _, r := range []result{
			pitr("wal", "push", "-C", config, segment),
			run(home.command(home.applet("archive_command"), "-C", config, segment)),
			pitr("wal", "prune", "-C", config, "--before", p.middle),
		} {
			if r.status != 2 || !strings.Contains(r.stderr, "is only read") {
				t.Errorf("want a refusal: %s", r)
			}
		}
	}
	if r := m.shell(`ls $M/wal | wc -l; cmp $M/wal/$1 "$2"`, p.middle, p.archives["flat"].stored(p.middle)); r.status != 0 {
		t.Errorf("after that: %s", r)
	}
	// An empty mount point is doubt.
	empty := &mount{dir: filepath.Join(newDirectory(t, "m"), "mnt")}
	check(t, os.Mkdir(empty.dir, 0o755))
	through.mount = empty
	c.signalFile("recovery.signal")
	config := c.configure([]*archive{through}, "restore_retry = 0")
	cmd := home.command(home.applet("restore_command"), "-C", config, p.middle, "pg_wal/RECOVERYXLOG")
	cmd.Dir = c.data
	if r := run(cmd); r.status != 255 {
		t.Errorf("an empty mount point: %s", fmt.Sprint(r))
	}
}
