package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func unnamed(t *testing.T, dir, content string) *os.File {
	t.Helper()
	f, err := Unnamed(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// removed is what Unnamed makes where there are no files without a name.
func removed(t *testing.T, dir, content string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	_, err = f.WriteString(content)
	if err := errors.Join(err, os.Remove(f.Name())); err != nil {
		t.Fatal(err)
	}
	return f
}

// Also where its file system cannot give it the name, or it is another one.
func TestAdoptedFilesAppearWhole(t *testing.T) {
	content := strings.Repeat("x", 100_000)
	for what, make := range map[string]func(t *testing.T, dir, content string) *os.File{"unnamed": unnamed, "removed": removed} {
		near := t.TempDir()
		far, err := os.MkdirTemp("/dev/shm", "pitr")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(far) })
		for _, dir := range []string{near, far} {
			dest := filepath.Join(dir, "RECOVERYXLOG")
			for range 2 { // the second one replaces the first
				f := make(t, near, content)
				if err := Adopt(f, dest); err != nil {
					t.Fatalf("%s, %s: %v", what, dir, err)
				}
				if got, err := os.ReadFile(dest); err != nil || string(got) != content {
					t.Errorf("%s, %s: %d bytes, error %v", what, dir, len(got), err)
				}
			}
			wantNames(t, dir, "RECOVERYXLOG")
		}
	}
}

// It is PostgreSQL's file: with the access that the process has which asked for it.
func TestAdoptedFilesHaveTheAccessOfTheirCaller(t *testing.T) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	dir := t.TempDir()
	f := unnamed(t, dir, "x")
	syscall.Umask(0o077)
	dest := filepath.Join(dir, "y")
	if err := Adopt(f, dest); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dest); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, error %v, want mode 0600", info, err)
	}
}

func TestUnnamedFilesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	_ = unnamed(t, dir, "x")
	wantNames(t, dir)
	if _, err := Unnamed(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s has %q, want %q", dir, got, want)
	}
}
