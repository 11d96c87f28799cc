package multicall

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// setting is a key of the configuration: in the file under its name, in the
// environment as PITR_KEY, on the command line as --key with dashes.
type setting struct {
	key  string
	def  string
	help string
	// flag is what the command line gave, or nil.
	flag func(*settingFlags) *string
	// set checks a value and stores it. It is called for every key, with the
	// default if nothing else is there.
	set func(*Config, string) error
}

// settings is the table of all keys, in the order in which they are shown.
func settings() []setting {
	return slices.Concat(ownSettings(), sshSettings(), pitrtoolsSettings())
}

func ownSettings() []setting {
	return []setting{
		{
			key: "archive", help: "Archives, comma separated: file:///abs/dir, sftp://user@host:port/abs/dir.",
			flag: func(f *settingFlags) *string { return f.Archive },
			set:  func(c *Config, v string) (err error) { c.Archive, err = parseArchives(v); return err },
		},
		{
			key: "pgdata", help: "The cluster's data directory.",
			flag: func(f *settingFlags) *string { return f.PGData },
			set:  setPGData,
		},
		{
			key: "layout", help: "flat: also read a directory without archive.json. For init: tree or flat.",
			flag: func(f *settingFlags) *string { return f.Layout },
			set:  func(c *Config, v string) error { return oneOf(&c.Layout, v, "", "tree", "flat") },
		},
		{
			key: "compress_level", def: "1", help: "1 (fast) to 19 (small).",
			flag: func(f *settingFlags) *string { return f.CompressLevel },
			set:  setCompressLevel,
		},
		{
			key: "restore_from", help: "Those of the archives to restore from; all if empty.",
			flag: func(f *settingFlags) *string { return f.RestoreFrom },
			set:  func(c *Config, v string) (err error) { c.RestoreFrom, err = parseArchives(v); return err },
		},
		{
			key: "restore_retry", def: "10m", help: "How long restore_command tries again in recovery when in doubt; 0: once.",
			flag: func(f *settingFlags) *string { return f.RestoreRetry },
			set:  func(c *Config, v string) (err error) { c.RestoreRetry, err = parseDuration(v); return err },
		},
		{
			key: "restore_gap", def: "doubt", help: "What a missing segment with later ones is: doubt, or end (of WAL).",
			flag: func(f *settingFlags) *string { return f.RestoreGap },
			set:  func(c *Config, v string) error { return oneOf(&c.RestoreGap, v, "doubt", "end") },
		},
		{
			key: "push_timeout", def: "60s", help: "How long archive_command may take.",
			flag: func(f *settingFlags) *string { return f.PushTimeout },
			set:  setPushTimeout,
		},
		{
			key: "state", def: "online", help: "offline: archive_command refuses, and PostgreSQL keeps its WAL.",
			flag: func(f *settingFlags) *string { return f.State },
			set:  func(c *Config, v string) error { return oneOf(&c.State, v, "online", "offline") },
		},
		{
			key: "debug", def: "off", help: "Tell every step.",
			flag: func(f *settingFlags) *string { return (*string)(f.Debug) },
			set:  func(c *Config, v string) (err error) { c.Debug, err = parseBool(v); return err },
		},
	}
}

