package test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run in a child of the process that go test starts. That process is
// the keeper: however the child ends, by a panic, by a timeout or by a signal,
// the keeper ends what it has left running and removes its directory. The
// child of root has mounts of its own. Its servers see them, nobody else does,
// and the last process that sees them takes them along.

const (
	// treeVariable tells the child which directory is its own.
	treeVariable = "PITR_TEST_TREE"

	// treePrefix begins the names of such directories.
	treePrefix = "pitr-test-"

	// keptMark is a file in those that are to stay, for a look.
	keptMark = "kept"
)

// keep runs the tests in a child and returns its exit status.
func keep() int {
	sweepDead(os.TempDir())
	dir, lock, err := newTree()
	if err != nil {
		return complain(err)
	}
	defer lock.Close()
	status, err := keepChild(dir)
	if err != nil {
		status = complain(err)
	}
	if status != 0 && os.Getenv("PITR_TEST_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "kept:", dir)
		return status
	}
	if err := os.RemoveAll(dir); err != nil {
		return max(status, complain(err))
	}
	return status
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "test:", err)
	return 1
}

// newTree makes the directory of a run. It is locked as long as this process
// lives: that is how others know.
func newTree() (dir string, lock *os.File, err error) {
	for {
		if dir, err = os.MkdirTemp("", treePrefix); err != nil {
			return "", nil, err
		}
		lock, err = lockTree(dir, unix.LOCK_EX)
		if errors.Is(err, fs.ErrNotExist) {
			continue // swept before it was locked
		}
		if err == nil && os.Getenv("PITR_TEST_KEEP") != "" {
			err = os.WriteFile(filepath.Join(dir, keptMark), nil, 0o600)
		}
		return dir, lock, err
	}
}

// lockTree locks a directory. It fails with fs.ErrNotExist if the directory is
// gone by then.
func lockTree(dir string, how int) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), how)
	if err == nil {
		_, err = os.Lstat(dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweepDead removes the directories of runs whose keeper was killed: those that
// nobody has locked.
func sweepDead(parent string) {
	trees, _ := filepath.Glob(filepath.Join(parent, treePrefix+"*"))
	for _, dir := range trees {
		if _, err := os.Lstat(filepath.Join(dir, keptMark)); err == nil {
			continue
		}
		lock, err := lockTree(dir, unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			complain(err)
		}
		lock.Close()
	}
}

// keepChild runs the tests, passes signals on, and ends what is left.
func keepChild(dir string) (status int, err error) {
	signals := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	// What loses its parent becomes a child of the keeper.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("adopt orphans: %w", err)
	}
	pid, err := startTests(dir)
	if err != nil {
		return 1, err
	}
	ended, allGone := make(chan syscall.WaitStatus, 1), make(chan struct{})
	go func() {
		defer close(allGone)
		reap(pid, ended)
	}()
	for {
		select {
		case s := <-signals:
			_ = syscall.Kill(pid, s.(syscall.Signal))
		case how := <-ended:
			status := how.ExitStatus()
			if how.Signaled() {
				status = 128 + int(how.Signal())
			}
			return status, endOrphans(allGone)
		}
	}
}

// startTests starts this program again. It dies with the keeper, which must
// stay on its thread for that.
func startTests(dir string) (pid int, err error) {
	runtime.LockOSThread()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	attr := os.ProcAttr{
		Env:   append(os.Environ(), treeVariable+"="+dir),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if os.Getuid() == 0 {
		attr.Sys.Unshareflags = syscall.CLONE_NEWNS
	}
	p, err := os.StartProcess(self, os.Args, &attr)
	if errors.Is(err, fs.ErrPermission) && attr.Sys.Unshareflags != 0 {
		attr.Sys.Unshareflags = 0 // in a container that may not mount anything either
		p, err = os.StartProcess(self, os.Args, &attr)
	}
	if err != nil {
		return 0, fmt.Errorf("start the tests: %w", err)
	}
	return p.Pid, nil
}

// reap waits for all children until there are none. It tells how the one with
// this PID ended.
func reap(pid int, ended chan<- syscall.WaitStatus) {
	for {
		var how syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &how, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return
		case got == pid:
			ended <- how
		}
	}
}

// endOrphans gives what the tests have left running the time that a server
// needs for an immediate shutdown, and kills it then.
func endOrphans(allGone <-chan struct{}) error {
	const shutdown = 8 * time.Second // the postmaster itself loses patience after 5
	patience := time.After(shutdown)
	var killed []string
	for {
		select {
		case <-allGone:
			if killed != nil {
				return fmt.Errorf("left running, and killed: %s", strings.Join(killed, ", "))
			}
			return nil
		case <-patience:
			killed = append(killed, killOrphans()...)
			patience = time.After(time.Second)
		}
	}
}

// killOrphans kills all children and returns their names.
func killOrphans() (killed []string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		// PID (NAME) STATE PARENT; the name may hold anything.
		line, err := os.ReadFile(stat)
		end := strings.LastIndex(string(line), ")")
		if err != nil || end < 0 {
			continue
		}
		name, rest := string(line[:end+1]), strings.Fields(string(line[end+1:]))
		if len(rest) < 2 || rest[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat))); err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed = append(killed, name)
		}
	}
	slices.Sort(killed)
	return killed
}
