package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// eventually polls until cond holds, and fails the test if it never does.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDirectory makes a directory with a short path that belongs to the
// servers' user. It is removed at the end of the test.
func newDirectory(t testing.TB, prefix string) string {
	t.Helper()
	dir, err := home.directory(prefix + strconv.FormatInt(directories.Add(1), 10))
	check(t, err)
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("PITR_TEST_KEEP") != "" {
			return
		}
		check(t, os.RemoveAll(dir))
	})
	return dir
}

// copyTree copies a directory with owners and modes to a new name.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
}

// writeFile writes a file for the servers' user.
func writeFile(t testing.TB, path, content string) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(content), 0o600))
	check(t, home.give(path))
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return b
}

func appendFile(path, content string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// glob is filepath.Glob for patterns known to be right, sorted.
func glob(t testing.TB, elements ...string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(elements...))
	check(t, err)
	return found
}
