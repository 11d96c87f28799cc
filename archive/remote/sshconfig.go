package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/kevinburke/ssh_config"

	"pitr/archive"
)

// sshConfig is what SSHOptions and ~/.ssh/config say. The first value wins.
type sshConfig struct {
	target  string              // the host that the options are for
	options map[string][]string // by lower-case key
	files   []*ssh_config.Config
}

// heeded are the keys that SSHOptions may have: those of ~/.ssh/config that
// matter, and those that say what pitr does anyway.
var heeded = []string{"HostName", "Port", "User", "IdentityFile", "UserKnownHostsFile", "ProxyJump"}

// anyway are options that change nothing here, with the values that may be.
var anyway = map[string]string{
	"batchmode": "yes", "passwordauthentication": "no", "kbdinteractiveauthentication": "no", "challengeresponseauthentication": "no",
	"stricthostkeychecking": "yes", "checkhostip": "", "serveraliveinterval": "", "serveralivecountmax": "", "tcpkeepalive": "",
	"loglevel": "", "forwardagent": "no", "forwardx11": "no", "requesttty": "no", "controlmaster": "no", "connectionattempts": "",
}

// CheckSSHOption tells whether Key=Value can be one of Options.SSHOptions.
func CheckSSHOption(option string) error {
	key, value, found := strings.Cut(option, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !found || key == "" || value == "" {
		return fmt.Errorf("%q is not Key=Value", option)
	}
	for _, h := range heeded {
		if strings.EqualFold(h, key) {
			return nil
		}
	}
	want, known := anyway[strings.ToLower(key)]
	switch {
	case known && (want == "" || strings.EqualFold(want, value)):
		return nil
	case strings.EqualFold(key, "StrictHostKeyChecking"):
		return archive.WithHint(fmt.Errorf("%s is not taken from here", option), "host_key_policy = strict or accept-new says so; a host whose key changed is never believed")
	case strings.EqualFold(key, "ConnectTimeout"):
		return archive.WithHint(fmt.Errorf("%s is not taken from here", option), "ssh_timeout says so")
	}
	return archive.WithHint(fmt.Errorf("%s is not understood", option), "understood are %s; ssh_command runs a program with any options", strings.Join(heeded, ", "))
}

// readSSHConfig reads ~/.ssh/config and /etc/ssh/ssh_config. What cannot be
// parsed is left out, with a warning.
func (o Options) readSSHConfig() (*sshConfig, error) {
	c := &sshConfig{target: o.Host, options: map[string][]string{}}
	for _, option := range o.SSHOptions {
		if err := CheckSSHOption(option); err != nil {
			return nil, err
		}
		key, value, _ := strings.Cut(option, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		c.options[key] = append(c.options[key], strings.TrimSpace(value))
	}
	for _, name := range []string{"~/.ssh/config", "/etc/ssh/ssh_config"} {
		path, err := o.expand(name)
		if err != nil {
			continue // who has no home has no configuration there
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			o.Log.Warn("ssh configuration cannot be read", "error", err)
			continue
		}
		if parsed := o.parseSSHConfig(path, text); parsed != nil {
			c.files = append(c.files, parsed)
		}
	}
	return c, nil
}

// parseSSHConfig parses a file, without the lines that cannot be parsed. A
// section whose head is one of them is left out whole: its lines are for
// somebody else.
func (o Options) parseSSHConfig(path string, text []byte) *ssh_config.Config {
	var kept bytes.Buffer
	skipping := false
	for i, line := range strings.Split(string(text), "\n") {
		word := strings.ToLower(firstWord(line))
		head := word == "host" || word == "match"
		if head {
			line = strings.ReplaceAll(line, `"`, "") // patterns have no blanks
		}
		err := understood(word, line)
		switch {
		case head:
			skipping = err != nil
		case skipping:
			continue
		}
		if err != nil {
			o.Log.Warn("ssh configuration: this line is not understood, and left out", "file", path, "line", i+1, "section", head, "error", err)
			continue
		}
		kept.WriteString(line + "\n")
	}
	parsed, err := ssh_config.DecodeBytes(kept.Bytes())
	if err != nil {
		o.Log.Warn("ssh configuration is not understood, and not used", "file", path, "error", err)
		return nil
	}
	return parsed
}

// understood tells whether a line means to the library what it means to ssh.
func understood(word, line string) error {
	if word == "match" {
		criteria := strings.Fields(strings.ToLower(line))[1:]
		if len(criteria) == 1 && criteria[0] == "all" {
			return nil
		}
		return errors.New("of Match only \"all\" is understood")
	}
	_, err := ssh_config.DecodeBytes([]byte(line + "\n"))
	return err
}

// unheeded are keys that would change where or how ssh connects.
var unheeded = []string{"HostKeyAlias", "CertificateFile", "BindAddress", "BindInterface", "AddressFamily", "GlobalKnownHostsFile", "IdentityAgent", "PKCS11Provider"}

// warnOfUnheeded names what a host's configuration has and pitr does not heed.
func (o Options) warnOfUnheeded(c *sshConfig, host string) error {
	for _, key := range unheeded {
		if value := c.fromFiles(host, key); len(value) > 0 {
			o.Log.Warn("ssh configuration: not heeded", "host", host, "key", key, "value", value[0])
		}
	}
	if value := c.fromFiles(host, "RevokedHostKeys"); len(value) > 0 && !strings.EqualFold(value[0], "none") {
		return archive.WithHint(fmt.Errorf("RevokedHostKeys of the ssh configuration is not understood"), "ssh_command = ssh heeds it")
	}
	return nil
}

func firstWord(line string) string {
	word, _, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "=", " "), " ")
	word, _, _ = strings.Cut(word, "\t")
	return word
}

// all are the values of a key for a host, the first one first. The options are
// about the host that was asked for, not about those on the way.
func (c *sshConfig) all(host, key string) []string {
	var values []string
	if host == c.target {
		values = append(values, c.options[strings.ToLower(key)]...)
	}
	return append(values, c.fromFiles(host, key)...)
}

func (c *sshConfig) fromFiles(host, key string) (values []string) {
	for _, f := range c.files {
		found, err := f.GetAll(host, key)
		if err != nil {
			continue // of a node that the library does not know itself
		}
		values = append(values, found...)
	}
	return values
}

// get is the value that counts, or "".
func (c *sshConfig) get(host, key string) string {
	if all := c.all(host, key); len(all) > 0 {
		return all[0]
	}
	return ""
}
