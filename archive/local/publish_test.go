package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onThread runs a test's step in a thread of its own, which ends with it: what
// the step forbids itself concerns nobody else.
func onThread(step func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: so the thread is thrown away
		step()
	}()
	<-done
}

// asNobody runs a step without the privileges of root.
func asNobody(t *testing.T, step func()) {
	t.Helper()
	if os.Getuid() != 0 {
		step()
		return
	}
	onThread(func() {
		const nobody = 65534
		if err := unix.Setfsuid(nobody); err != nil {
			t.Error(err)
			return
		}
		step()
	})
}

// openDir is a directory that also nobody gets to.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withoutRename runs a step for which the system refuses renameat2, as a file
// system without it or a container's filter does.
func withoutRename(t *testing.T, with syscall.Errno, step func()) {
	t.Helper()
	onThread(func() {
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_RENAMEAT2, Jf: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(with)},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
			t.Error(err)
			return
		}
		step()
	})
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantContent(t *testing.T, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		t.Errorf("%s: got %q, error %v, want %q", name, got, err, want)
	}
}

func wantGone(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", name, err)
	}
}

// publishes checks that a file moves to a free name and to no other.
func publishes(t *testing.T) {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), "a")
	write(t, filepath.Join(root, "taken"), "taken")
	if err := New(root).Publish(context.Background(), "a", "taken"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a taken name: got %v, want fs.ErrExist", err)
	}
	wantContent(t, filepath.Join(root, "a"), "a")
	wantContent(t, filepath.Join(root, "taken"), "taken")
	if err := New(root).Publish(context.Background(), "a", "free"); err != nil {
		t.Error(err)
	}
	wantContent(t, filepath.Join(root, "free"), "a")
	wantGone(t, filepath.Join(root, "a"))
	if err := New(root).Publish(context.Background(), "a", "free2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: got %v, want fs.ErrNotExist", err)
	}
}

func TestPublishNeverReplaces(t *testing.T) { publishes(t) }

func TestPublishWithoutRenameNeverReplaces(t *testing.T) {
	for _, says := range []syscall.Errno{unix.EINVAL, unix.ENOSYS, unix.ENOTSUP, unix.EPERM} {
		withoutRename(t, says, func() { publishes(t) })
	}
}

// An error that does not say "no such call" is not answered by another call.
func TestPublishReportsOtherErrorsOfRename(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), "a")
	withoutRename(t, unix.ENOSPC, func() {
		if err := New(root).Publish(context.Background(), "a", "b"); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("got %v, want %v", err, unix.ENOSPC)
		}
	})
	wantGone(t, filepath.Join(root, "b"))
}

// NFS may send the call to link twice, and say of the second time that the name
// is taken: by this very file.
func TestNameThatLeadsToTheSameFileIsPublished(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), "a")
	if err := os.Link(filepath.Join(root, "a"), filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	if err := New(root).publishByLink("a", "b"); err != nil {
		t.Error(err)
	}
	wantContent(t, filepath.Join(root, "b"), "a")
	wantGone(t, filepath.Join(root, "a"))
}

// A link to the file is not the file.
func TestNameThatLinksToTheFileIsTaken(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "a"), "a")
	if err := os.Symlink("a", filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	if err := New(root).publishByLink("a", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	wantContent(t, filepath.Join(root, "a"), "a")
}

func TestTemporaryNameThatStaysIsTold(t *testing.T) {
	root := openDir(t)
	for _, dir := range []string{"from", "to"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "from/a"), "a")
	for name, mode := range map[string]fs.FileMode{"from/a": 0o666, "to": 0o777, "from": 0o555} { // from: nothing can be removed there
		if err := os.Chmod(filepath.Join(root, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(root, "from"), 0o755) })
	asNobody(t, func() {
		if err := New(root).publishByLink("from/a", "to/b"); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("got %v, want fs.ErrPermission", err)
		}
	})
	wantContent(t, filepath.Join(root, "to/b"), "a")
}
