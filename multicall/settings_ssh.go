package multicall

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// sshSettings are the keys of archives that are reached over SSH.
func sshSettings() []setting {
	return []setting{
		{
			key: "identity_file", help: "Private keys for SSH, comma separated; else those of ~/.ssh.",
			flag: func(f *settingFlags) *string { return f.IdentityFile },
			set:  func(c *Config, v string) (err error) { c.IdentityFiles, err = parsePaths(v); return err },
		},
		{
			key: "known_hosts", help: "Files with the host keys to believe, comma separated; else ssh's.",
			flag: func(f *settingFlags) *string { return f.KnownHosts },
			set:  func(c *Config, v string) (err error) { c.KnownHosts, err = parsePaths(v); return err },
		},
		{
			key: "host_key_policy", def: "strict", help: "strict: the host key must be known; accept-new: note that of a host never seen.",
			flag: func(f *settingFlags) *string { return f.HostKeyPolicy },
			set:  func(c *Config, v string) error { return oneOf(&c.HostKeyPolicy, v, "strict", "accept-new") },
		},
		{
			key: "ssh_command", help: "An external ssh and its options, instead of the one that is built in.",
			flag: func(f *settingFlags) *string { return f.SSHCommand },
			set:  func(c *Config, v string) (err error) { c.SSHCommand, err = parseWords(v); return err },
		},
		{
			key: "ssh_timeout", def: "10s", help: "How long connecting may take, and how long a host may be silent.",
			flag: func(f *settingFlags) *string { return f.SSHTimeout },
			set:  setSSHTimeout,
		},
		{
			key: "allow_no_fsync", def: "off", help: "Also store where the far side cannot sync.",
			flag: func(f *settingFlags) *string { return (*string)(f.AllowNoFsync) },
			set:  func(c *Config, v string) (err error) { c.AllowNoFsync, err = parseBool(v); return err },
		},
		{
			key: "rate_limit", def: "0", help: "Bytes a second to and from each archive over SSH; 0 is no limit.",
			flag: func(f *settingFlags) *string { return f.RateLimit },
			set:  setRateLimit,
		},
		{
			key: "verify_after_put", def: "off", help: "Read back and compare every file after storing it.",
			flag: func(f *settingFlags) *string { return (*string)(f.VerifyAfterPut) },
			set:  func(c *Config, v string) (err error) { c.VerifyAfterPut, err = parseBool(v); return err },
		},
	}
}

// parsePaths reads a comma list of absolute paths, or of paths in the home
// directory, which stay as they are: ~/.ssh/id_ed25519.
func parsePaths(v string) ([]string, error) {
	if v == "" {
		return nil, nil
	}
	var paths []string
	for item := range strings.SplitSeq(v, ",") {
		item = strings.TrimSpace(item)
		switch {
		case item == "":
			return nil, errors.New("the list has an empty entry")
		case strings.ContainsAny(item, "\x00\n\r"):
			return nil, fmt.Errorf("%q is more than one line", item)
		case !filepath.IsAbs(item) && !strings.HasPrefix(item, "~/"):
			return nil, fmt.Errorf("%q is not an absolute path", item)
		}
		paths = append(paths, item)
	}
	return paths, nil
}

func setSSHTimeout(c *Config, v string) (err error) {
	c.SSHTimeout, err = parseDuration(v)
	if err == nil && c.SSHTimeout <= 0 {
		return fmt.Errorf("%q leaves no time at all", v)
	}
	return err
}

func setRateLimit(c *Config, v string) (err error) {
	c.RateLimit, err = parseSize(v)
	const least = 1 << 10
	if err == nil && c.RateLimit > 0 && c.RateLimit < least {
		return hint(fmt.Errorf("%q is too little: a segment would take hours", v), "it is bytes a second: 500kB, 20MB; 0 is no limit.")
	}
	return err
}

// parseWords splits a command into its words as sh does, which it does not run.
func parseWords(v string) ([]string, error) {
	if v == "" {
		return nil, nil
	}
	words, ok := plainWords(v)
	switch {
	case !ok:
		return nil, hint(fmt.Errorf("%q needs a shell", v), "give the program and its options; quotes are understood, and nothing else of a shell. A script can do the rest.")
	case !filepath.IsAbs(words[0]) && strings.Contains(words[0], "/"):
		return nil, fmt.Errorf("%q is not an absolute path", words[0])
	case slices.Contains(words, ""):
		return nil, fmt.Errorf("%q has an empty word", v)
	}
	return words, nil
}
