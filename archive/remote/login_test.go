package remote

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// reach asks for the root, which is there.
func reach(t *testing.T, f *FS) error {
	_, err := f.Stat(t.Context(), ".")
	return err
}

// wantRefused wants a connection to fail so, with a hint that has a text.
func wantRefused(t *testing.T, err, class error, texts ...string) {
	t.Helper()
	if !errors.Is(err, ErrConnect) || !errors.Is(err, class) {
		t.Errorf("got %v, want %v: %v", err, ErrConnect, class)
		return
	}
	all := err.Error() + "\n" + hints(err)
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("got %s, want %q in it", all, text)
		}
	}
}

// hints are the advice in an error.
func hints(err error) string {
	var text string
	for err != nil {
		if h, ok := err.(interface{ Hint() string }); ok {
			text += h.Hint() + "\n"
		}
		switch e := err.(type) {
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				text += hints(inner)
			}
			return text
		default:
			err = errors.Unwrap(err)
		}
	}
	return text
}

// lockedKey writes a key that needs a passphrase.
func lockedKey(t *testing.T, path string) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

// serveAgent is an ssh-agent that holds keys.
func serveAgent(t *testing.T, dir string, keys ...any) string {
	t.Helper()
	ring := agent.NewKeyring()
	for _, k := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: k}); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go acceptAll(l, func(c net.Conn) { _ = agent.ServeAgent(ring, c); _ = c.Close() })
	return path
}

func TestLoginIsRefused(t *testing.T) {
	s := newServer(t, openSSH)
	other := filepath.Join(s.dir, "other")
	newSigner(t, other)
	locked := filepath.Join(s.dir, "locked")
	lockedKey(t, locked)
	open := filepath.Join(s.dir, "open")
	newSigner(t, open)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		keys  []string
		texts []string
	}{
		{"key that is not allowed", []string{other}, []string{"log in as u: refused: " + other + " (SHA256:", "the server takes: publickey", "ssh-copy-id"}},
		{"key with a passphrase", []string{locked}, []string{locked + ": it needs a passphrase", "ssh-agent", "nobody is asked"}},
		{"no such key", []string{"/nonexistent"}, []string{"/nonexistent: no such file"}},
		{"key that others can read", []string{open}, []string{"can be read by others", "chmod 600"}},
		{"no key", nil, []string{"there is no key to try", "ssh-keygen"}},
		{"no key file", []string{filepath.Join(s.dir, "known_hosts")}, []string{"known_hosts: ssh: no key found"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantRefused(t, reach(t, s.newFS(func(o *Options) { o.IdentityFiles = c.keys })), ErrLogin, c.texts...)
		})
	}
}

// A server that wants a password is told apart, and nobody is asked.
func TestPasswordIsNotAsked(t *testing.T) {
	s := newServer(t, openSSH)
	s.change(func(c *ssh.ServerConfig) {
		c.PublicKeyCallback = nil
		c.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
			t.Error("a password was sent")
			return nil, errors.New("no")
		}
	})
	wantRefused(t, reach(t, s.newFS()), ErrLogin, "the server takes: password", "nobody is asked")
}

func TestKeysOfTheAgent(t *testing.T) {
	s := newServer(t, openSSH)
	locked := filepath.Join(s.dir, "locked")
	key, signer := lockedKey(t, locked)
	s.allow(signer.PublicKey())
	socket := serveAgent(t, s.dir, &key)
	for name, files := range map[string][]string{"alone": {"/nonexistent"}, "for a key that needs a passphrase": {locked}} {
		if err := reach(t, s.newFS(func(o *Options) { o.IdentityFiles, o.AgentSocket = files, socket })); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := reach(t, s.newFS(func(o *Options) { o.IdentityFiles, o.AgentSocket = []string{locked}, "/nonexistent" }))
	wantRefused(t, err, ErrLogin, "ssh-agent: dial unix /nonexistent")
}

func TestSecondKeyIsTried(t *testing.T) {
	s := newServer(t, openSSH)
	other := filepath.Join(s.dir, "other")
	newSigner(t, other)
	err := reach(t, s.newFS(func(o *Options) { o.IdentityFiles = []string{other, "~/id"} }))
	if err != nil {
		t.Error(err)
	}
}

func TestCertificate(t *testing.T) {
	s := newServer(t, openSSH)
	authority := newSigner(t, "")
	path := filepath.Join(s.dir, "certified")
	signer := newSigner(t, path)
	cert := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"u"}, ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-cert.pub", ssh.MarshalAuthorizedKey(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	checker := &ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool {
		return string(key.Marshal()) == string(authority.PublicKey().Marshal())
	}}
	s.change(func(c *ssh.ServerConfig) { c.PublicKeyCallback = checker.Authenticate })
	if err := reach(t, s.newFS(func(o *Options) { o.IdentityFiles = []string{path} })); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path+"-cert.pub", ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, reach(t, s.newFS(func(o *Options) { o.IdentityFiles = []string{path} })), ErrLogin, "is not a certificate")
}
