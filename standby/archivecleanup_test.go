package standby

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// outcome is what a call of a tool leaves behind.
type outcome struct {
	status         int
	stdout, stderr string
	left           []string // names in the archive
}

func runCleanup(ctx context.Context, args ...string) outcome {
	var out, err bytes.Buffer
	status := PgArchiveCleanup(ctx, args, StandardIO{"pg_archivecleanup", "1.2.3", &out, &err})
	return outcome{status: status, stdout: out.String(), stderr: err.String()}
}

// fillDir makes empty files, and directories of names that end in a slash.
func fillDir(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		var err error
		if dirName, isDir := strings.CutSuffix(name, "/"); isDir {
			err = os.MkdirAll(filepath.Join(dir, dirName), 0o700)
		} else {
			err = os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// namesIn lists a directory, sorted.
func namesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

const (
	seg1, seg2, seg3 = "000000010000000000000001", "000000010000000000000002", "000000010000000000000003"
	label1           = seg1 + ".00000028.backup"
)

func TestCleanupRemovesOlderSegmentsAndPartials(t *testing.T) {
	everything := []string{
		seg1, seg2, seg3, seg1 + ".partial", seg2 + ".partial", label1, seg1 + ".gz", "00000002.history",
		"000000020000000000000001", "000000020000000000000002", "00000001000000000000000a", "archive.json",
	}
	for _, c := range []struct {
		about string
		args  []string
		gone  []string
	}{
		{"the timeline does not count", []string{seg2}, []string{seg1, seg1 + ".partial", "000000020000000000000001"}},
		{"a partial stands for its segment", []string{seg2 + ".partial"}, []string{seg1, seg1 + ".partial", "000000020000000000000001"}},
		{"a label stands for its segment", []string{seg2 + ".00000028.backup"}, []string{seg1, seg1 + ".partial", "000000020000000000000001"}},
		{"labels with -b", []string{"-b", seg2}, []string{seg1, label1, seg1 + ".partial", "000000020000000000000001"}},
		{"labels with the long option", []string{"--clean-b", seg2}, []string{seg1, label1, seg1 + ".partial", "000000020000000000000001"}},
		{"names without the extension go too", []string{"-x.gz", seg2 + ".gz"}, []string{seg1, seg1 + ".gz", seg1 + ".partial", "000000020000000000000001"}},
		{"the extension as long option", []string{"--strip-extension=.gz", seg2}, []string{seg1, seg1 + ".gz", seg1 + ".partial", "000000020000000000000001"}},
		{"nothing is older", []string{strings.Repeat("0", 24)}, nil},
		{"a dry run", []string{"--dry", seg3}, nil},
	} {
		t.Run(c.about, func(t *testing.T) {
			dir := t.TempDir()
			fillDir(t, dir, everything...)
			got := runCleanup(t.Context(), append([]string{dir}, c.args...)...)
			if got.status != 0 || got.stderr != "" {
				t.Errorf("status %d, stderr %q", got.status, got.stderr)
			}
			want := slices.DeleteFunc(slices.Clone(everything), func(n string) bool { return slices.Contains(c.gone, n) })
			slices.Sort(want)
			if left := namesIn(t, dir); !slices.Equal(left, want) {
				t.Errorf("left\n%q, want\n%q", left, want)
			}
		})
	}
}

func TestCleanupOutput(t *testing.T) {
	dir := t.TempDir()
	fillDir(t, dir, seg1, seg3)
	file := dir + "/" + seg1
	keeping := "pg_archivecleanup: keeping WAL file \"" + dir + "/" + seg2 + "\" and later\n"
	for _, c := range []struct{ option, stdout, stderr string }{
		{"-n", file + "\n", ""},
		{"-dn", file + "\n", keeping + "pg_archivecleanup: file \"" + file + "\" would be removed\n"},
		{"--debug", "", keeping + "pg_archivecleanup: removing file \"" + file + "\"\n"},
	} {
		got := runCleanup(t.Context(), c.option, dir, seg2)
		if got.status != 0 || got.stdout != c.stdout || got.stderr != c.stderr {
			t.Errorf("%s: status %d\n%q\n%q, want\n%q\n%q", c.option, got.status, got.stdout, got.stderr, c.stdout, c.stderr)
		}
	}
}

func TestCleanupHelpAndVersionAreFirstArgumentsOnly(t *testing.T) {
	for arg, want := range map[string]string{
		"--version": "pg_archivecleanup (pitr 1.2.3)\n", "-V": "pg_archivecleanup (pitr 1.2.3)\n",
		"--help": "--clean-backup-history", "-?": "OLDESTKEPTWALFILE",
	} {
		if got := runCleanup(t.Context(), arg, "-q"); got.status != 0 || !strings.Contains(got.stdout, want) || got.stderr != "" {
			t.Errorf("%s: got %+v, want %q", arg, got, want)
		}
		if got := runCleanup(t.Context(), "-d", arg); got.status != 2 || got.stdout != "" {
			t.Errorf("-d %s: got %+v, want a complaint", arg, got)
		}
	}
}

func TestCleanupStopsAtWhatItCannotRemove(t *testing.T) {
	dir := t.TempDir()
	fillDir(t, dir, seg1+"/")
	got := runCleanup(t.Context(), dir, seg2)
	want := "pg_archivecleanup: error: could not remove file \"" + dir + "/" + seg1 + "\": Is a directory\n"
	if got.status != 1 || got.stderr != want {
		t.Errorf("got %d %q, want 1 %q", got.status, got.stderr, want)
	}
	if left := namesIn(t, dir); len(left) != 1 {
		t.Error("an empty directory was removed: os.Remove instead of unlink")
	}
}

func TestCleanupDryRunNoticesThatStdoutFails(t *testing.T) {
	dir := t.TempDir()
	fillDir(t, dir, seg1)
	var stderr bytes.Buffer
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	defer full.Close()
	status := PgArchiveCleanup(t.Context(), []string{"-n", dir, seg2}, StandardIO{"pg_archivecleanup", "", full, &stderr})
	if status != 1 || !strings.Contains(stderr.String(), "No space left on device") {
		t.Errorf("got %d %q, want 1 and the reason", status, stderr.String())
	}
}

func TestCleanupRefusesArchiveOfLayoutTree(t *testing.T) {
	for _, c := range []struct {
		identity string
		status   int
	}{
		{`{"format": 1, "layout": "tree"}`, 2},
		{`{"format": 1, "layout": "flat"}`, 0},
		{`{"format": 1}`, 0},
		{`not json`, 0},
		{`{"layout": 7}`, 0},
	} {
		dir := t.TempDir()
		fillDir(t, dir, seg1)
		if err := os.WriteFile(filepath.Join(dir, "archive.json"), []byte(c.identity), 0o600); err != nil {
			t.Fatal(err)
		}
		got := runCleanup(t.Context(), dir, seg2)
		if refused := strings.Contains(got.stderr, "\nHINT: "); got.status != c.status || refused != (c.status == 2) {
			t.Errorf("%s: got %+v, want status %d", c.identity, got, c.status)
		}
		if kept := slices.Contains(namesIn(t, dir), seg1); kept != (c.status == 2) {
			t.Errorf("%s: segment kept: %v", c.identity, kept)
		}
	}
}

// signaled is a cause as package multicall gives it.
type signaled int

func (s signaled) Error() string   { return "signal" }
func (s signaled) ExitStatus() int { return int(s) }

func TestCleanupStopsWhenTheContextEnds(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  int
	}{{signaled(130), 130}, {signaled(131), 131}, {errors.New("parent gone"), 143}, {nil, 143}} {
		dir := t.TempDir()
		fillDir(t, dir, seg1)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(c.cause)
		if got := runCleanup(ctx, dir, seg2); got.status != c.want || got.stderr != "" {
			t.Errorf("%v: got %+v, want %d", c.cause, got, c.want)
		}
		if left := namesIn(t, dir); len(left) != 1 {
			t.Errorf("%v: removed a file after the end", c.cause)
		}
	}
}
