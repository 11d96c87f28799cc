package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fault is one row of the exit-code table: what is wrong with the archive when
// PostgreSQL comes to its middle segment.
type fault struct {
	name string
	form string // of the archive: tree or flat
	// ask is the segment whose restore_command notices; the middle one if nil.
	ask func(*past) string
	// whole: no file at all can be had, so that the next one notices.
	whole bool
	// large: only what is as large as a segment cannot be had.
	large bool
	// live: where the archive is behind an sshd, it is tried on live servers too.
	live bool
	// prepare happens before the server starts.
	prepare func(*scene)
	// inject makes the fault and returns what mends it.
	inject func(*scene) (mend func())
	// config is added to the configuration file.
	config []string
	answer answer
	// fetcher: calls go through one.
	fetcher bool
}

// noticedAt matches the name of the segment that notices on a live server.
func (f fault) noticedAt(p *past) string {
	if f.whole || f.large {
		return "[0-9A-F]{24}"
	}
	return f.ask(p)
}

// answer is what restore_command has to say of the segment that is asked for.
type answer int

const (
	doubt   answer = iota // 255 in recovery, 1 in standby mode
	present               // 0
	absent                // 1: the end of the archive
)

// scene is where a fault happens: an archive of one's own.
type scene struct {
	t *testing.T
	*past
	archive *archive
	disk    *os.Process // serves the archive, where it is mounted
	form    string
	route   *route // to the archive, where it is behind an sshd
}

func afterMiddle(p *past) string { return next(p.middle) }

// faults is the table.
func faults() []fault {
	rows := []fault{
		{name: "gap", live: true, inject: (*scene).removeMiddle},
		{name: "permission denied", inject: (*scene).forbidMiddle},
		{name: "directory forbidden", live: true, whole: true, inject: (*scene).forbidArchive},
		{name: "archive missing", live: true, whole: true, inject: (*scene).removeArchive},
		{name: "unmounted", whole: true, inject: (*scene).unmountArchive},
		{name: "wal unmounted", whole: true, inject: (*scene).unmountWAL},
		{name: "another cluster's archive", whole: true, inject: (*scene).exchangeArchive},
		{name: "another cluster's identity", whole: true, inject: (*scene).exchangeIdentity},
		{name: "hanging disk", live: true, whole: true, prepare: (*scene).mountOverFUSE, inject: (*scene).hang},
		{name: "unmounted, no identity", whole: true, form: "flat", prepare: (*scene).forgetIdentity, inject: (*scene).unmountArchive, config: []string{"layout = flat"}},
		{name: "absent, no identity", form: "flat", prepare: (*scene).forgetIdentity, inject: (*scene).endAtMiddle, config: []string{"layout = flat"}, answer: absent},
		{name: "bit flipped where the record goes on", form: "flat", ask: afterMiddle, inject: (*scene).flipHeadOfNext},
		{name: "bit flipped where the record begins", form: "flat", ask: afterMiddle, inject: (*scene).flipTail},
	}
	for _, form := range []string{"tree", "flat"} {
		rows = append(rows,
			fault{name: "present", live: true, form: form, inject: func(*scene) func() { return func() {} }, answer: present},
			fault{name: "absent", live: true, form: form, inject: (*scene).endAtMiddle, answer: absent},
			fault{name: "truncated", form: form, inject: (*scene).truncate},
			fault{name: "zeroed", form: form, inject: (*scene).zero},
			fault{name: "foreign", form: form, inject: (*scene).exchangeSegment},
			fault{name: "misnamed", form: form, inject: (*scene).misname},
			fault{name: "bit flipped", form: form, inject: (*scene).flipBit},
		)
	}
	return complete(rows)
}

// complete fills in what most rows have.
func complete(rows []fault) []fault {
	for i := range rows {
		if rows[i].form == "" {
			rows[i].form = "tree"
		}
		if rows[i].ask == nil {
			rows[i].ask = func(p *past) string { return p.middle }
		}
	}
	return rows
}

// newScene is an archive with everything in it, of the fault's form.
func newScene(t *testing.T, p *past, f fault) *scene {
	t.Helper()
	s := &scene{t: t, past: p, archive: p.archives[f.form].copyFor(t), form: f.form}
	if f.prepare != nil {
		f.prepare(s)
	}
	return s
}

// replace puts other content where a stored file is, in one step as a reader
// sees it, and returns what puts the old one back.
func (s *scene) replace(path string, content []byte) (mend func()) {
	s.t.Helper()
	good := readFile(s.t, path)
	put := func(b []byte) {
		writeFile(s.t, path+".new", string(b))
		check(s.t, os.Rename(path+".new", path))
	}
	put(content)
	return func() { put(good) }
}

func (s *scene) middlePath() string { return s.archive.stored(s.middle) }

func (s *scene) truncate() func() {
	b := readFile(s.t, s.middlePath())
	return s.replace(s.middlePath(), b[:len(b)/2])
}

func (s *scene) zero() func() {
	return s.replace(s.middlePath(), make([]byte, len(readFile(s.t, s.middlePath()))))
}

func (s *scene) exchangeSegment() func() {
	return s.replace(s.middlePath(), readFile(s.t, s.foreign[s.form].stored(s.middle)))
}

func (s *scene) misname() func() {
	return s.replace(s.middlePath(), readFile(s.t, s.archive.stored(next(s.middle))))
}

// flipBit flips one bit: in a row's text where the file is raw, so that no
// padding is hit, and in the middle of a frame where it is compressed.
func (s *scene) flipBit() func() {
	b := bytes.Clone(readFile(s.t, s.middlePath()))
	at := len(b) / 2
	if s.form == "flat" {
		at += bytes.Index(b[at:], []byte(strings.Repeat("x", 100))) + 50
	}
	b[at] ^= 1
	return s.replace(s.middlePath(), b)
}

