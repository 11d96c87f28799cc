package multicall

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// configVariable names a configuration file.
	configVariable = "PITR_CONFIG"

	// configFileLimit is far beyond any configuration.
	configFileLimit = 1 << 20
)

// configFile is a configuration file that was read.
type configFile struct {
	path   string
	values map[string]value
	info   fs.FileInfo
	secret string // a key whose value must not be seen by others, or ""
}

// readConfigFile reads the file that flag, environment or default name.
func readConfigFile(from configSources) (configFile, []error) {
	path, explicit := from.file()
	if path == "" && explicit {
		return configFile{}, []error{errors.New("-C names no file: it is empty")}
	}
	data, info, err := readRegular(path)
	if errors.Is(err, fs.ErrNotExist) && !explicit {
		return configFile{}, nil
	}
	file := configFile{path: path, info: info}
	if err != nil {
		return file, []error{fmt.Errorf("configuration file: %w", err)}
	}
	entries, problems := readINI(data)
	problems = append(problems, file.take(entries)...)
	for i, err := range problems {
		problems[i] = fmt.Errorf("%s: %w", path, err)
	}
	return file, problems
}

// file is the configuration file, and whether somebody named it.
func (from configSources) file() (path string, explicit bool) {
	if from.flags.ConfigFile != nil {
		return *from.flags.ConfigFile, true
	}
	if path := getenv(from.environ, configVariable); path != "" {
		return path, true
	}
	return from.defaultFile, false
}

// readRegular reads a whole regular file. It is opened without blocking: a named
// pipe must not hang archive_command. What is told about the file is told about
// the one that was read.
func readRegular(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, configFileLimit+1))
	if err == nil && len(data) > configFileLimit {
		err = fmt.Errorf("%s is larger than %d bytes", path, configFileLimit)
	}
	return data, info, err
}

// take interpolates the entries and keeps those that are settings. Another key
// is an error unless some value names it as %(key)s.
func (f *configFile) take(entries []entry) []error {
	x := newExpander(entries)
	f.values = map[string]value{}
	var problems, unknown []error
	var keys []string
	for _, e := range entries {
		text, err := x.value(e.key)
		if err != nil {
			problems = append(problems, fmt.Errorf("line %d: %s: %w", e.line, e.key, err))
			continue
		}
		if holdsPassword(text) {
			f.secret = e.key
		}
		if isSetting(e.key) {
			f.values[e.key] = value{text, fmt.Sprintf("%s line %d", f.path, e.line)}
			continue
		}
		keys = append(keys, e.key)
		unknown = append(unknown, fmt.Errorf("line %d: unknown key %s", e.line, e.key))
	}
	for i, key := range keys {
		if !x.named[key] {
			problems = append(problems, hint(unknown[i], "%s", didYouMean(key, settingKeys())))
		}
	}
	return problems
}

// refusals are reasons not to believe the file, whatever it says.
func (f configFile) refusals(c Config, workDir string) []error {
	if f.info == nil {
		return nil
	}
	problems := f.writers(os.Geteuid(), os.Getegid())
	mode := f.info.Mode().Perm()
	if f.secret != "" && mode&0o044 != 0 {
		problems = append(problems, hint(fmt.Errorf("%s: %s holds a secret, and others may read the file", f.path, f.secret), "chmod 600 %s", f.path))
	}
	for _, dir := range append(dataDirectories(c.PGData, workDir), dataDirectoriesAbove(f.path)...) {
		if lies(f.path, dir) {
			problems = append(problems, hint(fmt.Errorf("%s lies in the data directory %s: a copy of the data directory must not inherit the right to write into the archive", f.path, dir), "move it to %s", defaultConfigFile))
			break
		}
	}
	return problems
}

// writers are those who can change the file and must not: it decides where the
// WAL goes and, in time, which programs run. Root may, and the user and the group
// that run this.
func (f configFile) writers(uid, gid int) []error {
	var problems []error
	remedy := fmt.Sprintf("chown root %s; chmod go-w %s", f.path, f.path)
	st, ok := f.info.Sys().(*syscall.Stat_t)
	mode := f.info.Mode().Perm()
	if ok && st.Uid != 0 && int(st.Uid) != uid && uid != 0 {
		problems = append(problems, hint(fmt.Errorf("%s belongs to another user, who may write it, and it decides where WAL goes", f.path), "%s", remedy))
	}
	if mode&0o002 != 0 {
		problems = append(problems, hint(fmt.Errorf("%s: everybody may write it, and it decides where WAL goes", f.path), "%s", remedy))
	}
	if ok && mode&0o020 != 0 && st.Gid != 0 && int(st.Gid) != gid && uid != 0 {
		problems = append(problems, hint(fmt.Errorf("%s: a group that is not yours may write it, and it decides where WAL goes", f.path), "%s", remedy))
	}
	if dir, err := os.Stat(filepath.Dir(f.path)); err == nil && dir.Mode().Perm()&0o002 != 0 && dir.Mode()&fs.ModeSticky == 0 {
		problems = append(problems, hint(fmt.Errorf("%s: everybody may exchange it, for its directory may be written by all", f.path), "chmod o-w %s", filepath.Dir(f.path)))
	}
	return problems
}

// dataDirectoriesAbove are the data directories that hold a file.
func dataDirectoriesAbove(path string) []string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil
	}
	var dirs []string
	for at := filepath.Dir(real); at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "global", "pg_control")); err == nil {
			dirs = append(dirs, at)
		}
	}
	return dirs
}

// dataDirectories are what counts as PGDATA: what is configured, and the
// working directory if it is one, as it is for what PostgreSQL starts.
func dataDirectories(pgdata, workDir string) []string {
	var dirs []string
	if pgdata != "" {
		dirs = append(dirs, pgdata)
	}
	if _, err := os.Stat(filepath.Join(workDir, "global", "pg_control")); err == nil {
		dirs = append(dirs, workDir)
	}
	return dirs
}

// lies tells whether the file that path leads to is dir, or below it.
// Directories are compared by what they are, not by their names: links and bind
// mounts give them many.
func lies(path, dir string) bool {
	inside, err := os.Stat(dir)
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	real, err = filepath.Abs(real)
	if err != nil {
		return false
	}
	for at := real; ; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && os.SameFile(info, inside) {
			return true
		}
		if at == filepath.Dir(at) {
			return false
		}
	}
}
