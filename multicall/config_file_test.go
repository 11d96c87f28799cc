package multicall

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestConfigFileByFlagEnvironmentOrDefault(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"flag", "env", "default"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("pgdata: /"+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	from := configSources{flags: &settingFlags{}, defaultFile: filepath.Join(dir, "default"), workDir: dir}
	steps := []struct {
		want  string
		setup func()
	}{
		{"default", func() {}},
		{"default", func() { from.environ = []string{"PITR_CONFIG="} }},
		{"env", func() { from.environ = []string{"PITR_CONFIG=" + filepath.Join(dir, "env")} }},
		{"flag", func() { from.flags.ConfigFile = new(filepath.Join(dir, "flag")) }},
	}
	for _, step := range steps {
		step.setup()
		c, err := loadConfig(from)
		if err != nil || c.PGData != "/"+step.want || c.File != filepath.Join(dir, step.want) {
			t.Errorf("got %s from %s, %v, want %s", c.PGData, c.File, err, step.want)
		}
	}
}

func TestMissingConfigFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.ini")
	tests := []struct {
		name string
		from configSources
		want string
	}{
		{"default", configSources{flags: &settingFlags{}, defaultFile: missing}, ""},
		{"flag", configSources{flags: &settingFlags{ConfigFile: &missing}}, "no such file"},
		{"environment", configSources{flags: &settingFlags{}, environ: []string{"PITR_CONFIG=" + missing}}, "no such file"},
		{"directory", configSources{flags: &settingFlags{ConfigFile: new(t.TempDir())}}, "not a regular file"},
	}
	for _, tt := range tests {
		if _, err := loadConfig(tt.from); !fits(err, tt.want) || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestConfigFileThatIsNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := loadConfig(configSources{flags: &settingFlags{ConfigFile: &path}})
	if !fits(err, "not a regular file") {
		t.Errorf("pipe: got %v", err)
	}
	_, err = loadConfig(sources(t, strings.Repeat("# comment\n", configFileLimit/8)))
	if !fits(err, "larger than") {
		t.Errorf("large file: got %v", err)
	}
}

func TestConfigFileModes(t *testing.T) {
	tests := []struct {
		mode os.FileMode
		text string
		want string
	}{
		{0o644, "state: online", ""},
		{0o664, "state: online", ""},
		{0o646, "state: online", "everybody may write it"},
		{0o666, "state: online", "chmod go-w"},
		{0o600, "archive: sftp://u:p@h/a", "has a password in it"},
		{0o640, "archive: sftp://u:p@h/a", "archive holds a secret"},
		{0o604, "archive: sftp://u:p@h/a", "chmod 600"},
		{0o644, "archive: file:///a/%(u)s\nu: x://y:z@h", "u holds a secret"},
	}
	for _, tt := range tests {
		from := sources(t, tt.text)
		if err := os.Chmod(from.defaultFile, tt.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := loadConfig(from); !fits(err, tt.want) {
			t.Errorf("%o, %q: got %v, want %q", tt.mode, tt.text, err, tt.want)
		}
	}
}

// Root, for whom the tests may run, is told nothing of other owners: root reads
// the file on behalf of others.
func TestConfigFileThatOthersCanChange(t *testing.T) {
	const owner, group = 1234, 5678
	tests := []struct {
		name     string
		mode     os.FileMode
		uid, gid int // of the file
		euid     int // of who reads it, with group
		dir      os.FileMode
		want     string // "" for none
	}{
		{"my own", 0o664, owner, group, owner, 0o755, ""},
		{"root's", 0o664, 0, 0, owner, 0o755, ""},
		{"somebody else's", 0o644, owner + 1, group, owner, 0o755, "belongs to another user"},
		{"somebody else's, read by root", 0o664, owner + 1, group + 1, 0, 0o755, ""},
		{"another group's to write", 0o664, owner, group + 1, owner, 0o755, "a group that is not yours"},
		{"another group's to read", 0o644, owner, group + 1, owner, 0o755, ""},
		{"everybody's to write", 0o606, owner, group, owner, 0o755, "everybody may write it"},
		{"in everybody's directory", 0o644, owner, group, owner, 0o777, "everybody may exchange it"},
		{"in everybody's directory, sticky", 0o644, owner, group, owner, 0o777 | os.ModeSticky, ""},
		{"in a group's directory", 0o644, owner, group, owner, 0o775, ""},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "dir", "pitr.ini")
		for _, err := range []error{
			os.Mkdir(filepath.Dir(path), 0o700), os.Chmod(filepath.Dir(path), tt.dir),
			os.WriteFile(path, nil, 0o600), os.Chmod(path, tt.mode),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		st.Uid, st.Gid = uint32(tt.uid), uint32(tt.gid)
		problems := configFile{path: path, info: info}.writers(tt.euid, group)
		if err := errors.Join(problems...); !fits(err, tt.want) || len(problems) > 1 {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// cluster makes something that looks like a data directory.
func dataDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "global"), 0o700),
		os.Mkdir(filepath.Join(dir, "conf.d"), 0o700),
		os.WriteFile(filepath.Join(dir, "global", "pg_control"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "pitr.ini"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "conf.d", "pitr.ini"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestConfigFileInTheDataDirectory(t *testing.T) {
	data, elsewhere := dataDir(t), t.TempDir()
	outside := filepath.Join(elsewhere, "outside.ini")
	inside := filepath.Join(elsewhere, "inside.ini")
	link := filepath.Join(elsewhere, "link-to-data")
	for _, err := range []error{
		os.WriteFile(outside, nil, 0o600),
		os.Symlink(filepath.Join(data, "pitr.ini"), inside),
		os.Symlink(data, link),
		os.Symlink(outside, filepath.Join(data, "leads-out.ini")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name    string
		file    string
		pgdata  string
		workDir string
		refused bool
	}{
		{"elsewhere", outside, data, data, false},
		{"in pgdata", filepath.Join(data, "pitr.ini"), data, elsewhere, true},
		{"below pgdata", filepath.Join(data, "conf.d", "pitr.ini"), data, elsewhere, true},
		{"in the working directory that is one", filepath.Join(data, "pitr.ini"), "", data, true},
		{"link into pgdata", inside, data, elsewhere, true},
		{"pgdata by another name", filepath.Join(data, "pitr.ini"), link, elsewhere, true},
		{"file by another name of pgdata", filepath.Join(link, "pitr.ini"), data, elsewhere, true},
		{"link out of pgdata", filepath.Join(data, "leads-out.ini"), data, data, false},
		{"in a working directory that is none", outside, "", elsewhere, false},
		{"pgdata is another one", filepath.Join(data, "pitr.ini"), dataDir(t), elsewhere, true},
		{"below a data directory that nobody named", filepath.Join(data, "conf.d", "pitr.ini"), "", elsewhere, true},
		{"link into one that nobody named", inside, "", elsewhere, true},
		{"by the link to one that nobody named", filepath.Join(link, "conf.d", "pitr.ini"), "", elsewhere, true},
		{"link out of one that nobody named", filepath.Join(data, "leads-out.ini"), "", elsewhere, false},
		{"pgdata is another one, the working directory is not", filepath.Join(data, "pitr.ini"), dataDir(t), data, true},
	}
	for _, tt := range tests {
		flags := &settingFlags{ConfigFile: &tt.file}
		if tt.pgdata != "" {
			flags.PGData = &tt.pgdata
		}
		_, err := loadConfig(configSources{flags: flags, workDir: tt.workDir})
		if refused := fits(err, "must not inherit the right to write into the archive"); err != nil && !refused || refused != tt.refused {
			t.Errorf("%s: got %v, want refused: %v", tt.name, err, tt.refused)
		}
	}
}

func TestConfigFileInTheDataDirectoryByItsRelativeName(t *testing.T) {
	data := dataDir(t)
	for dir, workDir := range map[string]string{data: ".", filepath.Join(data, "conf.d"): t.TempDir()} {
		t.Chdir(dir)
		_, err := loadConfig(configSources{flags: &settingFlags{ConfigFile: new("pitr.ini")}, workDir: workDir})
		if !fits(err, "must not inherit") {
			t.Errorf("from %s: got %v, want it refused", dir, err)
		}
	}
}
