package multicall

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServerCommandIsSeenThrough(t *testing.T) {
	tests := []struct {
		applet, text string
		want         error
		program      string
		args         string
	}{
		{"archive_command", "archive_command %p", nil, "archive_command", "%p"},
		{"archive_command", "/usr/bin/archive_command -C /etc/x.ini %p", nil, "/usr/bin/archive_command", "-C /etc/x.ini %p"},
		{"archive_command", `'/opt/my pitr/pitr' archive_command "%p"`, nil, "/opt/my pitr/pitr", "%p"},
		{"archive_command", `/opt/my\ pitr/pitr archive_command %p`, nil, "/opt/my pitr/pitr", "%p"},
		{"archive_command", "exec archive_command %p", nil, "archive_command", "%p"},
		{"archive_command", "nice -n 10 archive_command %p", nil, "archive_command", "%p"},
		{"archive_command", "env PITR_STATE=online archive_command %p", nil, "archive_command", "%p"},
		{"archive_command", "PITR_CONFIG=/x archive_command %p 2>>/tmp/log", nil, "archive_command", "%p"},
		{"archive_command", "test -e /mounted && archive_command %p && touch /tmp/ok", nil, "archive_command", "%p"},
		{"archive_command", "{ archive_command %p; }", nil, "archive_command", "%p"},
		{"archive_command", "(archive_command %p)", nil, "archive_command", "%p"},
		{"archive_command", "echo hello; archive_command %p", nil, "archive_command", "%p"},

		{"archive_command", "archive_command %p || true", errMasked, "archive_command", "%p"},
		{"archive_command", "archive_command %p; true", errMasked, "archive_command", "%p"},
		{"archive_command", "archive_command %p &", errMasked, "archive_command", "%p"},
		{"archive_command", "! archive_command %p", errMasked, "archive_command", "%p"},
		{"archive_command", "archive_command %p | logger", errMasked, "archive_command", "%p"},
		{"archive_command", "archive_command %p || mail -s failed root", errMasked, "archive_command", "%p"},
		{"archive_command", "archive_command %p; s=$?; exit $s", errOpaque, "archive_command", "%p"},
		{"archive_command", "if true; then archive_command %p; fi", errOpaque, "archive_command", "%p"},
		{"archive_command", "archive_command 'unclosed", errOpaque, "", ""},

		{"archive_command", "$HOME/bin/archive_command %p", errOpaque, "", ""},

		{"archive_command", "cp %p /archive/%f", errNotOurs, "", ""},
		{"archive_command", "/bin/true", errNotOurs, "", ""},
		{"archive_command", "cp %p /srv/archive_command/%f", errNotOurs, "", ""},
		{"archive_command", "my-script %p # archive_command", errNotOurs, "", ""},
		{"archive_command", "restore_command %f %p", errNotOurs, "", ""},

		{"cmd_archiver", "/usr/bin/cmd_archiver -C /etc/x.ini -F %p", nil, "/usr/bin/cmd_archiver", "-C /etc/x.ini -F %p"},
		{"cmd_archiver", "pitr cmd_archiver -C /etc/x.ini -F %p", nil, "pitr", "-C /etc/x.ini -F %p"},
		{"cmd_archiver", "archive_command %p && cmd_archiver -F %p", nil, "cmd_archiver", "-F %p"},
		{"cmd_archiver", "cmd_archiver -C /etc/x.ini -F %p || true", errMasked, "cmd_archiver", "-C /etc/x.ini -F %p"},
		{"cmd_archiver", "/opt/pitrtools/bin/cmd_archiver.py -F %p", errNotOurs, "", ""},

		{"restore_command", "restore_command %f %p", nil, "restore_command", "%f %p"},
		{"restore_command", "exec /usr/bin/pitr restore_command -C /x %f %p", nil, "/usr/bin/pitr", "-C /x %f %p"},
		{"restore_command", "restore_command %f %p || cp /old/%f %p", errMasked, "restore_command", "%f %p"},
		{"restore_command", "restore_command %f %p && true", errMasked, "restore_command", "%f %p"},
	}
	for _, tt := range tests {
		got, err := parseServerCommand(tt.text, tt.applet)
		if !errors.Is(err, tt.want) || (err != nil && tt.want == nil) {
			t.Errorf("%s: got error %v, want %v", tt.text, err, tt.want)
		}
		if got.program != tt.program || strings.Join(got.args, " ") != tt.args {
			t.Errorf("%s: got %q with %q, want %q with %q", tt.text, got.program, got.args, tt.program, tt.args)
		}
	}
}