// settingFlags are the flags that every command has. A test holds them against
// the table.
type settingFlags struct {
	ConfigFile *string `name:"config" short:"C" placeholder:"FILE" help:"Configuration file; else $$PITR_CONFIG, else ${default_config}."`

	Archive       *string `group:"Settings" placeholder:"URL,..." help:"${help_archive}"`
	PGData        *string `group:"Settings" name:"pgdata" placeholder:"DIR" help:"${help_pgdata}"`
	Layout        *string `group:"Settings" placeholder:"WORD" help:"${help_layout}"`
	CompressLevel *string `group:"Settings" placeholder:"N" help:"${help_compress_level}"`
	RestoreFrom   *string `group:"Settings" placeholder:"URL,..." help:"${help_restore_from}"`
	RestoreRetry  *string `group:"Settings" placeholder:"TIME" help:"${help_restore_retry}"`
	RestoreGap    *string `group:"Settings" placeholder:"WORD" help:"${help_restore_gap}"`
	PushTimeout   *string `group:"Settings" placeholder:"TIME" help:"${help_push_timeout}"`
	State         *string `group:"Settings" placeholder:"WORD" help:"${help_state}"`
	Debug         *onOff  `group:"Settings" help:"${help_debug}"`

	IdentityFile   *string `group:"SSH" placeholder:"FILE,..." help:"${help_identity_file}"`
	KnownHosts     *string `group:"SSH" placeholder:"FILE,..." help:"${help_known_hosts}"`
	HostKeyPolicy  *string `group:"SSH" placeholder:"WORD" help:"${help_host_key_policy}"`
	SSHCommand     *string `group:"SSH" name:"ssh-command" placeholder:"CMD" help:"${help_ssh_command}"`
	SSHTimeout     *string `group:"SSH" name:"ssh-timeout" placeholder:"TIME" help:"${help_ssh_timeout}"`
	AllowNoFsync   *onOff  `group:"SSH" help:"${help_allow_no_fsync}"`
	RateLimit      *string `group:"SSH" placeholder:"SIZE" help:"${help_rate_limit}"`
	VerifyAfterPut *onOff  `group:"SSH" help:"${help_verify_after_put}"`

	// pitrtools' own; its users have them in a file.
	Slaves          *string `hidden:"" help:"${help_slaves}"`
	RArchiveDir     *string `hidden:"" name:"r-archivedir" help:"${help_r_archivedir}"`
	LArchiveDir     *string `hidden:"" name:"l-archivedir" help:"${help_l_archivedir}"`
	User            *string `hidden:"" help:"${help_user}"`
	SSH             *string `hidden:"" name:"ssh" help:"${help_ssh}"`
	RsyncFlags      *string `hidden:"" help:"${help_rsync_flags}"`
	NotifyOK        *string `hidden:"" name:"notify-ok" help:"${help_notify_ok}"`
	NotifyWarning   *string `hidden:"" help:"${help_notify_warning}"`
	NotifyCritical  *string `hidden:"" help:"${help_notify_critical}"`
	QueueWait       *string `hidden:"" help:"${help_queue_wait}"`
	MaxQueueWorkers *string `hidden:"" help:"${help_max_queue_workers}"`
	SSHDebug        *onOff  `hidden:"" name:"ssh-debug" help:"${help_ssh_debug}"`
	RsyncBin        *string `hidden:"" help:"${help_rsync_bin}"`
	PGControlData   *string `hidden:"" name:"pgcontroldata" help:"${help_pgcontroldata}"`
	IncludePath     *string `hidden:"" name:"includepath" help:"${help_includepath}"`
	RsyncVersion    *string `hidden:"" help:"${help_rsync_version}"`
	QueueUser       *string `hidden:"" help:"${help_queue_user}"`
}

// settingVars brings the table's texts into the flags' help.
func settingVars() kong.Vars {
	vars := kong.Vars{"default_config": defaultConfigFile}
	for _, s := range settings() {
		text := s.help
		if s.def != "" {
			text = fmt.Sprintf("%s Default: %s.", s.help, s.def)
		}
		vars["help_"+s.key] = text
	}
	return vars
}

// envName is the setting's name in the environment.
func (s setting) envName() string { return "PITR_" + strings.ToUpper(s.key) }

// flagName is the setting's name on the command line.
func (s setting) flagName() string { return "--" + strings.ReplaceAll(s.key, "_", "-") }

// settingKeys are the names of all settings.
func settingKeys() []string {
	var keys []string
	for _, s := range settings() {
		keys = append(keys, s.key)
	}
	return keys
}

// onOff is a flag that stands alone, for "on", or has one of the file's words,
// as in --debug=off.
type onOff string

// Decode is called by kong.
func (o *onOff) Decode(ctx *kong.DecodeContext) error {
	*o = "on"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		*o = onOff(ctx.Scan.Pop().String())
	}
	return nil
}

// IsBool tells kong that no value need follow.
func (o *onOff) IsBool() bool { return true }

func oneOf(to *string, v string, words ...string) error {
	for _, w := range words {
		if strings.EqualFold(v, w) {
			*to = w
			return nil
		}
	}
	var known []string
	for _, w := range words {
		if w != "" {
			known = append(known, w)
		}
	}
	return fmt.Errorf("%q is not one of: %s", v, strings.Join(known, ", "))
}

func setPGData(c *Config, v string) error {
	if v == "" {
		return nil
	}
	if !filepath.IsAbs(v) {
		return fmt.Errorf("%q is not an absolute path", v)
	}
	c.PGData = filepath.Clean(v)
	return nil
}

func setCompressLevel(c *Config, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 19 {
		return fmt.Errorf("%q is not a number from 1 to 19", v)
	}
	c.CompressLevel = n
	return nil
}

func setPushTimeout(c *Config, v string) (err error) {
	c.PushTimeout, err = parseDuration(v)
	if err == nil && c.PushTimeout <= 0 {
		return fmt.Errorf("%q leaves no time at all", v)
	}
	return err
}
