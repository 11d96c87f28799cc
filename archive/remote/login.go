package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"pitr/archive"
)

// loginConfig is how to log in at a hop, and why that may fail.
type loginConfig struct {
	*ssh.ClientConfig
	hop     hop
	offered []string // methods that the server takes
	tried   []string // keys, for messages
	unused  []string // keys that could not be used, and why
}

// clientConfig is the configuration for one hop. step is told when the host's
// key has been checked.
func (o Options) clientConfig(ctx context.Context, h hop, step func(string)) (*loginConfig, error) {
	hosts, err := o.knownHosts(h)
	if err != nil {
		return nil, err
	}
	c := &loginConfig{hop: h}
	keys := ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return o.signers(ctx, c) })
	c.ClientConfig = &ssh.ClientConfig{
		User: h.user,
		Auth: []ssh.AuthMethod{keys},
		AuthCallback: func(so *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
			c.offered = so.AllowedMethods
			return nil, nil // the usual way
		},
		HostKeyAlgorithms: hosts.algorithms(h.address()),
		HostKeyCallback: c.sameKey(func(name string, at net.Addr, key ssh.PublicKey) error {
			err := hosts.check(name, at, key)
			if err == nil {
				step("log in")
			}
			return err
		}),
		ClientVersion: "SSH-2.0-pitr",
	}
	c.preferFast()
	return c, nil
}

// sameKey asks check for the first key of a connection. Later ones, when keys
// are exchanged anew, have to be the same. A panic in it would end the process.
func (c *loginConfig) sameKey(check ssh.HostKeyCallback) ssh.HostKeyCallback {
	var first []byte
	return func(name string, at net.Addr, key ssh.PublicKey) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: internal error: %v", ErrHostKey, p)
			}
		}()
		if first == nil {
			err := check(name, at, key)
			if err == nil {
				first = key.Marshal()
			}
			return err
		}
		if !bytes.Equal(first, key.Marshal()) {
			return fmt.Errorf("%w: %s shows another one in the same connection", ErrHostKey, name)
		}
		return nil
	}
}

// preferFast puts first what costs the least: curve25519 and AES with GCM, which
// processors have instructions for. What else the library takes for secure stays
// on offer.
func (c *loginConfig) preferFast() {
	all := ssh.SupportedAlgorithms()
	c.KeyExchanges = first(all.KeyExchanges, ssh.KeyExchangeCurve25519)
	c.Ciphers = first(all.Ciphers, ssh.CipherAES128GCM)
}

// first is the list with one of its elements moved to the front.
func first(list []string, one string) []string {
	moved := []string{one}
	for _, other := range list {
		if other != one {
			moved = append(moved, other)
		}
	}
	return moved
}

// because says why a log-in failed.
func (c *loginConfig) because(err error) error {
	text := err.Error()
	switch {
	case errors.Is(err, ErrHostKey):
		return err
	case strings.Contains(text, "no common algorithm for host key"):
		return archive.WithHint(fmt.Errorf("%w: the host has none of the kind that is known of it: %w", ErrHostKey, err),
			"was the host set up anew, or does somebody stand between? If it is right, add its new key to known_hosts (ssh-keyscan)")
	case strings.Contains(strings.ToLower(text), "too many authentication failures"):
		return archive.WithHint(fmt.Errorf("%w as %s: too many keys were tried: %s", ErrLogin, c.hop.user, c.story()), "name the right one as identity_file: it is tried first")
	case !strings.Contains(text, "unable to authenticate") && !errors.Is(err, errNoKeys):
		return err
	}
	err = fmt.Errorf("%w as %s: %s", ErrLogin, c.hop.user, c.story())
	switch {
	case len(c.offered) > 0 && !slices.Contains(c.offered, "publickey"):
		return archive.WithHint(err, "that server wants a password, and nobody is asked here: allow PubkeyAuthentication in its sshd_config")
	case strings.Contains(strings.Join(c.unused, " "), errPassphrase.Error()):
		return archive.WithHint(err, "a key that needs a passphrase is used through an ssh-agent (SSH_AUTH_SOCK), or make one without for this purpose: nobody is asked here")
	case len(c.tried) == 0:
		return archive.WithHint(err, "make a key with ssh-keygen, name it as identity_file, and add its public half to ~/.ssh/authorized_keys of %s on that host", c.hop.user)
	}
	return archive.WithHint(err, "add the public half of a key to ~/.ssh/authorized_keys of %s on that host (ssh-copy-id); its log says why it refuses one", c.hop.user)
}