func TestServerCommandIsJudged(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"archive_command", "restore_command", "cmd_archiver"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pgdata := filepath.Join(dir, "data")
	if err := os.Mkdir(pgdata, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "other.ini")
	if err := os.WriteFile(config, []byte("[DEFAULT]\narchive = file:///other\nstate = offline\npgdata = "+pgdata+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	environ := []string{"PATH=" + dir, "PITR_ARCHIVE=file:///mine", "PITR_PGDATA=" + pgdata}
	tests := []struct {
		applet, text string
		worst        severity
		says         string
	}{
		{"archive_command", "archive_command %p", warning, "is another binary than this one"},
		{"archive_command", "archive_command %p || true", critical, "the server does not see pitr's exit status"},
		{"archive_command", "archive_command", critical, "expected \"<path>\""},
		{"archive_command", "archive_command %f", critical, "its arguments are %f, not %p"},
		{"archive_command", "archive_command --no-such %p", critical, "unknown flag --no-such"},
		{"archive_command", "archive_command --help", critical, "it only asks for help"},
		{"archive_command", "/nowhere/archive_command %p", critical, "no such file"},
		{"archive_command", "PATH=/nowhere archive_command %p", critical, "is not in the server's PATH"},
		{"archive_command", "archive_command -C /nowhere.ini %p", critical, "/nowhere.ini"},
		{"archive_command", "archive_command --archive=/no/url %p", critical, "is not a URL"},
		{"archive_command", "env PITR_PGDATA=/elsewhere archive_command %p", critical, "the configuration is for pgdata /elsewhere"},
		{"archive_command", "env PITR_ARCHIVE= archive_command -C " + config + " %p", warning, "it uses file:///other, which the configuration"},
		{"archive_command", "env PITR_ARCHIVE= archive_command -C " + config + " %p", warning, "it does not use file:///mine"},
		{"archive_command", "env PITR_ARCHIVE= archive_command -C " + config + " %p", warning, "archiving is switched off in its configuration"},
		{"restore_command", "restore_command %p %f", critical, "its arguments are %p %f, not %f %p"},
		{"restore_command", "restore_command %f %p", warning, "ok  "},
	}
	own, err := loadConfig(configSources{&settingFlags{}, environ, "", pgdata})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		c := &checkup{}
		c.command(tt.applet, tt.text, own, environ)
		var b strings.Builder
		c.print(&b)
		if c.worst() != tt.worst || !strings.Contains(b.String(), tt.says) {
			t.Errorf("%s: want %s and %q, got:\n%s", tt.text, tt.worst, tt.says, b.String())
		}
	}
}

// archive_command may be cmd_archiver: its configuration is read, and held
// against the one that check was given.
func TestServerCommandThatShipsIsJudged(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"archive_command", "cmd_archiver"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pgdata := filepath.Join(dir, "data")
	if err := os.Mkdir(pgdata, 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("[DEFAULT]\npgdata = "+pgdata+"\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	slaves := "slaves: one, two\nr_archivedir: /far\nl_archivedir: /queues\n"
	ours, archives := file("ours.ini", slaves), file("archives.ini", "archive: file:///mine\n")
	other, off := file("other.ini", strings.Replace(slaves, "two", "three", 1)), file("off.ini", slaves+"state: offline\n")
	elsewhere, unready := file("elsewhere.ini", slaves+"user: x\n"), file("unready.ini", "slaves: one\n")
	if err := os.WriteFile(elsewhere, []byte("pgdata: /elsewhere\n"+slaves), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"PATH=" + dir}
	for _, tt := range []struct {
		own, text     string
		worst         severity
		says          string
		stores, ships bool
	}{
		{ours, "cmd_archiver -C " + ours + " -F %p", warning, "ok        archive_command: cmd_archiver", false, true},
		{ours, "cmd_archiver -C " + ours + " -F %p", warning, "is another binary than this one", false, true},
		{ours, "cmd_archiver -F %p -C " + ours, warning, "ok  ", false, true},
		{ours, "cmd_archiver -C " + other + " -F %p", warning, "it ships to one, three by " + other, false, true},
		{ours, "cmd_archiver -C " + off + " -F %p", warning, "archiving is switched off in its configuration", false, true},
		{archives, "cmd_archiver -C " + ours + " -F %p", warning, "it does not use file:///mine", false, true},
		{archives, "archive_command -C " + archives + " %p && cmd_archiver -C " + ours + " -F %p", warning, "ok  ", true, true},
		{ours, "archive_command -C " + archives + " %p", warning, "it uses file:///mine", true, false},
		{ours, "cmd_archiver -C " + ours + " -F %p || true", critical, "the server does not see pitr's exit status", false, false},
		{ours, "cmd_archiver -C " + ours, critical, "it ships nothing", false, false},
		{ours, "cmd_archiver -C " + ours + " -I", critical, "it ships nothing", false, false},
		{ours, "cmd_archiver -C " + ours + " -F %f", critical, "its arguments are %f, not %p", false, false},
		{ours, "cmd_archiver -C " + unready + " -F %p", critical, "l_archivedir is not set", false, false},
		{ours, "cmd_archiver -C " + elsewhere + " -F %p", critical, "the configuration is for pgdata /elsewhere", false, false},
		{ours, "cmd_archiver -C /nowhere.ini -F %p", critical, "/nowhere.ini", false, false},
	} {
		own, err := loadConfig(configSources{&settingFlags{ConfigFile: &tt.own}, environ, "", "/"})
		if err != nil {
			t.Fatal(err)
		}
		own.connections = new(connections)
		c := &checkup{}
		stores, ships := c.archiveCommand(tt.text, own, environ)
		if c.worst() != tt.worst || !strings.Contains(c.text(), tt.says) {
			t.Errorf("%s: want %s and %q, got:\n%s", tt.text, tt.worst, tt.says, c.text())
		}
		if (stores != nil) != tt.stores || (ships != nil) != tt.ships {
			t.Errorf("%s: got archives %v and slaves %v, want %v and %v", tt.text, stores != nil, ships != nil, tt.stores, tt.ships)
		}
		for _, cfg := range []*Config{stores, ships} {
			if cfg != nil && cfg.connections != own.connections {
				t.Errorf("%s: nobody closes its connections", tt.text)
			}
		}
	}
}
