package standby

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// utilLinuxGetopt is glibc's getopt_long for shells.
const utilLinuxGetopt = "/usr/bin/getopt"

var cleanupOptions = getopt{"prog", "bdnx:", []longOption{
	{"clean-backup-history", 'b'}, {"debug", 'd'}, {"dry-run", 'n'}, {"strip-extension", 'x'},
}}

func TestGetoptLikeGlibc(t *testing.T) {
	if _, err := exec.LookPath(utilLinuxGetopt); err != nil {
		t.Skipf("needs getopt(1) of util-linux: %v", err)
	}
	lines := [][]string{
		{}, {"--"}, {"-"}, {"--debug"}, {"--deb"}, {"--d"}, {"--dr"}, {"--c"}, {"--strip-extension"}, {"--s"}, {"--s", "x"}, {"--s="},
		{"--s=x"}, {"--strip-extension=a=b"}, {"--debug=1"}, {"--d=1"}, {"--=1"}, {"--nope"}, {"--nope=1"}, {"--debugger"}, {"--help"},
		{"-x"}, {"-xa"}, {"-x", "a"}, {"-bdnx", "--", "a"}, {"a", "-b", "--", "-d"}, {"-q"}, {"-bq"}, {"-?"}, {"-V"}, {"-:"}, {"-;"},
		{"--s", "--"}, {"--s", "--debug"}, {"--Debug"}, {"---debug"}, {"-b-"}, {"-x=1"}, {"", "-b"}, {"--debug", "", "--"},
	}
	pieces := []string{"-b", "-d", "-n", "-x", "-bd", "-dx", "-x.gz", "-q", "--", "-", "", "a", "b=c", "--debug", "--de", "--d", "--dr", "--s", "--s=1",
		"--st", "--clean", "--clean=1", "--zzz", "---", "-nq", "-W"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var line []string
		for range random.IntN(6) {
			line = append(line, pick(random, pieces...))
		}
		lines = append(lines, line)
	}
	for _, line := range lines {
		if got, want := getoptOurs(line), getoptGlibc(t, line); got != want {
			t.Errorf("%q:\n got %s\nwant %s", line, got, want)
		}
	}
	t.Logf("%d command lines compared", len(lines))
}

// getoptOurs writes what was understood, or the complaint, as getopt(1) does.
func getoptOurs(args []string) string {
	names := map[byte]string{'b': "clean-backup-history", 'd': "debug", 'n': "dry-run", 'x': "strip-extension"}
	var b strings.Builder
	operands, err := cleanupOptions.parse(args, func(letter byte, value string) error {
		fmt.Fprintf(&b, " --%s", names[letter])
		if letter == 'x' {
			fmt.Fprintf(&b, " '%s'", value)
		}
		return nil
	})
	if err != nil {
		return err.Error()
	}
	b.WriteString(" --")
	for _, o := range operands {
		fmt.Fprintf(&b, " '%s'", o)
	}
	return b.String()
}

// getoptGlibc returns the first complaint if there is one: ours stops there.
func getoptGlibc(t *testing.T, args []string) string {
	t.Helper()
	cmd := exec.Command(utilLinuxGetopt, append([]string{"-n", "prog", "-o", cleanupOptions.short, "-l",
		"clean-backup-history,debug,dry-run,strip-extension:", "--"}, args...)...)
	cmd.Env = []string{"LC_ALL=C"}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if first, _, found := strings.Cut(stderr.String(), "\n"); found {
		return first
	}
	return longNames(strings.TrimSuffix(string(out), "\n"))
}

// longNames respells the options; getopt(1) leaves them as they were given.
func longNames(line string) string {
	long := map[string]string{"-b": "--clean-backup-history", "-d": "--debug", "-n": "--dry-run", "-x": "--strip-extension"}
	words := strings.Split(line, " ")
	for i, word := range words {
		if word == "--" {
			break
		}
		if name, short := long[word]; short {
			words[i] = name
		}
	}
	return strings.Join(words, " ")
}

func TestAtoiLikeC(t *testing.T) {
	for s, want := range map[string]int{
		"5": 5, "05": 5, "5x": 5, " 5": 5, "\t+5": 5, "-5": -5, "": 0, "x": 0, "-": 0, "+-5": 0, "1 2": 1, "1_0": 1, "0x10": 0,
		"99999999999999999999": 1<<31 - 1, "-99999999999": -(1<<31 - 1),
	} {
		if got := atoi(s); got != want {
			t.Errorf("atoi(%q): got %d, want %d", s, got, want)
		}
	}
}
