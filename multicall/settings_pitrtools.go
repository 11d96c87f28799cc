package multicall

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pitr/archive/remote"
)

// pitrtoolsSettings are the keys of pitrtools' cmd_archiver.ini that no other
// command has.
func pitrtoolsSettings() []setting {
	return []setting{
		{
			key: "slaves", help: "cmd_archiver: hosts to ship to, comma separated.",
			flag: func(f *settingFlags) *string { return f.Slaves },
			set:  func(c *Config, v string) (err error) { c.Slaves, err = parseSlaves(v); return err },
		},
		{
			key: "r_archivedir", help: "cmd_archiver: the archive's directory on each slave.",
			flag: func(f *settingFlags) *string { return f.RArchiveDir },
			set:  func(c *Config, v string) (err error) { c.RArchiveDir, err = parsePath(v); return err },
		},
		{
			key: "l_archivedir", help: "The queues' directory here, one folder a slave or queued archive.",
			flag: func(f *settingFlags) *string { return f.LArchiveDir },
			set:  func(c *Config, v string) (err error) { c.LArchiveDir, err = parsePath(v); return err },
		},
		{
			key: "user", help: "cmd_archiver: whom to log in as on the slaves.",
			flag: func(f *settingFlags) *string { return f.User },
			set:  setUser,
		},
		{
			key: "ssh", help: "cmd_archiver: /usr/bin/ssh and its flags -p, -i, -l, -o; the program is not used.",
			flag: func(f *settingFlags) *string { return f.SSH },
			set:  func(c *Config, v string) (err error) { c.SSHOptions, err = parseSSH(v); return err },
		},
		{
			key: "rsync_flags", help: "cmd_archiver: --bwlimit is heeded; nothing else of it is needed.",
			flag: func(f *settingFlags) *string { return f.RsyncFlags },
			set:  setRsyncFlags,
		},
		{
			key: "notify_ok", help: "A command to run when a slave or queued archive has everything again; it gets the message.",
			flag: func(f *settingFlags) *string { return f.NotifyOK },
			set:  func(c *Config, v string) (err error) { c.NotifyOK, err = parseNotify(v); return err },
		},
		{
			key: "notify_warning", help: "A command to run when a queue holds what was not taken.",
			flag: func(f *settingFlags) *string { return f.NotifyWarning },
			set:  func(c *Config, v string) (err error) { c.NotifyWarning, err = parseNotify(v); return err },
		},
		{
			key: "notify_critical", help: "A command to run when WAL is in danger.",
			flag: func(f *settingFlags) *string { return f.NotifyCritical },
			set:  func(c *Config, v string) (err error) { c.NotifyCritical, err = parseNotify(v); return err },
		},
		{
			key: "queue_wait", def: "20s", help: "How long a slave or queued archive that failed is not tried again.",
			flag: func(f *settingFlags) *string { return f.QueueWait },
			set:  func(c *Config, v string) (err error) { c.QueueWait, err = parseDuration(v); return err },
		},
		{
			key: "max_queue_workers", def: "4", help: "How many queues an agent empties at the same time.",
			flag: func(f *settingFlags) *string { return f.MaxQueueWorkers },
			set:  setMaxQueueWorkers,
		},
		{
			key: "ssh_debug", def: "off", help: "Tell every step of a connection.",
			flag: func(f *settingFlags) *string { return (*string)(f.SSHDebug) },
			set:  func(c *Config, v string) (err error) { c.SSHDebug, err = parseBool(v); return err },
		},
		unused("rsync_bin", func(f *settingFlags) *string { return f.RsyncBin }),
		unused("pgcontroldata", func(f *settingFlags) *string { return f.PGControlData }),
		unused("includepath", func(f *settingFlags) *string { return f.IncludePath }),
		{
			key: "rsync_version", help: "Of pitrtools; not needed any more.",
			flag: func(f *settingFlags) *string { return f.RsyncVersion },
			set: func(_ *Config, v string) error {
				if _, err := strconv.ParseFloat(v, 64); v != "" && err != nil {
					return fmt.Errorf("%q is not a number", v)
				}
				return nil
			},
		},
		{
			key: "queue_user", help: "Of pitrtools; not needed any more.",
			flag: func(f *settingFlags) *string { return f.QueueUser },
			set:  func(_ *Config, v string) error { return userName(v) },
		},
	}
}

