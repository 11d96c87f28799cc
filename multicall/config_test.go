package multicall

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sources are a configuration file with that text and nothing else.
func sources(t *testing.T, text string) configSources {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pitr.ini")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return configSources{flags: &settingFlags{}, defaultFile: path, workDir: t.TempDir()}
}

// samples are two good and different values of every key, none the default.
func samples() map[string][2]string {
	return map[string][2]string{
		"archive":        {"file:///a", "file:///b,file:///a"},
		"pgdata":         {"/data/a", "/data/b"},
		"layout":         {"flat", "tree"},
		"compress_level": {"2", "19"},
		"restore_from":   {"file:///a", ""},
		"restore_retry":  {"5", "20m"},
		"restore_gap":    {"end", "doubt"},
		"push_timeout":   {"5", "2m"},
		"state":          {"offline", "online"},
		"debug":          {"on", "off"},

		"identity_file":    {"/k/a", "~/.ssh/a, /k/b"},
		"known_hosts":      {"/k/hosts", "~/.ssh/hosts"},
		"host_key_policy":  {"accept-new", "strict"},
		"ssh_command":      {"ssh -F none", "/usr/bin/ssh"},
		"ssh_timeout":      {"5", "1m"},
		"allow_no_fsync":   {"on", "off"},
		"rate_limit":       {"20MB", "500kB"},
		"verify_after_put": {"on", "off"},

		"agent":            {"external", "off"},
		"agent_dir":        {"/run/a", "/run/b"},
		"prefetch":         {"64MB", "0"},
		"queue_max":        {"16GB", "1TB"},
		"queue_min_free":   {"0", "1GB"},
		"allow_local_only": {"on", "off"},
		"alert_age":        {"0", "1h"},
		"alert_bytes":      {"1GB", "2GB"},
		"alert_interval":   {"0", "10m"},
		"metrics_file":     {"/a.prom", "/b.prom"},

		"slaves":            {"a", "b, 10.0.0.1"},
		"r_archivedir":      {"/a", "/b"},
		"l_archivedir":      {"/a", "/b"},
		"user":              {"a", "b"},
		"ssh":               {"/usr/bin/ssh", "ssh -p 22"},
		"rsync_flags":       {"-z", "--bwlimit=100"},
		"notify_ok":         {"echo OK", "true"},
		"notify_warning":    {"echo OK", "true | cat"},
		"notify_critical":   {"echo OK", "true"},
		"queue_wait":        {"5", "1m"},
		"max_queue_workers": {"2", "8"},
		"ssh_debug":         {"on", "off"},
		"rsync_bin":         {"/usr/bin/rsync", "/bin/rsync"},
		"pgcontroldata":     {"/usr/bin/pg_controldata", "/bin/x"},
		"includepath":       {"/a", "/b"},
		"rsync_version":     {"3", "2"},
		"queue_user":        {"a", "b"},
	}
}

// setFlag gives a flag through kong, as the command line does.
func setFlag(t *testing.T, arg string) *settingFlags {
	t.Helper()
	var cli struct{ settingFlags }
	c := &call{name: "x", args: []string{arg}, stdout: &output{w: t.Output()}, stderr: t.Output()}
	if _, err := c.parse(&cli, ""); err != nil {
		t.Fatal(err)
	}
	return &cli.settingFlags
}

func TestPrecedence(t *testing.T) {
	for _, s := range settings() {
		good, ok := samples()[s.key]
		if !ok {
			t.Errorf("%s has no samples", s.key)
			continue
		}
		if got := getOrigin(t, configSources{flags: &settingFlags{}}, s); got != (value{s.def, "default"}) {
			t.Errorf("%s, nothing: got %v, want the default", s.key, got)
		}
		from := sources(t, s.key+": "+good[0]+"\n")
		if got, want := getOrigin(t, from, s), (value{good[0], from.defaultFile + " line 1"}); got != want {
			t.Errorf("%s, file: got %v, want %v", s.key, got, want)
		}
		if good[1] != "" {
			from.environ = []string{s.envName() + "=" + good[1]}
			if got, want := getOrigin(t, from, s), (value{good[1], "environment " + s.envName()}); got != want {
				t.Errorf("%s, environment and file: got %v, want %v", s.key, got, want)
			}
		}
		from.flags = setFlag(t, s.flagName()+"="+good[0])
		if got, want := getOrigin(t, from, s), (value{good[0], "flag " + s.flagName()}); got != want {
			t.Errorf("%s, all: got %v, want %v", s.key, got, want)
		}
		from.environ = []string{s.envName() + "="}
		from.flags = &settingFlags{}
		if got, want := getOrigin(t, from, s), (value{good[0], from.defaultFile + " line 1"}); got != want {
			t.Errorf("%s, empty variable: got %v, want %v", s.key, got, want)
		}
	}
}

