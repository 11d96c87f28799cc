package remote

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"pitr/archive"
)

// hop is one host on the way, with what is needed to log in there.
type hop struct {
	name       string // as it was asked for
	host       string // as it is connected to, and as known_hosts has it
	port       int
	user       string
	identities []string // files
	chosen     bool     // somebody chose them: one that is missing is worth a word
	knownHosts []string // files
	// onlyIdentities: no other key of the agent (IdentitiesOnly).
	onlyIdentities bool
}

func (h hop) address() string { return net.JoinHostPort(h.host, strconv.Itoa(h.port)) }

// String is for messages.
func (h hop) String() string {
	if h.host == "" {
		return h.name
	}
	text := h.user + "@" + h.address()
	if h.host != h.name {
		text += " (" + h.name + ")"
	}
	return text
}

// mostJumps is how many hosts there may be before the last one.
const mostJumps = 8

// route is the way to the host, the last hop being itself.
func (o Options) route() ([]hop, error) {
	config, err := o.readSSHConfig()
	if err != nil {
		return nil, err
	}
	target, err := o.hopTo(config, o.Host, o.User, o.Port)
	if err != nil {
		return nil, err
	}
	jumps, err := o.jumps(config)
	if err != nil {
		return nil, err
	}
	all := append(jumps, target)
	for i := range all {
		if err := o.expandAll(&all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// hopTo completes what is known of a host from the configuration.
func (o Options) hopTo(config *sshConfig, name, user string, port int) (hop, error) {
	if err := o.warnOfUnheeded(config, name); err != nil {
		return hop{}, err
	}
	if proxy := config.get(name, "ProxyCommand"); proxy != "" && !strings.EqualFold(proxy, "none") {
		return hop{}, archive.WithHint(fmt.Errorf("ProxyCommand of the ssh configuration is not understood"), "ProxyJump is; ssh_command = ssh runs ssh itself")
	}
	h := hop{name: name, host: cmp.Or(config.get(name, "HostName"), name), port: port}
	h.host = strings.ReplaceAll(h.host, "%h", name)
	h.user = cmp.Or(user, config.get(name, "User"), o.LocalUser)
	if h.user == "" {
		return hop{}, archive.WithHint(errors.New("the user to log in as is not known"), "write sftp://USER@%s/...", name)
	}
	if text := config.get(name, "Port"); port == 0 && text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return hop{}, fmt.Errorf("the ssh configuration has no port that can be for %s: %q", name, text)
		}
		h.port = int(n)
	}
	h.port = cmp.Or(h.port, 22)
	o.keysOf(config, &h)
	return h, nil
}

// keysOf finds the files with the keys of a hop: what the settings say is for
// every hop, then what the configuration says, then what is usual.
func (o Options) keysOf(config *sshConfig, h *hop) {
	h.onlyIdentities = strings.EqualFold(config.get(h.name, "IdentitiesOnly"), "yes")
	h.identities, h.chosen = o.IdentityFiles, true
	if len(h.identities) == 0 {
		h.identities = config.all(h.name, "IdentityFile")
		h.chosen = len(h.identities) > 0
	}
	if !h.chosen {
		h.identities = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	h.identities = slices.DeleteFunc(slices.Clone(h.identities), func(path string) bool { return strings.EqualFold(path, "none") })
	h.knownHosts = o.KnownHosts
	if len(h.knownHosts) > 0 {
		return
	}
	h.knownHosts = paths(config.get(h.name, "UserKnownHostsFile"))
	if len(h.knownHosts) == 0 {
		h.knownHosts = []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2"}
	}
	h.knownHosts = append(h.knownHosts, "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
}

// paths splits a list of files at its blanks, but not within quotes.
func paths(text string) (all []string) {
	for i, part := range strings.Split(text, `"`) {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// jumps are the hosts of ProxyJump: user@host:port, comma separated.
func (o Options) jumps(config *sshConfig) ([]hop, error) {
	text := config.get(o.Host, "ProxyJump")
	if text == "" || strings.EqualFold(text, "none") {
		return nil, nil
	}
	var hops []hop
	for item := range strings.SplitSeq(text, ",") {
		user, host, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(item), "ssh://"), "@")
		if !found {
			user, host = "", user
		}
		port := 0
		if name, number, err := net.SplitHostPort(host); err == nil {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("ProxyJump %q has no port that can be", text)
			}
			host, port = name, int(n)
		}
		name := strings.Trim(host, "[]")
		h, err := o.hopTo(config, name, user, port)
		if via := config.get(name, "ProxyJump"); err == nil && name != o.Host && via != "" && !strings.EqualFold(via, "none") {
			err = archive.WithHint(fmt.Errorf("%s is itself behind a jump host", name), "name all of them, the first one first: ProxyJump %s,%s", via, name)
		}
		if err != nil {
			return nil, fmt.Errorf("ProxyJump: %w", err)
		}
		hops = append(hops, h)
	}
	if len(hops) > mostJumps {
		return nil, fmt.Errorf("ProxyJump has %d hosts, and at most %d can be", len(hops), mostJumps)
	}
	return hops, nil
}

// expandAll resolves the paths of a hop as ssh does: ~/ and the tokens that
// matter. What lies in a home directory that is not known is left out, unless
// somebody chose it.
func (o Options) expandAll(h *hop) error {
	tokens := strings.NewReplacer("${HOME}", o.Home, "%d", o.Home, "%h", h.host, "%n", h.name, "%r", h.user, "%u", o.LocalUser, "%p", strconv.Itoa(h.port), "%%", "%")
	expand := func(paths []string, chosen bool) ([]string, error) {
		var kept []string
		for _, p := range paths {
			path, err := o.expand(tokens.Replace(strings.Trim(p, `"`)))
			switch {
			case err == nil && !filepath.IsAbs(path):
				err = fmt.Errorf("%s is not an absolute path", p)
			case err == nil && !slices.Contains(kept, path):
				kept = append(kept, path)
			}
			if err != nil && chosen {
				return nil, err
			}
		}
		return kept, nil
	}
	var err1, err2 error
	h.identities, err1 = expand(h.identities, h.chosen)
	h.knownHosts, err2 = expand(h.knownHosts, len(o.KnownHosts) > 0)
	return errors.Join(err1, err2)
}
