package standby

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive/wal"
)

// warm is a warm standby: an archive and a data directory with pg_wal.
type warm struct {
	t       *testing.T
	archive string
	target  string // XLOGFILEPATH
	trigger string
}

func newWarm(t *testing.T) warm {
	root := t.TempDir()
	fillDir(t, root, "archive/", "pg_wal/")
	return warm{t, filepath.Join(root, "archive"), filepath.Join(root, "pg_wal/RECOVERYXLOG"), filepath.Join(root, "trigger")}
}

// ran is what a call did, and how long it seemed to take.
type ran struct {
	status         int
	stdout, stderr string
	took           time.Duration
}

// runStandby must be called within a synctest bubble if it may wait.
func runStandby(ctx context.Context, args ...string) ran {
	var out, err bytes.Buffer
	start := time.Now()
	status := PgStandby(ctx, args, StandardIO{"/usr/bin/pg_standby", "1.2.3", &out, &err})
	return ran{status, out.String(), err.String(), time.Since(start)}
}

// ask restores a file, with options, as PostgreSQL would have it done.
func (w warm) ask(name string, options ...string) ran {
	return runStandby(w.t.Context(), append(options, w.archive, name, w.target)...)
}

// put makes a sparse file of some length, with a header that tells size.
func (w warm) put(name string, size wal.SegmentSize, length int64) {
	w.t.Helper()
	page := make([]byte, 8192)
	binary.LittleEndian.PutUint32(page[32:], uint32(size))
	copy(page[100:], name)
	file := filepath.Join(w.archive, name)
	if err := errors.Join(os.WriteFile(file, page[:min(length, 8192)], 0o640), os.Truncate(file, length)); err != nil {
		w.t.Fatal(err)
	}
}

func (w warm) putSegment(name string) { w.put(name, 1<<20, 1<<20) }

func (w warm) write(file, content string) {
	w.t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// wantRestored checks that pg_wal holds the file, or nothing, and no remains.
func (w warm) wantRestored(name string, restored bool) {
	w.t.Helper()
	var want []byte
	if restored {
		want, _ = os.ReadFile(filepath.Join(w.archive, name))
	}
	got, err := os.ReadFile(w.target)
	if restored != (err == nil) || !bytes.Equal(got, want) {
		w.t.Errorf("restored: %v (%d bytes), want %v (%d bytes)", err == nil, len(got), restored, len(want))
	}
	for _, name := range namesIn(w.t, filepath.Dir(w.target)) {
		if strings.HasPrefix(name, ".tmp-") {
			w.t.Errorf("%s stayed behind", name)
		}
	}
}

func (r ran) want(t *testing.T, status int, stderr string, took time.Duration) {
	t.Helper()
	if r.status != status || r.stderr != stderr || r.took != took || r.stdout != "" {
		t.Errorf("got status %d after %v, stdout %q, stderr\n%s\nwant status %d after %v, stderr\n%s", r.status, r.took, r.stdout, r.stderr, status, took, stderr)
	}
}

func TestStandbyRestoresSegmentsOfEverySize(t *testing.T) {
	for _, size := range []wal.SegmentSize{1 << 20, 16 << 20, 64 << 20} {
		w := newWarm(t)
		w.put(seg1, size, int64(size))
		if got := w.ask(seg1); got.status != 0 || got.stderr != "" {
			t.Errorf("%d: got %+v, want 0 and silence", size, got)
		}
		w.wantRestored(seg1, true)
	}
}

func TestStandbyRestoresOverAnOlderFile(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	w.write(w.target, "older")
	if got := w.ask(seg1); got.status != 0 {
		t.Errorf("got %+v", got)
	}
	w.wantRestored(seg1, true)
}

func TestStandbyKeepsThePermissions(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	if err := os.Chmod(filepath.Join(w.archive, seg1), 0o440); err != nil {
		t.Fatal(err)
	}
	w.ask(seg1)
	info, err := os.Stat(w.target)
	if err != nil || info.Mode().Perm()&0o607 != 0o600 {
		t.Errorf("got %v, %v: want what the archive's file has, and writable", info, err)
	}
}

func TestStandbyWaitsOneTurnLongerThanItSeems(t *testing.T) {
	for _, c := range []struct {
		options []string
		took    time.Duration
		said    string
	}{
		{[]string{"-s5", "-w10"}, 15 * time.Second, "Timed out after 14 seconds: fast failover\n"},
		{[]string{"-s", "5", "-w", "4"}, 5 * time.Second, "Timed out after 4 seconds: fast failover\n"},
		{[]string{"-s1", "-w1"}, 2 * time.Second, "Timed out after 1 seconds: fast failover\n"},
		{[]string{"-s60", "-w1"}, time.Minute, "Timed out after 59 seconds: fast failover\n"},
		{[]string{"-w3"}, 5 * time.Second, "Timed out after 4 seconds: fast failover\n"},
	} {
		w := newWarm(t)
		synctest.Test(t, func(t *testing.T) {
			w.t = t
			w.ask(seg1, c.options...).want(t, 1, "", c.took)
			if got := w.ask(seg1, append(c.options, "-d")...); !strings.Contains(got.stderr, c.said) {
				t.Errorf("%q: got %q, want %q", c.options, got.stderr, c.said)
			}
		})
	}
}

func TestStandbyWaitsForEverWithoutLimit(t *testing.T) {
	w := newWarm(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		time.AfterFunc(100*time.Hour-time.Second, func() { w.putSegment(seg1) })
		w.ask(seg1, "-w0").want(t, 0, "", 100*time.Hour)
	})
	w.wantRestored(seg1, true)
}

