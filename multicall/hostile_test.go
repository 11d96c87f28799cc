package multicall

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hostile are texts that would do something if any shell, any program that looks
// for options, or any path took them for more than a name. Each would leave a
// file behind, or lead out of its directory. A line break is a continued line.
func hostile(canary string) []string {
	return []string{
		"$(touch " + canary + ")", "`touch " + canary + "`", "; touch " + canary, "x; touch " + canary + ";", "| touch " + canary,
		"&& touch " + canary, "& touch " + canary + " &", "' ; touch " + canary + " ; '", `" ; touch ` + canary + ` ; "`, `x"$(touch ` + canary + `)"`,
		"x\n    touch " + canary, "x\n    ; touch " + canary + "\n    y", "-oProxyCommand=touch " + canary, "-o ProxyCommand=touch " + canary,
		"--rsync-path=touch " + canary, "-e touch " + canary, "-", "--", "> " + canary, "x > " + canary, "../../escaped", "..", ".", "a/../../escaped", "a/b",
		"a b", "*", "~", "~root", "$HOME", "${HOME}", "%(pgdata)s", "x@y", "x@y:z", "[::1]; touch " + canary, "\x1b]0;owned\x07", "\\", "\\n", "!x", "x\ty", "é", "<" + canary,
	}
}

// crossing are the places where a setting reaches a program, a path or a host.
func crossing() []struct {
	key, template string
	// is what the setting came to, where it is to be the text itself.
	is func(Config) string
} {
	return []struct {
		key, template string
		is            func(Config) string
	}{
		{"slaves", "%s", func(c Config) string { return strings.Join(c.Slaves, ",") }},
		{"slaves", "127.0.0.1, %s", func(c Config) string { return strings.Join(c.Slaves, ", ") }},
		{"user", "%s", func(c Config) string { return c.User }},
		{"r_archivedir", "%s", func(c Config) string { return c.RArchiveDir }},
		{"r_archivedir", "/srv/x%s", func(c Config) string { return c.RArchiveDir }},
		{"l_archivedir", "%s", func(c Config) string { return c.LArchiveDir }},
		{"pgdata", "%s", func(c Config) string { return c.PGData }},
		{"pgdata", "/nowhere/x%s", func(c Config) string { return c.PGData }},
		{"identity_file", "%s", func(c Config) string { return c.IdentityFiles[0] }},
		{"identity_file", "/nowhere/x%s", func(c Config) string { return c.IdentityFiles[0] }},
		{"known_hosts", "/nowhere/x%s", func(c Config) string { return c.KnownHosts[0] }},
		{"ssh", "%s", nil},
		{"ssh", "/usr/bin/ssh %s", nil},
		{"ssh", "/usr/bin/ssh -p %s", nil},
		{"ssh", "/usr/bin/ssh -l %s", nil},
		{"ssh", "/usr/bin/ssh -i /nowhere/x%s", nil},
		{"ssh", "/usr/bin/ssh -o %s", nil},
		{"ssh", "/usr/bin/ssh -oHostName=%s", nil},
		{"ssh", "/usr/bin/ssh -oProxyJump=%s", nil},
		{"ssh", "/usr/bin/ssh -oUserKnownHostsFile=/nowhere/x%s", nil},
		{"ssh_command", "/bin/false %s", nil},
		{"rsync_flags", "%s", nil},
		{"rsync_flags", "--bwlimit=%s", nil},
		{"rsync_bin", "%s", nil},
		{"pgcontroldata", "%s", nil},
		{"includepath", "%s", nil},
		{"queue_user", "%s", nil},
		{"notify_ok", "/bin/false '%s'", nil},
	}
}

// TestSettingsRunNothing: whatever stands in a setting that reaches a program, a
// path or a host, no part of it is run or leads elsewhere. Either it is refused
// by the name of its key, or it is the text itself.
func TestSettingsRunNothing(t *testing.T) {
	dir := t.TempDir()
	data, queues, canary := newData(t, filepath.Join(dir, "data")), filepath.Join(dir, "queues"), filepath.Join(dir, "canary")
	segment := filepath.Join(data, "pg_wal", "000000010000000000000007")
	config := filepath.Join(dir, "cmd_archiver.ini")
	var refused, taken int
	for _, place := range crossing() {
		for _, text := range hostile(canary) {
			value := fmt.Sprintf(place.template, text)
			lines := map[string]string{
				"slaves": "127.0.0.1", "ssh": "/usr/bin/ssh -p 1", "r_archivedir": "/srv/archive", "l_archivedir": queues, "pgdata": data, "ssh_timeout": "1",
			}
			lines[place.key] = value
			ini := "[DEFAULT]\n"
			for key, value := range lines {
				ini += key + ": " + value + "\n"
			}
			writeINI(t, config, ini)
			cfg, err := loadConfig(configSources{&settingFlags{ConfigFile: &config}, nil, "", "."})
			if err != nil {
				refused++
				if !strings.Contains(err.Error(), place.key) {
					t.Errorf("%s: %q is refused without its name: %v", place.key, value, err)
				}
			} else {
				taken++
				if want := asINI(value, data); place.is != nil && want != "" && place.is(cfg) != filepath.Clean(want) && place.is(cfg) != want {
					t.Errorf("%s: got %q, want %q", place.key, place.is(cfg), want)
				}
			}
			if err == nil {
				err = cfg.needSlaves()
			}
			said := runHere(func(c *call) error {
				if err != nil {
					return err // nothing else is done then
				}
				return errors.Join(c.initQueues(t.Context(), cfg), c.ship(t.Context(), cfg, segment), c.checkShipping(t.Context(), cfg))
			})
			if strings.ContainsFunc(strings.ReplaceAll(said, "\n", ""), isControl) {
				t.Errorf("%s: %q: control characters are said: %q", place.key, value, said)
			}
			wantUntouched(t, dir, place.key+": "+value)
		}
	}
	if refused < 300 || taken < 100 {
		t.Errorf("%d settings were refused and %d taken: the table misses its aim", refused, taken)
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// asINI is how a text reads in the file.
func asINI(text, pgdata string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(withoutComment(line)); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), "%(pgdata)s", pgdata)
}