func getOrigin(t *testing.T, from configSources, s setting) value {
	t.Helper()
	c, err := loadConfig(from)
	if err != nil {
		t.Errorf("%s: %v", s.key, err)
	}
	return c.origins[s.key]
}

// The table has every flag of the struct, the struct every key of the table,
// and Config a field for each.
func TestSettingsTableAndFlagsAgree(t *testing.T) {
	c := &call{name: "x"}
	k, err := c.newKong(&struct{ settingFlags }{}, "")
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{}
	for _, f := range k.Model.Flags {
		flags["--"+f.Name] = f.Help
	}
	for _, s := range settings() {
		if help, ok := flags[s.flagName()]; !ok || !strings.HasPrefix(help, s.help) {
			t.Errorf("%s: got help %q, want %q", s.flagName(), help, s.help)
		}
		delete(flags, s.flagName())
	}
	delete(flags, "--help")
	delete(flags, "--config")
	if len(flags) > 0 {
		t.Errorf("got flags without a setting: %v", flags)
	}
	if got, want := reflect.TypeFor[settingFlags]().NumField()-1, len(settings()); got != want {
		t.Errorf("got %d fields, want %d", got, want)
	}
}

func TestConfigValues(t *testing.T) {
	c, err := loadConfig(sources(t, `[DEFAULT]
base: /srv
archive: file://%(base)s/a, file:///mnt/b%20c/
pgdata = /var/lib/postgresql/15/main/
layout: flat
compress_level: 3
restore_from: file:///mnt/b%20c
restore_retry: 0
restore_gap: end
push_timeout: 2m
state: offline
debug: Yes
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Archive) != 2 || c.Archive[0].String() != "file:///srv/a" || c.Archive[1].Path != "/mnt/b c" || len(c.RestoreFrom) != 1 {
		t.Errorf("got archives %v, %v", c.Archive, c.RestoreFrom)
	}
	got := []any{c.PGData, c.Layout, c.CompressLevel, c.RestoreRetry, c.RestoreGap, c.PushTimeout, c.State, c.Debug}
	want := []any{"/var/lib/postgresql/15/main", "flat", 3, time.Duration(0), "end", 2 * time.Minute, "offline", true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := loadConfig(configSources{flags: &settingFlags{}, defaultFile: "/nonexistent/pitr.ini"})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{len(c.Archive), c.PGData, c.Layout, c.CompressLevel, c.RestoreRetry, c.RestoreGap, c.PushTimeout, c.State, c.Debug, c.File}
	want := []any{0, "", "", 1, 10 * time.Minute, "doubt", time.Minute, "online", false, ""}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if err := c.NeedArchive(); !errors.Is(err, ErrConfig) {
		t.Errorf("NeedArchive: got %v, want ErrConfig", err)
	}
}

func TestConfigRefuses(t *testing.T) {
	tests := []struct {
		in   string
		want []string // in the error or in its hints
	}{
		{"archive: /srv/a", []string{`"/srv/a" is not a URL`, "write file:///srv/a"}},
		{"archive: /srv/a b", []string{"write file:///srv/a%20b"}},
		{"archive: srv", []string{`"srv" is not a URL`}},
		{"archive: s3://backup1/srv", []string{"this version knows file:// and sftp:// only"}},
		{"archive: sftp://u:geheim@backup1/srv", []string{"sftp://u:***@backup1/srv"}},
		{"archive: sftp://u:ge%heim@backup1/srv", []string{"sftp://u:***@backup1/srv"}},
		{"archive: file://srv/a", []string{"names a host", "three slashes"}},
		{"archive: file:srv", []string{"no absolute path"}},
		{"archive: file:///a?x=1", []string{"more than a path"}},
		{"archive: file:///a#b", []string{"more than a path", "%23"}},
		{"archive: file:///a#", []string{"more than a path"}},
		{"archive: file:///", []string{"root of the file system"}},
		{"archive: file:///a%00b", []string{"zero byte"}},
		{"archive: file:///a,,file:///b", []string{"empty entry"}},
		{"archive: file:///a,", []string{"empty entry"}},
		{"archive: file:///a,file:///b/../a/", []string{"twice"}},
		{"archive: file:///a\n  file:///b", []string{"more than one line", "commas"}},
		{`archive: "file:///a"`, []string{"not a URL", "quotes are part of a value"}},
		{"archive: file:///a\nrestore_from: file:///b", []string{"is none of the archives"}},
		{"archive: file:///a quued", []string{`"file:///a quued": what follows an archive is required or queued`, "%20"}},
		{"archive: file:///a b queued", []string{`"file:///a b"`}},
		{"archive: queued", []string{"not a URL"}},
		{"archive: file:///a, file:///b queued", []string{"l_archivedir is not set", "l_archivedir: /"}},
		{"archive: file:///b queued\nl_archivedir: /q", []string{"all of them are queued", "allow_local_only"}},
		{"archive: file:///a, sftp://h/b queued, sftp://u@h:23/b queued\nl_archivedir: /q", []string{"sftp://h/b and sftp://u@h:23/b would have one queue, h-"}},
		{"archive: file:///a, file:///b queued\nl_archivedir: /data/q\npgdata: /data", []string{"lie one in the other"}},
		{"agent: on", []string{"auto, external, off"}},
		{"agent_dir: run", []string{"not an absolute path"}},
		{"agent_dir: /" + strings.Repeat("x", 80), []string{"more than 80 bytes"}},
		{"queue_max: lots", []string{"not a size"}},
		{"pgdata: data", []string{"not an absolute path"}},
		{"layout: round", []string{`"round" is not one of: tree, flat`}},
		{"compress_level: 0", []string{"1 to 19"}},
		{"compress_level: 20", []string{"1 to 19"}},
		{"compress_level: fast", []string{"1 to 19"}},
		{"restore_retry: -1", []string{"negative"}},
		{"restore_retry: soon", []string{"not a duration", "90s, 10m"}},
		{"restore_retry:", []string{"empty"}},
		{"restore_gap: maybe", []string{"doubt, end"}},
		{"push_timeout: 0", []string{"no time at all"}},
		{"state: on", []string{"online, offline"}},
		{"debug: perhaps", []string{"neither on nor off"}},
		{"push_timout: 5", []string{"line 1: unknown key push_timout", `did you mean "push_timeout"?`}},
		{"xyz: /usr/bin/rsync", []string{"unknown key xyz", "known are: archive, pgdata"}},
		{"[server]\nwhat", []string{"line 1: unknown section", "line 2:"}},
	}
	for _, tt := range tests {
		_, err := loadConfig(sources(t, tt.in+"\n"))
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%q: got %v, want ErrConfig", tt.in, err)
			continue
		}
		for _, want := range tt.want {
			if !fits(err, want) {
				t.Errorf("%q: got %q, %q, want %q in it", tt.in, err, hintsOf(err), want)
			}
		}
		if fits(err, "geheim") || fits(err, "heim@") {
			t.Errorf("%q: the password is in %q", tt.in, err)
		}
	}
}

func TestConfigReportsEverythingAtOnce(t *testing.T) {
	from := sources(t, "archive: /a\nstate: gone\npush_timout: 5\n")
	from.environ = []string{"PITR_DEBUG=perhaps"}
	gap := "never"
	from.flags.RestoreGap = &gap
	_, err := loadConfig(from)
	var bad *ConfigError
	if !errors.As(err, &bad) || len(bad.Problems) != 5 {
		t.Errorf("got %v, want 5 problems", err)
	}
	for _, want := range []string{"unknown key", "archive (" + from.defaultFile + " line 1)", "state (", "debug (environment PITR_DEBUG)", "restore_gap (flag --restore-gap)"} {
		if !fits(err, want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// A key that some value names as %(key)s is a helper, and no mistake.
func TestConfigHelperKeys(t *testing.T) {
	_, err := loadConfig(sources(t, "base: /srv\narchive: file://%(base)s/a\nspare: x\n"))
	if !fits(err, "unknown key spare") || fits(err, "unknown key base") {
		t.Errorf("got %v, want spare and not base to be unknown", err)
	}
}

func TestConfigWarnsOfUnknownVariables(t *testing.T) {
	c, err := loadConfig(configSources{flags: &settingFlags{}, environ: []string{
		"PITR_ARCHIVES=file:///a", "PITR_CONFIG=", "PITR_STATE=online", "HOME=/root", "PITR_",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 2 || !strings.Contains(c.Warnings[0], `PITR_ARCHIVES is not used; did you mean "PITR_ARCHIVE"?`) {
		t.Errorf("got %q", c.Warnings)
	}
}

func TestConfigShownHasNoSecrets(t *testing.T) {
	from := sources(t, "archive: sftp://u:geheim@h/a,\n  sftp://v:geheim2@h/b\n")
	c, _ := loadConfig(from)
	text := fmt.Sprint(c.shown())
	if strings.Contains(text, "geheim") || !strings.Contains(text, "sftp://u:***@h/a, sftp://v:***@h/b") {
		t.Errorf("got %s", text)
	}
}

// A URL may land under any key: no message about it has its password.
func TestNoMessageHasAPassword(t *testing.T) {
	const url = "sftp://u:ge\"heim@h/a"
	for _, s := range settings() {
		_, err := loadConfig(sources(t, s.key+": "+url+"\n"))
		if err == nil || strings.Contains(err.Error()+strings.Join(hintsOf(err), ""), "heim") {
			t.Errorf("%s: got %v, want an error without the password", s.key, err)
		}
		if !strings.Contains(err.Error(), "sftp://u:***@h/a") {
			t.Errorf("%s: got %v, want the rest of the URL in it", s.key, err)
		}
	}
}

func TestDiscreetErrorIsStillTheSame(t *testing.T) {
	const url = "sftp://u:geheim@h"
	err := hint(fmt.Errorf("%w: cannot use %s, I mean %q", ErrUsage, url, url), "look")
	got := discreet(err, url)
	if want := "usage error: cannot use sftp://u:***@h, I mean \"sftp://u:***@h\""; got.Error() != want || !errors.Is(got, ErrUsage) || len(hintsOf(got)) != 1 {
		t.Errorf("got %v, want %s, with class and hint", got, want)
	}
	if got := discreet(err, "sftp://h"); got != err {
		t.Errorf("no password: got %v, want it as it was", got)
	}
}

func TestRedacted(t *testing.T) {
	for in, want := range map[string]string{
		"file:///a":             "file:///a",
		"sftp://u@h/a":          "sftp://u@h/a",
		"sftp://u:p@h/a":        "sftp://u:***@h/a",
		"sftp://:p@h":           "sftp://:***@h",
		"sftp://u:p/q@h/a":      "sftp://u:***@h/a",
		"sftp://u:p@q@h/a":      "sftp://u:***@h/a",
		"s://u:p@h,t://v:q@i/b": "s://u:***@h,t://v:***@i/b",
		"a:b@c":                 "a:b@c",
		"sftp://h:22/a@b":       "sftp://h:22/a@b",
		"sftp://u:22@h/a":       "sftp://u:***@h/a",
		"sftp://u:p,w@h/a":      "sftp://u:***@h/a",
	} {
		if got := redacted(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for in, want := range map[string]string{
		"archives": "archive", "push_timout": "push_timeout", "restore_retries": "restore_retry", "compresslevel": "compress_level",
		"wgpqk": "", "xyz": "", strings.Repeat("archive", 1000): "",
	} {
		if got := nearest(in, settingKeys()); got != want {
			t.Errorf("%.40s: got %q, want %q", in, got, want)
		}
	}
}
