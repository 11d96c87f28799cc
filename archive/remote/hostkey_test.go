package remote

import (
	"bytes"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// writeHosts writes a known_hosts file and returns options that use it alone.
func writeHosts(t *testing.T, s *server, lines ...string) func(*Options) {
	t.Helper()
	path := filepath.Join(s.dir, "hosts")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *Options) { o.KnownHosts = []string{path} }
}

func (s *server) address() string { return s.listener.Addr().String() }

func TestHostKeyMustBeKnown(t *testing.T) {
	s := newServer(t, openSSH)
	wantRefused(t, reach(t, s.newFS(writeHosts(t, s))), ErrHostKey,
		"that of "+s.address()+" is not known: ssh-ed25519 SHA256:", "ssh-keyscan -p ", "accept-new")
	missing := func(o *Options) { o.KnownHosts = []string{filepath.Join(s.dir, "missing")} }
	wantRefused(t, reach(t, s.newFS(missing)), ErrHostKey, "is not known")
	if _, err := os.Stat(filepath.Join(s.dir, "missing")); err == nil {
		t.Error("a file with host keys was made")
	}
}

func TestChangedHostKeyIsRefusedByEveryPolicy(t *testing.T) {
	s := newServer(t, openSSH)
	other := writeHosts(t, s, knownhosts.Line([]string{s.address()}, newSigner(t, "").PublicKey()))
	for _, policy := range []HostKeyPolicy{Strict, AcceptNew} {
		err := reach(t, s.newFS(other, func(o *Options) { o.HostKeyPolicy = policy }))
		wantRefused(t, err, ErrHostKey, "another key than the one that is known", "ssh-keygen -R '"+knownhosts.Normalize(s.address())+"'")
	}
}

func TestNewHostKeyIsNoted(t *testing.T) {
	s := newServer(t, openSSH)
	path := filepath.Join(s.dir, "sub", "hosts")
	at := func(o *Options) { o.KnownHosts, o.HostKeyPolicy = []string{path}, AcceptNew }
	if err := reach(t, s.newFS(at)); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, s.newFS(at, func(o *Options) { o.HostKeyPolicy = Strict })); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := reach(t, s.newFS(func(o *Options) { o.KnownHosts, o.HostKeyPolicy = []string{"/proc/hosts"}, AcceptNew })); err == nil {
		t.Error("a key was believed that could not be noted")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, error %v, want mode 0600", info.Mode(), err)
	}
}

func TestKindsOfKnownHosts(t *testing.T) {
	s := newServer(t, openSSH)
	key, name := s.host.PublicKey(), knownhosts.Normalize(s.address())
	line := knownhosts.Line([]string{name}, key)
	var log bytes.Buffer
	logged := func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	for what, lines := range map[string][]string{
		"hashed":                 {knownhosts.Line([]string{knownhosts.HashHostname(name)}, key)},
		"wildcard":               {knownhosts.Line([]string{"127.0.0.*"}, key)},
		"after one of no use":    {"10.0.0.1 ssh-dss AAAAB3NzaC1kc3M=", line},
		"after a damaged one":    {"10.0.0.1 ssh-ed25519 !!!", "# comment", "", line},
		"beside one of other":    {knownhosts.Line([]string{"10.0.0.1"}, newSigner(t, "").PublicKey()), line},
		"without last line feed": {line},
	} {
		if err := reach(t, s.newFS(writeHosts(t, s, lines...), logged)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !strings.Contains(log.String(), "hosts line=1") {
		t.Errorf("got %s, want the damaged line named", log.String())
	}
	revoked := writeHosts(t, s, line, "@revoked * "+strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
	wantRefused(t, reach(t, s.newFS(revoked)), ErrHostKey, "revoked")
	damaged := writeHosts(t, s, line, "@revoked * ssh-ed25519 !!!")
	wantRefused(t, reach(t, s.newFS(damaged)), ErrHostKey, "line 2", "revokes")
}

func TestHostCertificate(t *testing.T) {
	s := newServer(t, openSSH)
	authority := newSigner(t, "")
	cert := &ssh.Certificate{
		Key: s.host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"},
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	with, err := ssh.NewCertSigner(cert, s.host)
	if err != nil {
		t.Fatal(err)
	}
	s.config.AddHostKey(with)
	believe := func(key ssh.PublicKey) func(*Options) {
		return writeHosts(t, s, "@cert-authority * "+strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))))
	}
	if err := reach(t, s.newFS(believe(authority.PublicKey()))); err != nil {
		t.Error(err)
	}
	wantRefused(t, reach(t, s.newFS(believe(newSigner(t, "").PublicKey()))), ErrHostKey)
}