// story tells which keys were tried, which not, and what the server takes.
func (c *loginConfig) story() string {
	var said []string
	if len(c.tried) > 0 {
		said = append(said, "refused: "+strings.Join(c.tried, ", "))
	} else {
		said = append(said, "there is no key to try")
	}
	if len(c.unused) > 0 {
		said = append(said, "not tried: "+strings.Join(c.unused, "; "))
	}
	if len(c.offered) > 0 {
		said = append(said, "the server takes: "+strings.Join(c.offered, ", "))
	}
	return strings.Join(said, "; ")
}

// errPassphrase: a key cannot be used without asking somebody.
var errPassphrase = errors.New("it needs a passphrase")

// errNoKeys ends a log-in for which there is no key.
var errNoKeys = errors.New("no key")

// signers are the keys to try: those of the identity files, then all that an
// ssh-agent has.
func (o Options) signers(ctx context.Context, c *loginConfig) ([]ssh.Signer, error) {
	held, err := o.agentSigners(ctx)
	if err != nil {
		c.unused = append(c.unused, err.Error())
	}
	var all []ssh.Signer
	add := func(name string, signers ...ssh.Signer) {
		for _, s := range signers {
			if !hasKey(all, s) {
				all = append(all, s)
				c.tried = append(c.tried, fmt.Sprintf("%s (%s)", name, ssh.FingerprintSHA256(s.PublicKey())))
			}
		}
	}
	for _, path := range c.hop.identities {
		signers, err := identity(path, held)
		add(path, signers...) // the key itself may do, though its certificate does not
		switch {
		case err == nil:
		case !c.hop.chosen && errors.Is(err, fs.ErrNotExist):
		default:
			c.unused = append(c.unused, err.Error())
		}
	}
	if !c.hop.onlyIdentities {
		add("ssh-agent", held...)
	}
	if len(all) == 0 {
		return nil, errNoKeys
	}
	return all, nil
}

func hasKey(list []ssh.Signer, s ssh.Signer) bool {
	for _, have := range list {
		if string(have.PublicKey().Marshal()) == string(s.PublicKey().Marshal()) {
			return true
		}
	}
	return false
}

// agentSigners are the keys that the agent holds. Without an agent there are
// none.
func (o Options) agentSigners(ctx context.Context) ([]ssh.Signer, error) {
	if o.AgentSocket == "" {
		return nil, nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", o.AgentSocket)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	// It signs later, and is needed no longer than the log-in takes.
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	return signers, nil
}

// identity is the key of a file, with its certificate first if there is one. A
// key with a passphrase is the agent's, if it holds it.
func identity(path string, held []ssh.Signer) ([]ssh.Signer, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		signer, err = unlocked(path, locked, held)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	cert, err := certificate(path+"-cert.pub", signer)
	if err != nil {
		return []ssh.Signer{signer}, err
	}
	if cert != nil {
		return []ssh.Signer{cert, signer}, nil
	}
	return []ssh.Signer{signer}, nil
}

// readPrivate reads a private key. One of ours that others can read is not
// used, as ssh does it.
func readPrivate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || info.Size() > 1<<20:
		return nil, fmt.Errorf("%s is not a key", path)
	case ok && int(st.Uid) == os.Getuid() && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %04o; chmod 600)", path, info.Mode().Perm())
	}
	text := make([]byte, info.Size())
	if _, err := f.ReadAt(text, 0); err != nil {
		return nil, err
	}
	return text, nil
}

// unlocked is the agent's signer for a key that needs a passphrase.
func unlocked(path string, locked *ssh.PassphraseMissingError, held []ssh.Signer) (ssh.Signer, error) {
	key := locked.PublicKey
	if key == nil {
		text, err := os.ReadFile(path + ".pub")
		if err != nil {
			return nil, errPassphrase
		}
		if key, _, _, _, err = ssh.ParseAuthorizedKey(text); err != nil {
			return nil, errPassphrase
		}
	}
	for _, s := range held {
		if string(s.PublicKey().Marshal()) == string(key.Marshal()) {
			return s, nil
		}
	}
	return nil, errPassphrase
}

// certificate is the signer with the certificate of a file, or nil.
func certificate(path string, signer ssh.Signer) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s is not a certificate", path)
	}
	with, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return with, nil
}