func TestStandbyWaitsUntilTheSegmentIsWhole(t *testing.T) {
	const size = 1 << 20
	w := newWarm(t)
	w.put(seg1, size, 100)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		for seconds, length := range []int64{2: 8191, 7: 8192, 12: size - 1, 17: size} {
			if length > 0 {
				time.AfterFunc(time.Duration(seconds)*time.Second, func() { w.put(seg1, size, length) })
			}
		}
		w.ask(seg1).want(t, 0, "", 20*time.Second)
	})
	w.wantRestored(seg1, true)
}

func TestStandbySurvivesFilesAllocatedBeforeTheyAreWritten(t *testing.T) {
	const size = 1 << 20
	w := newWarm(t)
	w.put(seg1, 0, size)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		time.AfterFunc(12*time.Second, func() { w.put(seg1, 12345, size) })
		time.AfterFunc(22*time.Second, func() { w.putSegment(seg1) })
		complaint := "pg_standby: WAL segment size must be a power of two between 1MB and 1GB, but the WAL file header specifies "
		w.ask(seg1).want(t, 0, complaint+"0 bytes\n"+complaint+"12345 bytes\n", 25*time.Second)
	})
}

func TestStandbyRefusesFilesLargerThanASegment(t *testing.T) {
	w := newWarm(t)
	w.put(seg1, 1<<20, 1<<20+1)
	if got := w.ask(seg1); got.status != 3 || got.stderr != "" {
		t.Errorf("got %+v, want status 3", got)
	}
	if got := w.ask(seg1, "-d"); !strings.HasSuffix(got.stderr, "\nfile size greater than expected\n") {
		t.Errorf("got %q", got.stderr)
	}
	w.wantRestored(seg1, false)
}

func TestStandbyRestoresHistoryOrSaysNoAtOnce(t *testing.T) {
	w := newWarm(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		w.ask("00000002.history").want(t, 1, "", 0)
		if got := w.ask("00000002.history", "-d"); !strings.HasSuffix(got.stderr, "\nrunning restore:      not restored\nhistory file not found\n") {
			t.Errorf("got %q", got.stderr)
		}
		w.write(filepath.Join(w.archive, "00000002.history"), "1\t0/3000000\n")
		w.write(w.trigger, "fast") // which is not for history files
		w.ask("00000002.history", "-t", w.trigger).want(t, 0, "", 0)
	})
	w.wantRestored("00000002.history", true)
}

func TestStandbyRestoresBackupLabelsOfAnyLength(t *testing.T) {
	w := newWarm(t)
	fillDir(t, w.archive, "000000010000000000000000")
	w.write(filepath.Join(w.archive, label1), "START WAL LOCATION")
	if got := runStandby(t.Context(), w.archive, label1, w.target, seg1); got.status != 0 || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
	w.wantRestored(label1, true)
	if left := namesIn(t, w.archive); len(left) != 2 {
		t.Errorf("left %q: cleaned up after something that is no segment", left)
	}
}

func TestStandbyTriesAgainWhenCopyingFails(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	target := filepath.Join(filepath.Dir(w.target), "later", "RECOVERYXLOG")
	w.target = target
	for _, c := range []struct {
		options  []string
		attempts int
		took     time.Duration
	}{
		{nil, 4, 15 * time.Second}, // pauses of 0, 5 and 10 seconds
		{[]string{"-r0"}, 1, 0},
		{[]string{"-r1"}, 2, 0},
		{[]string{"-r", "5", "-s2"}, 6, 20 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			w.t = t
			got := w.ask(seg1, c.options...)
			if n := strings.Count(got.stderr, "pg_standby: could not copy file"); got.status != 1 || n != c.attempts || got.took != c.took {
				t.Errorf("%q: %d attempts in %v, want %d in %v: %+v", c.options, n, got.took, c.attempts, c.took, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		time.AfterFunc(4*time.Second, func() { fillDir(t, filepath.Dir(filepath.Dir(target)), "later/") })
		if got := w.ask(seg1); got.status != 0 || got.took != 5*time.Second {
			t.Errorf("got %+v, want success at the third attempt", got)
		}
	})
	w.wantRestored(seg1, true)
}

func TestStandbyReplacesNothingButRegularFiles(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	if err := os.Symlink("/dev/null", w.target); err != nil {
		t.Fatal(err)
	}
	got := w.ask(seg1, "-r0")
	if info, err := os.Lstat(w.target); got.status != 1 || err != nil || info.Mode().IsRegular() {
		t.Errorf("got %+v, and the target is %v, %v", got, info, err)
	}
}

func TestStandbyCopyThatComesOutWrongLeavesTheTargetAlone(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	w.write(w.target, "older")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	from := filepath.Join(w.archive, seg1)
	if err := copyWhole(t.Context(), from, w.target, 2<<20); err == nil || !strings.Contains(err.Error(), "1048576 bytes and not 2097152") {
		t.Errorf("copied half a segment: %v", err)
	}
	if err := copyWhole(ended, from, w.target, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("copied after the end: %v", err)
	}
	if content, err := os.ReadFile(w.target); err != nil || string(content) != "older" || len(namesIn(t, filepath.Dir(w.target))) != 1 {
		t.Errorf("got %d bytes, %v, %q; want the older file alone", len(content), err, namesIn(t, filepath.Dir(w.target)))
	}
}

func TestStandbySaysWhatKeepsTheArchiveOutOfReach(t *testing.T) {
	w := newWarm(t)
	w.write(filepath.Join(filepath.Dir(w.archive), "file"), "")
	w.archive = filepath.Join(filepath.Dir(w.archive), "file") // passes: the original only asks whether it exists
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		w.ask(seg1, "-w60").want(t, 1, "pg_standby: could not stat WAL file \""+w.archive+"/"+seg1+"\": Not a directory\n", 65*time.Second)
	})
}
