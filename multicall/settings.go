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
	return slices.Concat(ownSettings(), sshSettings(), agentSettings(), pitrtoolsSettings())
}

func ownSettings() []setting {
	return []setting{
		{
			key: "archive", help: "Archives, comma separated: file:///abs/dir, sftp://user@host:port/abs/dir; each may be followed by required or queued.",
			flag: func(f *settingFlags) *string { return f.Archive },
			set:  setArchives,
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
	ConfigFile *string `name:"config" short:"C" placeholder:"FILE"`

	Archive       *string `group:"Settings" placeholder:"URL,..."`
	PGData        *string `group:"Settings" name:"pgdata" placeholder:"DIR"`
	Layout        *string `group:"Settings" placeholder:"WORD"`
	CompressLevel *string `group:"Settings" placeholder:"N"`
	RestoreFrom   *string `group:"Settings" placeholder:"URL,..."`
	RestoreRetry  *string `group:"Settings" placeholder:"TIME"`
	RestoreGap    *string `group:"Settings" placeholder:"WORD"`
	PushTimeout   *string `group:"Settings" placeholder:"TIME"`
	State         *string `group:"Settings" placeholder:"WORD"`
	Debug         *onOff  `group:"Settings"`

	IdentityFile   *string `group:"SSH" placeholder:"FILE,..."`
	KnownHosts     *string `group:"SSH" placeholder:"FILE,..."`
	HostKeyPolicy  *string `group:"SSH" placeholder:"WORD"`
	SSHCommand     *string `group:"SSH" name:"ssh-command" placeholder:"CMD"`
	SSHTimeout     *string `group:"SSH" name:"ssh-timeout" placeholder:"TIME"`
	AllowNoFsync   *onOff  `group:"SSH"`
	RateLimit      *string `group:"SSH" placeholder:"SIZE"`
	VerifyAfterPut *onOff  `group:"SSH"`

	Agent          *string `group:"Agent and queues" placeholder:"WORD"`
	AgentDir       *string `group:"Agent and queues" placeholder:"DIR"`
	Prefetch       *string `group:"Agent and queues" placeholder:"SIZE"`
	QueueMax       *string `group:"Agent and queues" placeholder:"SIZE"`
	QueueMinFree   *string `group:"Agent and queues" placeholder:"SIZE"`
	AllowLocalOnly *onOff  `group:"Agent and queues"`
	AlertAge       *string `group:"Agent and queues" placeholder:"TIME"`
	AlertBytes     *string `group:"Agent and queues" placeholder:"SIZE"`
	AlertInterval  *string `group:"Agent and queues" placeholder:"TIME"`
	MetricsFile    *string `group:"Agent and queues" placeholder:"FILE"`

	// pitrtools' own; its users have them in a file.
	Slaves          *string `hidden:""`
	RArchiveDir     *string `hidden:"" name:"r-archivedir"`
	LArchiveDir     *string `hidden:"" name:"l-archivedir"`
	User            *string `hidden:""`
	SSH             *string `hidden:"" name:"ssh"`
	RsyncFlags      *string `hidden:""`
	NotifyOK        *string `hidden:"" name:"notify-ok"`
	NotifyWarning   *string `hidden:""`
	NotifyCritical  *string `hidden:""`
	QueueWait       *string `hidden:""`
	MaxQueueWorkers *string `hidden:""`
	SSHDebug        *onOff  `hidden:"" name:"ssh-debug"`
	RsyncBin        *string `hidden:""`
	PGControlData   *string `hidden:"" name:"pgcontroldata"`
	IncludePath     *string `hidden:"" name:"includepath"`
	RsyncVersion    *string `hidden:""`
	QueueUser       *string `hidden:""`
}

// describe gives the flags of the settings the table's texts. Kong's own way, a
// variable for each, costs milliseconds at every call.
func describe(flags []*kong.Flag) {
	texts := map[string]string{"config": fmt.Sprintf("Configuration file; else $%s, else %s.", configVariable, defaultConfigFile)}
	for _, s := range settings() {
		text := s.help
		if s.def != "" {
			text = fmt.Sprintf("%s Default: %s.", s.help, s.def)
		}
		texts[strings.TrimPrefix(s.flagName(), "--")] = text
	}
	for _, f := range flags {
		if text, ok := texts[f.Name]; ok {
			f.Help = text
		}
	}
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
