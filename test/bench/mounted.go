package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// mountPitr mounts the archive as the configuration has it.
func mountPitr(f *far) []string {
	return []string{f.b.pitr, "mount", "--foreground", "-C", f.agentFile(), "--cache-dir", f.path("cache"), f.path("mount")}
}

// mountForAll is a service's mount, which the kernel reads from by itself.
func mountForAll(f *far) []string {
	words := mountPitr(f)
	return append(words[:len(words)-1], "--allow-other", "--cache-dir", f.path("roots-cache"), words[len(words)-1])
}

// setUpMount makes the directories, and a configuration that reads from the mount.
func setUpMount(f *far) error {
	return errors.Join(setUpAgent(f), f.b.directory(f.path("mount")), f.b.directory(f.path("cache")),
		f.b.file(f.path("mounted.ini"), "[DEFAULT]\narchive = file://"+f.path("mount")+"\n"))
}

func clearCache(f *far) error {
	return errors.Join(os.RemoveAll(f.path("cache")), f.b.directory(f.path("cache")))
}

func restoreMounted(f *far, _ string) string {
	return f.b.pitr + " restore_command -C " + f.path("mounted.ini") + " %f %p"
}

// reader is a way to read a segment that lies on the far side.
type reader struct {
	name  string
	fuse  bool
	warm  bool
	setUp func(*far) error
	store func(f *far, segments []string) error
	mount func(*far) []string
	read  func(f *far, name string) *exec.Cmd
	again bool // what is read was read before
	root  bool // who mounts
}

func catFrom(dir string) func(*far, string) *exec.Cmd {
	return func(f *far, name string) *exec.Cmd { return catOf(f, f.path(dir), name) }
}

// catOf reads a file whole, and keeps nothing.
func catOf(f *far, dir, name string) *exec.Cmd {
	return f.b.command(nil, "dd", "if="+filepath.Join(dir, name), "of=/dev/null", "bs=256k", "status=none")
}

var readers = []reader{
	{name: "dd from this disk, in the cache", setUp: makeStore, store: link, read: catFrom("store"), again: true},
	{name: "dd from this disk", setUp: makeStore, store: link, read: catFrom("store")},
	{name: "pitr mount, dd, second read", fuse: true, setUp: setUpMount, store: pushHere, mount: mountPitr, read: catFrom("mount/wal"), again: true},
	{name: "pitr mount by root, dd, second read", root: true, setUp: setUpMount, store: pushHere, mount: mountForAll, read: catFrom("mount/wal"), again: true},
	{name: "pitr mount by root, dd", root: true, setUp: setUpMount, store: pushHere, mount: mountForAll, read: catFrom("mount/wal")},
	{name: "pitr mount, dd", fuse: true, setUp: setUpMount, store: pushHere, mount: mountPitr, read: catFrom("mount/wal")},
	{name: rivalSSHFS, fuse: true, setUp: setUpSSHFS, store: link, mount: mountSSHFS, read: catFrom("mount")},
	{name: "scp, warm ControlMaster, to memory", warm: true, setUp: makeStore, store: link, read: func(f *far, name string) *exec.Cmd {
		return getSCP(f, name, "/dev/shm/pitr-bench-read")
	}},
}

// reading is segment after segment, read whole by one process each.
func (b *bench) reading(roundTrip time.Duration) *task {
	t := &task{name: "read one 16 MB segment after the other, " + where(roundTrip)}
	var ends []func() error
	t.setUp = func(c choice) error {
		for _, r := range readers {
			if !c.rivals.MatchString(r.name) || r.fuse && !b.canMount() || r.root && os.Getuid() != 0 {
				continue
			}
			k, end, err := b.reads(r, roundTrip, c.rounds)
			ends = append(ends, end...)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			t.contenders = append(t.contenders, k)
		}
		return nil
	}
	t.tearDown = func() (err error) {
		for i := len(ends) - 1; i >= 0; i-- {
			err = errors.Join(err, ends[i]())
		}
		return errors.Join(err, ignoreAbsent(os.Remove("/dev/shm/pitr-bench-read")))
	}
	return t
}

func (b *bench) reads(r reader, roundTrip time.Duration, rounds int) (k *contender, ends []func() error, err error) {
	f, err := b.openFar(way{name: r.name, warm: r.warm, setUp: r.setUp}, roundTrip)
	if err != nil {
		return nil, nil, err
	}
	ends = append(ends, f.close)
	if err := r.store(f, b.segments[:rounds]); err != nil {
		return nil, ends, err
	}
	if r.mount != nil {
		words := r.mount(f)
		cmd, end := f.b.command(nil, words...), f.b.command(nil, "fusermount3", "-u", f.path("mount"))
		if r.root {
			cmd, end = exec.Command(words[0], words[1:]...), exec.Command("umount", f.path("mount"))
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		unmount, err := f.mounts(cmd, end)
		if err != nil {
			return nil, ends, err
		}
		ends = append(ends, unmount)
	}
	k = &contender{name: r.name, command: func(n int) *exec.Cmd { return r.read(f, filepath.Base(b.segments[n])) }}
	if r.warm {
		k.beside = f.masterTime
	}
	if r.again {
		k.before = func(n int) error { return silent(r.read(f, filepath.Base(b.segments[n]))) }
	} else {
		k.before = func(n int) error { return b.cool(nil, "dd", "scp", "ssh") }
	}
	return k, ends, nil
}

// mounts runs a mount in the foreground, and returns what runs end, which ends it.
func (f *far) mounts(cmd, end *exec.Cmd) (unmount func() error, err error) {
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	dir := f.path("mount")
	err = waitUntil(dir+" is mounted", func() (bool, error) { return silent(f.b.command(nil, "mountpoint", "-q", dir)) == nil, nil })
	return func() error {
		err := silent(end)
		return errors.Join(err, cmd.Wait())
	}, err
}
