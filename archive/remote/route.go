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
	if len(o.IdentityFiles) > 0 {
		target.identities, target.chosen = o.IdentityFiles, true
	}
	if len(o.KnownHosts) > 0 {
		target.knownHosts = o.KnownHosts
	}
	if proxy := config.get(o.Host, "ProxyCommand"); proxy != "" && !strings.EqualFold(proxy, "none") {
		return nil, withHint(fmt.Errorf("ProxyCommand of ~/.ssh/config is not understood"), "ProxyJump is; ssh_command = ssh runs ssh itself")
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
	h := hop{name: name, host: cmp.Or(config.get(name, "HostName"), name), port: port}
	h.host = strings.ReplaceAll(h.host, "%h", name)
	h.user = cmp.Or(user, config.get(name, "User"), o.LocalUser)
	if h.user == "" {
		return hop{}, withHint(errors.New("the user to log in as is not known"), "write sftp://USER@%s/...", name)
	}
	if text := config.get(name, "Port"); port == 0 && text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return hop{}, fmt.Errorf("the ssh configuration has no port that can be for %s: %q", name, text)
		}
		h.port = int(n)
	}
	h.port = cmp.Or(h.port, 22)
	h.identities = config.all(name, "IdentityFile")
	h.chosen = len(h.identities) > 0
	if !h.chosen {
		h.identities = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	h.knownHosts = strings.Fields(config.get(name, "UserKnownHostsFile"))
	if len(h.knownHosts) == 0 {
		h.knownHosts = []string{"~/.ssh/known_hosts", "~/.ssh/known_hosts2"}
	}
	h.knownHosts = append(h.knownHosts, "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
	return h, nil
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
		h, err := o.hopTo(config, strings.Trim(host, "[]"), user, port)
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
	tokens := strings.NewReplacer("%d", o.Home, "%h", h.host, "%n", h.name, "%r", h.user, "%u", o.LocalUser, "%p", strconv.Itoa(h.port), "%%", "%")
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
