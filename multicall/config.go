package multicall

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// defaultConfigFile is read if neither -C nor $PITR_CONFIG names another. That
// it is missing is no error: flags and environment can say everything.
const defaultConfigFile = "/etc/pitr/pitr.ini"

// Config is what is in force: the first of flag, environment, file and default
// that has a key decides it.
type Config struct {
	Archive       []*url.URL // file:// or sftp:// with an absolute, clean path
	Queued        []*url.URL // those of Archive for which the queue's copy is enough
	PGData        string     // absolute, or ""
	Layout        string     // "", "tree" or "flat"
	CompressLevel int        // 1 to 19
	RestoreFrom   []*url.URL // some of Archive; all of them if not set
	RestoreRetry  time.Duration
	RestoreGap    string // "doubt" or "end"
	PushTimeout   time.Duration
	State         string // "online" or "offline"
	Debug         bool

	// For archives over SSH.
	IdentityFiles  []string      // absolute, or ~/...
	KnownHosts     []string      // absolute, or ~/...
	HostKeyPolicy  string        // "strict" or "accept-new"
	SSHCommand     []string      // an external program and its options; nil is the built-in client
	SSHTimeout     time.Duration // > 0
	AllowNoFsync   bool
	RateLimit      int64 // bytes a second; 0 is none
	VerifyAfterPut bool

	// The agent, and the queues.
	Agent          string        // "auto", "external" or "off"
	AgentDir       string        // absolute, or "" for the default
	Prefetch       int64         // bytes; 0: nothing is read ahead
	QueueMax       int64         // bytes in each queue; 0 is any number
	QueueMinFree   int64         // bytes
	AllowLocalOnly bool          // all of Archive may be Queued
	AlertAge       time.Duration // 0 is none
	AlertBytes     int64         // 0 is none
	AlertInterval  time.Duration // 0 is never again
	MetricsFile    string        // absolute, or ""

	// pitrtools' cmd_archiver.ini.
	Slaves          []string // hosts
	RArchiveDir     string   // absolute, or ""
	LArchiveDir     string   // absolute, or ""
	User            string   // on the slaves; "" is whoever ssh would be
	SSHOptions      []string // Key=Value of ssh_config(5)
	RsyncFlags      []string
	NotifyOK        program
	NotifyWarning   program
	NotifyCritical  program
	QueueWait       time.Duration
	MaxQueueWorkers int
	SSHDebug        bool

	// File is the configuration file that was read, or "".
	File string
	// Warnings are what `pitr config check` tells and nobody else.
	Warnings []string

	// environ is the environment that it was loaded in.
	environ []string
	// connections are what its archives have opened; nil: nobody closes them.
	connections *connections

	origins    map[string]value
	rsyncLimit int64 // of --bwlimit, bytes a second; 0 is none
}

// value is a setting's text and where it came from.
type value struct {
	text string
	from string // "flag --key", "environment PITR_KEY", "FILE line 3", "default"
}

// fromDefault is where a value comes from that nobody has set.
const fromDefault = "default"

// Origin tells where the value of a key came from.
func (c Config) Origin(key string) string { return c.origins[key].from }

// NeedArchive is an error unless an archive is configured.
func (c Config) NeedArchive() error {
	if len(c.Archive) > 0 {
		return nil
	}
	if len(c.Slaves) > 0 {
		return &ConfigError{[]error{hint(errors.New("archive is not set"), "this configuration has slaves: cmd_archiver is the program for it")}}
	}
	return &ConfigError{[]error{noArchive()}}
}

func noArchive() error {
	return hint(fmt.Errorf("archive is not set"), "set it in %s, as PITR_ARCHIVE or as --archive: archive = file:///srv/archive", defaultConfigFile)
}

// ConfigError is everything that is wrong with a configuration. It matches
// ErrConfig.
type ConfigError struct{ Problems []error }

// Error has one line for each problem.
func (e *ConfigError) Error() string { return textOf(e.Problems) }

// Is makes it match ErrConfig.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// Unwrap gives the problems.
func (e *ConfigError) Unwrap() []error { return e.Problems }

// first is at most n problems, the last one with the number of the others.
func (e *ConfigError) first(n int) []error {
	if len(e.Problems) <= n {
		return e.Problems
	}
	more := hint(fmt.Errorf("the configuration has %d more problems", len(e.Problems)-n), "pitr config check shows all of them.")
	return append(slices.Clip(e.Problems[:n]), more)
}

// configSources are what a configuration is put together from.
type configSources struct {
	flags       *settingFlags
	environ     []string
	defaultFile string
	workDir     string
}

