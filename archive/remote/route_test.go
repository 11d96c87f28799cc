package remote

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeConfig writes ~/.ssh/config and returns options that leave everything to
// it.
func writeConfig(t *testing.T, s *server, lines ...string) func(*Options) {
	t.Helper()
	dir := filepath.Join(s.dir, ".ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(o *Options) { o.Host, o.Port, o.User, o.IdentityFiles, o.KnownHosts = "archive", 0, "", nil, nil }
}

// complete is a section that says everything about a server.
func complete(s *server, host string) []string {
	return []string{
		"Host " + host, "  HostName 127.0.0.1", fmt.Sprintf("  Port %d", s.port()), "  User u", "  IdentityFile ~/id",
		"  UserKnownHostsFile " + filepath.Join(s.dir, "known_hosts"),
	}
}

func TestSSHConfigIsHeeded(t *testing.T) {
	s := newServer(t, openSSH)
	f := s.newFS(writeConfig(t, s, append([]string{"Host other", "  Port 1"}, complete(s, "arch*")...)...))
	if err := reach(t, f); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNotUnderstoodIsNamed(t *testing.T) {
	s := newServer(t, openSSH)
	lines := append([]string{`Match exec "true"`, "  Port 1", "Host x", "  Compression"}, complete(s, "archive")...)
	var log bytes.Buffer
	f := s.newFS(writeConfig(t, s, lines...), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	if err := reach(t, f); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "config line=1") {
		t.Errorf("got %s, want line 1 named", log.String())
	}
}

// What the library would understand otherwise than ssh is left out.
func TestMatchIsNotGuessed(t *testing.T) {
	s := newServer(t, openSSH)
	for _, head := range []string{`Match host archive exec "false"`, "Match host archive user root", "Match host archive"} {
		lines := append([]string{head, "  Port 1", "  HostName 192.0.2.1"}, complete(s, `"archive"`)...)
		if err := reach(t, s.newFS(writeConfig(t, s, lines...))); err != nil {
			t.Errorf("%s: %v", head, err)
		}
	}
	lines := append([]string{"Match all", "  User u"}, complete(s, "archive")...)
	if err := reach(t, s.newFS(writeConfig(t, s, lines...))); err != nil {
		t.Error(err)
	}
}

func TestKeysThatAreNotHeeded(t *testing.T) {
	s := newServer(t, openSSH)
	var log bytes.Buffer
	logged := func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	if err := reach(t, s.newFS(writeConfig(t, s, append(complete(s, "archive"), "  HostKeyAlias x", "  IdentityFile none")...), logged)); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "HostKeyAlias") {
		t.Errorf("got %s, want the key named", log.String())
	}
	err := reach(t, s.newFS(writeConfig(t, s, append(complete(s, "archive"), "  RevokedHostKeys /x")...)))
	wantRefused(t, err, ErrConnect, "RevokedHostKeys", "ssh_command")
}

func TestOptionsAreNotForJumpHosts(t *testing.T) {
	o := Options{Host: "db", LocalUser: "me", Timeout: 1, SSHOptions: []string{"HostName=10.0.0.5", "Port=2222", "User=backup", "ProxyJump=bastion"}, KnownHosts: []string{"/k"}, Log: slog.New(slog.DiscardHandler)}
	route, err := o.route()
	if err != nil || len(route) != 2 || route[0].String() != "me@bastion:22" || route[1].String() != "backup@10.0.0.5:2222 (db)" {
		t.Errorf("got %v, error %v", route, err)
	}
	o.Home, o.KnownHosts = "", []string{"~/hosts"}
	if _, err := o.route(); err == nil {
		t.Error("known_hosts in a home that is not known was left out")
	}
}

func TestOptionsWinOverSSHConfig(t *testing.T) {
	s := newServer(t, openSSH)
	wrong := []string{"Host archive", "  HostName 127.0.0.1", "  Port 1", "  User nobody", "  IdentityFile /none", "  UserKnownHostsFile /none"}
	with := writeConfig(t, s, wrong...)
	err := reach(t, s.newFS(with, func(o *Options) {
		o.SSHOptions = []string{fmt.Sprintf("port=%d", s.port()), "User=u", "IdentityFile=~/id", "UserKnownHostsFile=%d/known_hosts", "BatchMode=yes"}
	}))
	if err != nil {
		t.Error(err)
	}
	all := s.options()
	err = reach(t, s.newFS(with, func(o *Options) { *o = all; o.Host = "archive" }))
	if err != nil {
		t.Error(err)
	}
}

func TestSSHOptionsThatAreNotUnderstood(t *testing.T) {
	for option, text := range map[string]string{
		"Port":                     "not Key=Value",
		"=x":                       "not Key=Value",
		"ProxyCommand=rm -rf /":    "ssh_command",
		"LocalCommand=id":          "ssh_command",
		"StrictHostKeyChecking=no": "host_key_policy",
		"ConnectTimeout=5":         "ssh_timeout",
		"BatchMode=no":             "ssh_command",
	} {
		err := CheckSSHOption(option)
		if err == nil || !strings.Contains(err.Error()+hints(err), text) {
			t.Errorf("%s: got %v, want %q", option, err, text)
		}
	}
	for _, option := range []string{"Port=22", "batchmode=yes", "StrictHostKeyChecking=yes", "LogLevel=ERROR"} {
		if err := CheckSSHOption(option); err != nil {
			t.Errorf("%s: %v", option, err)
		}
	}
}

func TestProxyCommandIsRefused(t *testing.T) {
	s := newServer(t, openSSH)
	lines := append(complete(s, "archive"), "  ProxyCommand touch /tmp/never")
	wantRefused(t, reach(t, s.newFS(writeConfig(t, s, lines...))), ErrConnect, "ProxyCommand", "ssh_command")
}

func TestJumpHosts(t *testing.T) {
	s, first, second := newServer(t, openSSH), newServer(t, openSSH), newServer(t, openSSH)
	for _, jump := range []*server{first, second} {
		key, err := os.ReadFile(filepath.Join(jump.dir, "id"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, fmt.Sprintf("id-%d", jump.port())), key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := append(complete(s, "archive"), fmt.Sprintf("  ProxyJump one,u@127.0.0.1:%d", second.port()))
	lines = append(lines, complete(first, "one")...)
	lines = append(lines, "Host *", "  UserKnownHostsFile "+filepath.Join(second.dir, "known_hosts"), fmt.Sprintf("  IdentityFile ~/id-%d", second.port()), fmt.Sprintf("  IdentityFile ~/id-%d", first.port()))
	if err := reach(t, s.newFS(writeConfig(t, s, lines...))); err != nil {
		t.Fatal(err)
	}
	if a, b, c := first.jumps.Load(), second.jumps.Load(), s.jumps.Load(); a != 1 || b != 1 || c != 0 {
		t.Errorf("got %d, %d, %d jumps, want 1, 1, 0", a, b, c)
	}
	second.stop()
	wantRefused(t, reach(t, s.newFS(writeConfig(t, s, lines...))), ErrConnect, "through the jump host")
}