// newData is a data directory with one segment.
func newData(t *testing.T, dir string) string {
	t.Helper()
	real := filepath.Join("..", "archive", "wal", "testdata", "pg15")
	for _, sub := range []string{"pg_wal", "global"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{
		"PG_VERSION": "PG_VERSION", "pg_control": "global/pg_control", "000000010000000000000007.gz": "pg_wal/000000010000000000000007",
	} {
		if err := copyFile(filepath.Join(real, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeINI(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runHere runs a part of cmd_archiver in this process, with slaves that are
// hosts. It returns all that is said.
func runHere(run func(*call) error, args ...string) string {
	var said bytes.Buffer
	c := &call{
		name: "cmd_archiver", called: "cmd_archiver", args: args, environ: []string{"PATH=" + os.Getenv("PATH")},
		surroundings: surroundings{uid: 1000, slaveURL: Config.slaveURL}, stdout: &output{w: &said}, stderr: &said, level: new(slog.LevelVar), began: time.Now(),
	}
	c.log = slog.New(newLineHandler(&said, c.name, c.level))
	report(&said, c.name, run(c))
	c.connections.close()
	return said.String()
}

// wantUntouched fails if anything but the known is in a directory, or beside
// it. What a call made is removed.
func wantUntouched(t *testing.T, dir, after string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "data", "cmd_archiver.ini":
		case "queues":
			wantQueues(t, filepath.Join(dir, "queues"), after)
			if err := os.RemoveAll(filepath.Join(dir, "queues")); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("%q has left %s behind", after, e.Name())
		}
	}
	for _, name := range []string{filepath.Join(dir, "..", "escaped"), "canary", "escaped", "x", "-", "--"} {
		if _, err := os.Lstat(name); err == nil {
			t.Fatalf("%q has left %s behind", after, name)
		}
	}
}

// wantQueues fails if the queues' directory holds more than folders of files.
func wantQueues(t *testing.T, queues, after string) {
	t.Helper()
	err := filepath.WalkDir(queues, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(queues, path)
		if deep := strings.Count(name, "/"); err == nil && deep > 1 || deep == 0 && !d.IsDir() {
			t.Errorf("%q has left %s among the queues", after, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFileNamesRunNothing: so it is with the file that -F names.
func TestFileNamesRunNothing(t *testing.T) {
	dir := t.TempDir()
	data, canary := newData(t, filepath.Join(dir, "data")), filepath.Join(dir, "canary")
	config := filepath.Join(dir, "cmd_archiver.ini")
	writeINI(t, config, fmt.Sprintf("slaves: 127.0.0.1\nssh: /usr/bin/ssh -p 1\nr_archivedir: /srv/archive\nl_archivedir: %s/queues\npgdata: %s\nssh_timeout: 1\n", dir, data))
	archiver := func(c *call) error { return runCmdArchiver(t.Context(), c) }
	runHere(archiver, "-C", config, "-I")
	const segment = "000000010000000000000007"
	for _, text := range hostile(canary) {
		for _, path := range []string{text, segment + text, text + segment, text + "/" + segment, filepath.Join(data, "pg_wal") + "/" + text, "./" + text, data + "/pg_wal/../" + text} {
			said := runHere(archiver, "-C", config, "-F", path)
			if !strings.HasPrefix(said, "cmd_archiver: ") {
				t.Errorf("-F %q: got %q, want it refused", path, said)
			}
			if strings.ContainsFunc(strings.ReplaceAll(said, "\n", ""), isControl) {
				t.Errorf("-F %q: control characters are said: %q", path, said)
			}
			for line := range strings.Lines(said) {
				if !strings.HasPrefix(line, "cmd_archiver: ") && !strings.HasPrefix(line, "HINT: ") {
					t.Errorf("-F %q: got line %q", path, line)
				}
			}
			if queued, _ := filepath.Glob(filepath.Join(dir, "queues", "127.0.0.1", "[0-9]*")); len(queued) > 0 {
				t.Fatalf("-F %q: %q is queued", path, queued)
			}
		}
	}
	// A directory may be called anything.
	strange := newData(t, filepath.Join(dir, "data", "$(touch canary); `x` '\" -o"))
	said := runHere(archiver, "-C", config, "-F", filepath.Join(strange, "pg_wal", segment))
	if _, err := os.Stat(filepath.Join(dir, "queues", "127.0.0.1", segment)); err != nil {
		t.Errorf("a segment in %q was not taken: %v\n%s", strange, err, said)
	}
	wantUntouched(t, dir, "-F")
}