// unused is a path of pitrtools' that nothing is done with.
func unused(key string, flag func(*settingFlags) *string) setting {
	return setting{
		key: key, help: "Of pitrtools; not needed any more.", flag: flag,
		set: func(_ *Config, v string) error { _, err := parsePath(v); return err },
	}
}

// unusedKeys are accepted because pitrtools' files have them.
var unusedKeys = []string{"rsync_bin", "rsync_version", "pgcontroldata", "includepath", "queue_user"}

// parsePath reads an absolute path, or nothing.
func parsePath(v string) (string, error) {
	switch {
	case v == "":
		return "", nil
	case strings.ContainsAny(v, "\x00\n\r"):
		return "", fmt.Errorf("%q is more than one line", v)
	case !filepath.IsAbs(v):
		return "", fmt.Errorf("%q is not an absolute path", v)
	case path.Clean(v) == "/":
		return "", fmt.Errorf("%q is the root of the file system", v)
	}
	return path.Clean(v), nil
}

// parseSlaves reads a comma list of hosts. A slave's name is also that of its
// queue's folder.
func parseSlaves(v string) ([]string, error) {
	if v == "" {
		return nil, nil
	}
	var slaves []string
	for item := range strings.SplitSeq(v, ",") {
		item = strings.TrimSpace(item)
		if err := hostName(item); err != nil {
			return nil, err
		}
		if slices.Contains(slaves, item) {
			return nil, fmt.Errorf("%q is there twice", item)
		}
		slaves = append(slaves, item)
	}
	return slaves, nil
}

// hostName accepts the name of a host, one of ~/.ssh/config, or an address:
// nothing that a program takes for an option or a path.
func hostName(s string) error {
	if s == "" {
		return errors.New("the list has an empty entry")
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return nil
	}
	_, rest := span(s, letters+"0123456789._-")
	if rest != "" || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") || len(s) > 253 {
		return fmt.Errorf("%q is not the name or address of a host", s)
	}
	return nil
}

func setUser(c *Config, v string) error {
	c.User = v
	return userName(v)
}

// userName accepts what a log-in name looks like, or nothing.
func userName(s string) error {
	_, rest := span(s, letters+"0123456789._-")
	if rest != "" || strings.HasPrefix(s, "-") || len(s) > 128 {
		return fmt.Errorf("%q is not the name of a user", s)
	}
	return nil
}

// parseSSH reads pitrtools' `ssh: /usr/bin/ssh FLAGS` as options of
// ssh_config(5), Key=Value. The program is not run.
func parseSSH(v string) ([]string, error) {
	words, err := parseWords(v)
	if err != nil || len(words) == 0 {
		return nil, err
	}
	if first := words[0]; !strings.HasPrefix(first, "-") {
		words = words[1:]
	}
	var options []string
	for len(words) > 0 {
		key, known := map[string]string{"-p": "Port", "-i": "IdentityFile", "-l": "User", "-o": ""}[words[0][:min(2, len(words[0]))]]
		value := words[0][min(2, len(words[0])):]
		words = words[1:]
		if known && value == "" && len(words) > 0 {
			value, words = words[0], words[1:]
		}
		if !known || value == "" {
			return nil, hint(fmt.Errorf("%q: of ssh's flags -p, -i, -l and -o are understood", v), "ssh_command = %s runs that program with any flags.", v)
		}
		if key != "" {
			value = key + "=" + value
		}
		if err := remote.CheckSSHOption(value); err != nil {
			return nil, err
		}
		options = append(options, value)
	}
	return options, nil
}

// setRsyncFlags heeds --bwlimit. That -z asks for compression cannot be granted:
// a slave's archive is raw, and SSH here does not compress.
func setRsyncFlags(c *Config, v string) error {
	words, err := parseWords(v)
	if err != nil {
		return err
	}
	for i, w := range words {
		limit, found := strings.CutPrefix(w, "--bwlimit=")
		if w == "--bwlimit" && i+1 < len(words) {
			limit, found = words[i+1], true
		}
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimRight(limit, "kK"), 10, 64)
		if err != nil || n < 0 || n > 1<<40 {
			return fmt.Errorf("%q: --bwlimit is a number of kB a second", v)
		}
		c.rsyncLimit = n << 10
	}
	c.RsyncFlags = words
	return nil
}

func setMaxQueueWorkers(c *Config, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 64 {
		return fmt.Errorf("%q is not a number from 1 to 64", v)
	}
	c.MaxQueueWorkers = n
	return nil
}
