package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFilesInheritTheAccessOfTheRoot(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, c := range []struct{ root, dir, file fs.FileMode }{
		{0o700, 0o700, 0o600},
		{0o750, 0o750, 0o640},
		{0o755 | fs.ModeSetgid, 0o755 | fs.ModeSetgid, 0o644},
		{0o777, 0o777, 0o644},
	} {
		root := t.TempDir()
		if err := os.Chmod(root, c.root); err != nil {
			t.Fatal(err)
		}
		l := New(root)
		if err := l.Mkdir(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		f, err := l.Create(t.Context(), "d/f")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		wantMode(t, filepath.Join(root, "d"), c.dir)
		wantMode(t, filepath.Join(root, "d/f"), c.file)
	}
}

func wantMode(t *testing.T, name string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode() & (fs.ModePerm | fs.ModeSetgid); got != want {
		t.Errorf("%s: mode %v, want %v", name, got, want)
	}
}

func TestMissingRootIsNeverMadeOnTheWay(t *testing.T) {
	l := New(filepath.Join(t.TempDir(), "mnt"))
	if _, err := l.Create(t.Context(), "f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("create: got %v, want fs.ErrNotExist", err)
	}
	if err := l.Mkdir(t.Context(), "d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mkdir: got %v, want fs.ErrNotExist", err)
	}
	if err := l.Mkdir(t.Context(), "."); err != nil {
		t.Error(err)
	}
	wantMode(t, l.root, 0o700)
	if err := New(filepath.Join(l.root, "a/b")).Mkdir(t.Context(), "."); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("root below a missing directory: got %v, want fs.ErrNotExist", err)
	}
}

func TestNamedPipeIsAnErrorNotAHang(t *testing.T) {
	root := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(root, "p"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := New(root).Open(t.Context(), "p"); err == nil {
		t.Errorf("opened: %v", f.Close())
	}
}

func TestPublishByLink(t *testing.T) {
	root := t.TempDir()
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	write("b")
	l := New(root)
	if err := l.publishByLink("a", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a taken name: got %v, want fs.ErrExist", err)
	}
	if err := l.publishByLink("a", "c"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old name is still there: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "c")); string(got) != "a" {
		t.Errorf("got %q, error %v", got, err)
	}
	if got, _ := os.ReadFile(filepath.Join(root, "b")); string(got) != "b" {
		t.Errorf("the file that stood there now holds %q", got)
	}
}
