package standby

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

func TestStandbyUsage(t *testing.T) {
	dir := t.TempDir()
	try := "Try \"pg_standby --help\" for more information.\n"
	for _, c := range []struct {
		args   []string
		stderr string
	}{
		{nil, "pg_standby: not enough command-line arguments\n"},
		{[]string{"-d"}, "pg_standby: must specify archive location\n" + try},
		{[]string{dir}, "pg_standby: must specify WAL file name as second non-option argument (use \"%f\")\n" + try},
		{[]string{dir, seg1}, "pg_standby: must specify xlog destination as third non-option argument (use \"%p\")\n" + try},
		{[]string{dir + "/no", seg1, "x"}, "pg_standby: archive location \"" + dir + "/no\" does not exist\n"},
		{[]string{"-q"}, "/usr/bin/pg_standby: invalid option -- 'q'\n" + try},
		{[]string{"--debug"}, "/usr/bin/pg_standby: invalid option -- '-'\n" + try},
		{[]string{dir, "-k"}, "/usr/bin/pg_standby: option requires an argument -- 'k'\n" + try},
		{[]string{"-k-1", "-q"}, "pg_standby: -k keepfiles must be >= 0\n"},
		{[]string{"-r", "-1"}, "pg_standby: -r maxretries must be >= 0\n"},
		{[]string{"-s0"}, "pg_standby: -s sleeptime incorrectly set\n"},
		{[]string{"-s61"}, "pg_standby: -s sleeptime incorrectly set\n"},
		{[]string{"-sx"}, "pg_standby: -s sleeptime incorrectly set\n"},
		{[]string{"-w-1"}, "pg_standby: -w maxwaittime incorrectly set\n"},
		{[]string{"-d", "--version"}, "/usr/bin/pg_standby: invalid option -- '-'\n" + try},
	} {
		runStandbyAtOnce(t, c.args...).want(t, 2, c.stderr, 0)
	}
}

// runStandbyAtOnce gives calls that must not wait a clock that stands still.
func runStandbyAtOnce(t *testing.T, args ...string) (r ran) {
	synctest.Test(t, func(t *testing.T) { r = runStandby(t.Context(), args...) })
	return r
}

func TestStandbyOptionsMayStandAnywhere(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	for _, args := range [][]string{
		{"-cdlk5", w.archive, seg1, w.target, seg1},
		{"-c", w.archive, "-d", seg1, "-l", w.target, "-k", "5", seg1},
		{w.archive, seg1, w.target, seg1, "ignored", "-ldk", "5x"},
		{"-d", "--", w.archive, seg1, w.target, seg1, "-q"},
	} {
		if got := runStandbyAtOnce(t, args...); got.status != 0 || !strings.HasSuffix(got.stderr, ": "+seg1+" and later\nrunning restore:      OK\n\n") {
			t.Errorf("%q: got %+v", args, got)
		}
	}
}

func TestStandbyHelpAndVersion(t *testing.T) {
	for arg, want := range map[string]string{
		"--version": "pg_standby (pitr 1.2.3)\n", "-V": "pg_standby (pitr 1.2.3)\n",
		"--help": "[RESTARTWALFILE]\n", "-?": "  restore_command = 'pg_standby /mnt/server/archiverdir %f %p %r'\n",
	} {
		if got := runStandby(t.Context(), arg, "-q"); got.status != 0 || !strings.Contains(got.stdout, want) || got.stderr != "" {
			t.Errorf("%s: got %+v, want %q", arg, got, want)
		}
	}
}

func TestStandbyDebugTextOfARestore(t *testing.T) {
	w := newWarm(t)
	old := "000000010000000000000000"
	w.putSegment(seg3)
	fillDir(t, w.archive, old)
	got := runStandby(t.Context(), "-d", w.archive, seg3, w.target, seg1)
	want := `Trigger file:         <not set>
Waiting for WAL file: ` + seg3 + `
WAL file path:        ` + w.archive + "/" + seg3 + `
Restoring to:         ` + w.target + `
Sleep interval:       5 seconds
Max wait interval:    0 forever
Command for restore:  cp "` + w.archive + "/" + seg3 + `" "` + w.target + `"
WAL segment size:     1048576 ` + `
Keep archive history: ` + seg1 + ` and later
running restore:      OK

removing file "` + w.archive + "/" + old + `"
`
	if got.status != 0 || got.stderr != want {
		t.Errorf("got %d\n%s\nwant 0\n%s", got.status, got.stderr, want)
	}
}

func TestStandbyDebugTextOfAWait(t *testing.T) {
	w := newWarm(t)
	w.put(seg1, 1<<20, 100)
	notYet := "not enough data in file \"" + w.archive + "/" + seg1 + "\"\n"
	want := `Trigger file:         ` + w.trigger + `
Waiting for WAL file: ` + seg1 + `
WAL file path:        ` + w.archive + "/" + seg1 + `
Restoring to:         ` + w.target + `
Sleep interval:       1 second ` + `
Max wait interval:    2 seconds
Command for restore:  cp "` + w.archive + "/" + seg1 + `" "` + w.target + `"
` + notYet + `WAL file not present yet. Checking for trigger file...
` + notYet + `WAL file not present yet. Checking for trigger file...
` + notYet + `Timed out after 2 seconds: fast failover
WAL file not present yet. Checking for trigger file...
`
	got := runStandbyAtOnce(t, "-d", "-s1", "-w2", "-t", w.trigger, w.archive, seg1, w.target)
	if got.status != 1 || got.stderr != want {
		t.Errorf("got %d\n%s\nwant 1\n%s", got.status, got.stderr, want)
	}
	if got := runStandbyAtOnce(t, "-dw1", w.archive, seg1, w.target); !strings.HasSuffix(got.stderr, "\nWAL file not present yet.\n") {
		t.Errorf("without trigger: got %q", got.stderr)
	}
}

func TestStandbyDebugTextWithoutCleanup(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	if got := w.ask(seg1, "-d"); !strings.HasSuffix(got.stderr, "\nKeep archive history: no cleanup required\nrunning restore:      OK\n") {
		t.Errorf("got %q", got.stderr)
	}
}

func TestStandbyRefusesArchiveOfLayoutTree(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	w.write(filepath.Join(w.archive, "archive.json"), `{"layout": "tree"}`)
	if got := w.ask(seg1); got.status != 255 || !strings.Contains(got.stderr, "\nHINT: set restore_command = 'restore_command %f %p' instead\n") {
		t.Errorf("tree: got %+v", got)
	}
	w.write(filepath.Join(w.archive, "archive.json"), `{"layout": "flat"}`)
	if got := w.ask(seg1); got.status != 0 || got.stderr != "" {
		t.Errorf("flat: got %+v", got)
	}
	if _, err := os.Stat(filepath.Join(w.archive, "archive.json")); err != nil {
		t.Error(err)
	}
}