// loadConfig puts the configuration together. Its error is a *ConfigError with
// every problem; the Config then has what could be understood.
func loadConfig(from configSources) (Config, error) {
	c := Config{origins: map[string]value{}, environ: from.environ}
	file, problems := readConfigFile(from)
	c.File = file.path
	for _, s := range settings() {
		v := from.lookup(s, file)
		c.origins[s.key] = v
		if err := s.set(&c, v.text); err != nil {
			problems = append(problems, fmt.Errorf("%s (%s): %w", s.key, v.from, discreet(quoteHint(err, v.text), v.text)))
		}
	}
	problems = append(problems, c.contradictions()...)
	problems = append(problems, file.refusals(c, from.workDir)...)
	c.Warnings = unknownVariables(from.environ)
	if len(problems) > 0 {
		return c, &ConfigError{problems}
	}
	return c, nil
}

// lookup is the order of precedence.
func (from configSources) lookup(s setting, file configFile) value {
	if v := s.flag(from.flags); v != nil {
		return value{*v, "flag " + s.flagName()}
	}
	if v := getenv(from.environ, s.envName()); v != "" {
		return value{v, "environment " + s.envName()}
	}
	if v, ok := file.values[s.key]; ok {
		return v
	}
	return value{s.def, fromDefault}
}

// getenv is the value of a variable. An empty one counts as not set.
func getenv(environ []string, name string) string {
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// discreet is an error about a value without the passwords of its URLs.
func discreet(err error, text string) error {
	if !holdsPassword(text) {
		return err
	}
	safe := strings.ReplaceAll(err.Error(), strconv.Quote(text), strconv.Quote(redacted(text)))
	return retold{err, strings.ReplaceAll(safe, text, redacted(text))}
}

// quoteHint explains the most likely reason for an unusable quoted value.
func quoteHint(err error, text string) error {
	for _, q := range []string{`"`, `'`} {
		if len(text) > 1 && strings.HasPrefix(text, q) && strings.HasSuffix(text, q) {
			return hint(err, "quotes are part of a value here; leave them out.")
		}
	}
	return err
}

// contradictions are problems between keys.
func (c Config) contradictions() []error {
	var problems []error
	for _, u := range c.RestoreFrom {
		if len(c.Archive) > 0 && !names(c.Archive, u) {
			problems = append(problems, hint(fmt.Errorf("restore_from (%s): %q is none of the archives", c.Origin("restore_from"), u), "add it to archive, or choose one of: %s", c.origins["archive"].text))
		}
	}
	if len(c.SSHCommand) > 0 && !isSSH(c.SSHCommand[0]) {
		for _, key := range []string{"identity_file", "known_hosts", "host_key_policy", "ssh"} {
			if v := c.origins[key]; v.text != "" && v.from != fromDefault && !(key == "ssh" && len(c.SSHOptions) == 0) {
				problems = append(problems, hint(fmt.Errorf("%s (%s) is set, and ssh_command is not ssh", key, v.from), "say it in the options of ssh_command, and leave %s out.", key))
			}
		}
	}
	if len(c.Archive) > 0 && len(c.Slaves) > 0 {
		problems = append(problems, hint(fmt.Errorf("archive (%s) and slaves (%s) are both set", c.Origin("archive"), c.Origin("slaves")),
			"a configuration has archives, for archive_command, or slaves, for cmd_archiver: two files can have both."))
	}
	problems = append(problems, c.queueProblems()...)
	for _, u := range c.Archive {
		if u.Scheme != "file" {
			continue
		}
		// By their names only: to ask the disks could take for ever here.
		if c.PGData != "" && (below(u.Path, c.PGData) || below(c.PGData, u.Path)) {
			problems = append(problems, archiveInPGData(u, c.PGData))
		}
	}
	return problems
}

// below tells whether a path is dir or leads into it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func archiveInPGData(u *url.URL, pgdata string) error {
	return hint(fmt.Errorf("archive %s and the data directory %s lie one in the other", u, pgdata),
		"what takes the data takes the archive then, and every base backup would hold it: put it elsewhere, best on another disk")
}

// unknownVariables warns about environment variables that look like settings.
func unknownVariables(environ []string) []string {
	known := []string{configVariable}
	for _, s := range settings() {
		known = append(known, s.envName())
	}
	var warnings []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "PITR_") && !slices.Contains(known, name) {
			warnings = append(warnings, fmt.Sprintf("environment variable %s is not used; %s", name, didYouMean(name, known)))
		}
	}
	return warnings
}

func isSetting(key string) bool { return slices.Contains(settingKeys(), key) }