func (s *scene) flipHeadOfNext() func() {
	path := s.archive.stored(next(s.middle))
	b := bytes.Clone(readFile(s.t, path))
	b[longHeader+restOfRecord(b)/2] ^= 1
	return s.replace(path, b)
}

func (s *scene) flipTail() func() {
	b := bytes.Clone(readFile(s.t, s.middlePath()))
	b[len(b)-20] ^= 1
	return s.replace(s.middlePath(), b)
}

// away moves a file or directory aside.
func (s *scene) away(path string) (back func()) {
	s.t.Helper()
	check(s.t, os.Rename(path, path+".away"))
	return func() { check(s.t, os.Rename(path+".away", path)) }
}

func (s *scene) removeMiddle() func() {
	aside := filepath.Join(filepath.Dir(s.archive.dir), s.middle)
	check(s.t, os.Rename(s.middlePath(), aside))
	return func() { check(s.t, os.Rename(aside, s.middlePath())) }
}

// endAtMiddle leaves an archive that ends before the middle segment.
func (s *scene) endAtMiddle() func() {
	aside := newDirectory(s.t, "m")
	var moved []string
	for _, name := range s.segments {
		if name >= s.middle {
			check(s.t, os.Rename(s.archive.stored(name), filepath.Join(aside, name)))
			moved = append(moved, name)
		}
	}
	return func() {
		for _, name := range moved {
			check(s.t, os.Rename(filepath.Join(aside, name), s.archive.stored(name)))
		}
	}
}

func (s *scene) forbid(path string) (allow func()) {
	info, err := os.Stat(path)
	check(s.t, err)
	check(s.t, os.Chmod(path, 0))
	allow = func() { check(s.t, os.Chmod(path, info.Mode())) }
	s.t.Cleanup(allow)
	return allow
}

func (s *scene) forbidMiddle() func()  { return s.forbid(s.middlePath()) }
func (s *scene) forbidArchive() func() { return s.forbid(s.archive.dir) }

func (s *scene) removeArchive() func() { return s.away(s.archive.dir) }

func (s *scene) unmountArchive() func() { return s.unmount(s.archive.dir) }
func (s *scene) unmountWAL() func()     { return s.unmount(filepath.Join(s.archive.dir, "wal")) }

// unmount leaves an empty directory, as where a file system ought to be.
func (s *scene) unmount(dir string) func() {
	back := s.away(dir)
	check(s.t, os.Mkdir(dir, 0o755))
	return func() {
		check(s.t, os.Remove(dir))
		back()
	}
}

// exchangeArchive puts the archive of another cluster in this one's place.
func (s *scene) exchangeArchive() func() {
	back := s.away(s.archive.dir)
	copyTree(s.t, s.foreign[s.form].dir, s.archive.dir)
	return func() {
		check(s.t, os.Rename(s.archive.dir, s.archive.dir+".foreign"))
		back()
	}
}

func (s *scene) exchangeIdentity() func() {
	const identity = "archive.json"
	return s.replace(filepath.Join(s.archive.dir, identity), readFile(s.t, filepath.Join(s.foreign[s.form].dir, identity)))
}

// forgetIdentity makes a directory of plain files out of a flat archive.
func (s *scene) forgetIdentity() { check(s.t, os.Remove(filepath.Join(s.archive.dir, "archive.json"))) }

// mountOverFUSE serves the archive through a process, so that it can hang.
func (s *scene) mountOverFUSE() { s.disk = mountOverFUSE(s.t, s.archive.dir) }

// hang stops the process behind the mount.
func (s *scene) hang() (mend func()) { return hang(s.t, s.disk) }

// hang stops the process behind a mount and waits until each of its threads
// has stopped. A call that a thread had taken up and not answered could not even
// be killed, as on a disk that died; this one is lost like an NFS server.
func hang(t *testing.T, disk *os.Process) (mend func()) {
	t.Helper()
	check(t, disk.Signal(syscall.SIGSTOP))
	eventually(t, "the disk hangs", func() bool {
		for _, stat := range glob(t, "/proc", strconv.Itoa(disk.Pid), "task", "*", "stat") {
			b, err := os.ReadFile(stat)
			if err == nil && !strings.Contains(string(b), ") T ") {
				return false
			}
		}
		return true
	})
	return func() { check(t, disk.Signal(syscall.SIGCONT)) }
}

// mountOverFUSE lets a process of its own serve a directory: while that is
// stopped, the directory hangs as a dead disk or a lost NFS server does.
func mountOverFUSE(t *testing.T, dir string) *os.Process {
	t.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this needs FUSE: %v (run the tests as root, or make /dev/fuse accessible)", err)
	}
	check(t, device.Close())
	behind := dir + ".disk"
	check(t, os.Rename(dir, behind))
	check(t, os.Mkdir(dir, 0o755))
	cmd := exec.Command("bindfs", "-f", "-o", "auto_unmount,attr_timeout=0,entry_timeout=0,negative_timeout=0", behind, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGCONT)
		// What hung on the disk goes on now, and needs a moment to let go of it: a
		// session of an sshd, for one, that has lost its client.
		eventually(t, "the archive is unmounted", func() bool { return exec.Command("fusermount3", "-u", dir).Run() == nil })
		cmd.Wait()
	})
	eventually(t, "the archive is mounted", func() bool {
		_, err := os.Stat(filepath.Join(dir, "archive.json"))
		return err == nil
	})
	return cmd.Process
}
