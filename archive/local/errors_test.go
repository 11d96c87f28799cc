package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"pitr/archive/files"
)

func TestCreateNeverReplaces(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "f"), "first")
	if f, err := New(root).Create(t.Context(), "f"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
		if err == nil {
			_ = f.Close()
		}
	}
	wantContent(t, filepath.Join(root, "f"), "first")
}

func TestListingThatFailsIsNotEmpty(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "f"), "x") // it opens, but cannot be listed
	if entries, err := New(root).ReadDir(t.Context(), "f"); err == nil {
		t.Errorf("got %v and no error", entries)
	}
}

// "It exists" is good news for whoever makes a directory: it must not hide that
// the directory is not what it should be.
func TestMkdirErrorIsNotTakenForExistence(t *testing.T) {
	root := openDir(t)
	if err := os.Symlink("nowhere", filepath.Join(root, "d")); err != nil {
		t.Fatal(err)
	}
	if err := New(root).Mkdir(t.Context(), "d"); err == nil || errors.Is(err, fs.ErrExist) {
		t.Errorf("a link to nowhere: got %v, want another error than fs.ErrExist", err)
	}

	parent := filepath.Join(root, "parent")
	if err := os.MkdirAll(filepath.Join(parent, "archive"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(parent, 0o311); err != nil { // it cannot be opened, so not be synced
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(parent, 0o755) })
	asNobody(t, func() {
		err := New(filepath.Join(parent, "archive")).Mkdir(context.Background(), ".")
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrExist) {
			t.Errorf("a root whose name cannot be made durable: got %v, want fs.ErrPermission alone", err)
		}
	})
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := New(filepath.Join(parent, "archive")).Mkdir(t.Context(), "."); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a root that is there: got %v, want fs.ErrExist", err)
	}
}

// A directory of a tree that was moved to another disk and linked, and that disk
// is mounted read-only.
func TestDirectoryThatCannotGetTheAccessOfTheRootIsTold(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a read-only file system can only be mounted by root: run the tests as root")
	}
	root, disk := t.TempDir(), t.TempDir()
	if err := unix.Mount("none", disk, "tmpfs", unix.MS_RDONLY, "mode=0711"); err != nil {
		t.Skipf("a file system cannot be mounted here (%v): run the tests where root may", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.Symlink(disk, filepath.Join(root, "d")); err != nil {
		t.Fatal(err)
	}
	if err := New(root).Mkdir(t.Context(), "d"); !errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v alone", err, unix.EROFS)
	}
}

// Somebody else's directory is used as it is.
func TestDirectoryOfSomebodyElseIsLeftAsItIs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a directory of somebody else's can only be made by root: run the tests as root")
	}
	root := openDir(t)
	dir := filepath.Join(root, "d")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if err := New(root).Mkdir(context.Background(), "d"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("got %v, want fs.ErrExist", err)
		}
	})
	wantMode(t, dir, 0o711)
}

// The maker of a directory died before it had its mode.
func TestDirectoryThatIsThereGetsTheAccessOfTheRoot(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "d")
	if err := errors.Join(os.Chmod(root, 0o750), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := New(root).Mkdir(t.Context(), "d"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	wantMode(t, dir, 0o750)
}

func TestOnlyAProcessThatIsGoneIsDead(t *testing.T) {
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]bool{os.Getpid(): true, 1: true, child.Process.Pid: false} {
		if got := alive(pid); got != want {
			t.Errorf("process %d: got %v, want %v", pid, got, want)
		}
	}
}

// deadWriter is this process, had it died.
func deadWriter(t *testing.T) files.Writer {
	w := Writer()
	if w.Host == "" {
		t.Skip("this machine has no id, so nobody is proven dead: write /etc/machine-id")
	}
	w.PID = 1 << 30 // more than any system has
	return w
}

func TestHandoverReplacesAtOnceOrNotAtAll(t *testing.T) {
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		write func(w io.Writer) error
		want  error
	}{
		"whole": {func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }, nil},
		"half": {func(w io.Writer) error {
			_, err := io.WriteString(w, "ne")
			return errors.Join(err, broken)
		}, broken},
		"not closed": {func(w io.Writer) error { // what the last write could not do, close tells
			_, err := io.WriteString(w, "new")
			return errors.Join(err, w.(*os.File).Close())
		}, os.ErrClosed},
	} {
		dir := t.TempDir()
		dest := filepath.Join(dir, "RECOVERYXLOG")
		write(t, dest, "old")
		write(t, filepath.Join(dir, deadWriter(t).NewTempName()), "left by the dead")
		if err := Handover(dest)(c.write); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", what, err, c.want)
		}
		want := "old"
		if c.want == nil {
			want = "new"
		}
		wantContent(t, dest, want)
		wantAlone(t, dir, "RECOVERYXLOG")
	}
}

func TestHandoverNewReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	dest := filepath.Join(dir, "f")
	fill := func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }
	if err := HandoverNew(dest)(fill); err != nil {
		t.Error(err)
	}
	write(t, dest, "old")
	if err := HandoverNew(dest)(fill); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a taken name: got %v, want fs.ErrExist", err)
	}
	wantContent(t, dest, "old")
	wantAlone(t, dir, "f")
}

func wantAlone(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); err != nil || got != want {
		t.Errorf("got %q in the directory, error %v, want %s", got, err, want)
	}
}
