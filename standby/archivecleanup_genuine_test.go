package standby

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// genuineCleanup is PostgreSQL 15's. It lacks -b and the long options of 17.
const genuineCleanup = "/usr/lib/postgresql/15/bin/pg_archivecleanup"

// trial is one call of pg_archivecleanup in a directory that holds the
// directory "a" with these names.
type trial struct {
	names, args []string
}

// compare runs both programs on two equal directories.
func (c trial) compare(t *testing.T) {
	t.Helper()
	genuine, ours := t.TempDir(), t.TempDir()
	for _, dir := range []string{genuine, ours} {
		fillDir(t, dir, "a/", "file")
		fillDir(t, filepath.Join(dir, "a"), c.names...)
	}
	want := runGenuine(t, genuine, c.args)
	t.Chdir(ours)
	var stdout, stderr bytes.Buffer
	got := outcome{status: PgArchiveCleanup(t.Context(), c.args, StandardIO{genuineCleanup, "", &stdout, &stderr})}
	got.stdout, got.stderr, got.left = stdout.String(), stderr.String(), namesIn(t, "a")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q on %q\n got %#v\nwant %#v", c.args, c.names, got, want)
	}
}

func runGenuine(t *testing.T, dir string, args []string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(genuineCleanup, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, []string{"LC_ALL=C"}, &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), namesIn(t, filepath.Join(dir, "a"))}
}

func needGenuine(t *testing.T) {
	if _, err := os.Stat(genuineCleanup); err != nil {
		t.Skipf("needs %s: apt-get install postgresql-15", genuineCleanup)
	}
}

func TestCleanupCommandLinesLikeTheGenuine(t *testing.T) {
	needGenuine(t)
	names := []string{seg1, seg1 + ".partial", seg1 + ".gz", label1, seg2, "00000002.history"}
	lines := [][]string{
		{}, {"-d"}, {"-dn"}, {"a"}, {"--"}, {"-"}, {"", seg2}, {"a", ""}, {"", ""}, {"a", seg2, "more"}, {"a", seg2, ""},
		{"-q"}, {"-dq", "a", seg2}, {"a", seg2, "-q"}, {"-d", "-V"}, {"-d", "-?"}, {"-?d"}, {"-:"}, {"-;"}, {"-d-"}, {"-\xff"},
		{"-x"}, {"a", seg2, "-x"}, {"a", seg2, "-dx"}, {"-x", "--", "a", seg2}, {"-x", "-d", "a", seg2}, {"-x", "", "a", seg2},
		{"-d", "a", seg2}, {"a", "-d", seg2}, {"a", seg2, "-d"}, {"-d", "--", "a", seg2}, {"a", "--", "-d"}, {"--", "-d", seg2},
		{"a", "--", seg2, "--"}, {"a", "-", seg2}, {"-", seg2}, {"-nd", "a/", seg2}, {"-nd", "./a", seg2}, {"-nd", "a//", seg2},
		{"-ndnd", "a", seg2}, {"-n", "-d", "-x.gz", "a", seg2}, {"-ndx.gz", "a", seg2}, {"-ndx", ".gz", "a", seg2 + ".gz"},
		{"-d", "-xgz", "a", seg2}, {"-d", "-x", "2", "a", seg2}, {"-d", "-x", seg2, "a", seg2}, {"-x.gz", "-x.zst", "-d", "a", seg2},
		{"file", seg2}, {"nowhere", seg2}, {"nowhere", "bad"}, {"file/x", seg2}, {"a", "bad"}, {"a", "00000002.history"},
		{"a", strings.ToLower("00000001000000000000000A")}, {"a", seg2 + "0"}, {"a", seg2[1:]}, {"a", seg2 + ".gz"}, {"a", "a/" + seg2},
	}
	for _, suffix := range []string{
		".partial", ".partial.gz", ".PARTIAL", ".partia", ".backup", ".00000028.backup", ".0x.backup", ".0xA.backup", ". 5.backup",
		".+5.backup", ".-1.backup", ".+.backup", ".+-5.backup", ".zbackup.backup", "..backup", "backup", ".0xg.backup", "00000020.backup",
		".\n5.backup", "-.backup", ".a.foo.backup", ".28.backup", ".123456789.backup", "abc.00000020.backup", ".00000028.backup.gz",
	} {
		lines = append(lines, []string{"-d", "a", seg2 + suffix})
	}
	for _, args := range lines {
		trial{names, args}.compare(t)
	}
	t.Logf("%d command lines compared", len(lines))
}

func TestCleanupOfRandomDirectoriesLikeTheGenuine(t *testing.T) {
	needGenuine(t)
	const trials = 600
	random := rand.New(rand.NewPCG(15, 17))
	for range trials {
		randomTrial(random).compare(t)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d directories compared", trials)
}

func randomTrial(random *rand.Rand) trial {
	var c trial
	for range random.IntN(40) {
		c.names = append(c.names, randomName(random)+pick(random, "", "", "", ".gz", ".zst"))
	}
	if random.IntN(10) == 0 {
		blocker := randomName(random)
		c.names = slices.DeleteFunc(c.names, func(n string) bool { return n == blocker })
		c.names = append(c.names, blocker+"/")
	}
	c.args = []string{"a", randomName(random) + pick(random, "", "", "", ".gz")}
	for range random.IntN(3) {
		option := pick(random, "-d", "-n", "-dn", "-x.gz", "-x.zst", "-dx.gz")
		c.args = slices.Insert(c.args, random.IntN(len(c.args)+1), option)
	}
	return c
}

func randomName(random *rand.Rand) string {
	name := fmt.Sprintf("%08X%08X%08X", 1+random.IntN(3), random.IntN(3), random.IntN(4)*0x55)
	switch random.IntN(20) {
	case 0:
		return name[:8] + ".history"
	case 1:
		return strings.ToLower(name)
	case 2:
		return name[:random.IntN(23)+1]
	case 3:
		return name + pick(random, "0", "G", "a", ".", ".tmp", " ")
	}
	return name + pick(random, "", "", "", "", "", ".partial", ".partial", ".00000028.backup", ".backup", ".28.x.backup", ".Partial")
}

func pick(random *rand.Rand, of ...string) string { return of[random.IntN(len(of))] }
