package remote

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// openSSHServer is OpenSSH's own, run by a server of this process.
const openSSHServer = "/usr/lib/openssh/sftp-server"

// subsystem serves SFTP on a channel until it ends.
type subsystem func(ch ssh.Channel) error

// openSSH runs the genuine sftp-server.
func openSSH(ch ssh.Channel) error {
	cmd := exec.Command(openSSHServer)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(stdin, ch); _ = stdin.Close() }()
	return cmd.Wait()
}

// plain is the library's server, which cannot sync.
func plain(ch ssh.Channel) error {
	s, err := sftp.NewServer(ch)
	if err != nil {
		return err
	}
	return s.Serve()
}

// server is an SSH server of this process.
type server struct {
	t         *testing.T
	listener  net.Listener
	config    *ssh.ServerConfig
	serve     subsystem // nil: there is none
	host      ssh.Signer
	dir       string // keys, known_hosts, and the archive's parent
	mu        sync.Mutex
	conns     []net.Conn
	accepted  atomic.Int64
	asked     chan nothing // gets something for each request about a connection
	jumps     atomic.Int64 // direct-tcpip channels that were opened
	allowed   [][]byte
	connected sync.WaitGroup
}

// newServer starts a server that lets in whoever has the key that it makes.
func newServer(t *testing.T, serve subsystem) *server {
	t.Helper()
	if _, err := os.Stat(openSSHServer); err != nil {
		t.Fatalf("%v: run test/setup --unit", err)
	}
	s := &server{t: t, serve: serve, asked: make(chan nothing), dir: t.TempDir(), host: newSigner(t, "")}
	s.allow(newSigner(t, filepath.Join(s.dir, "id")).PublicKey())
	s.config = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, a := range s.allowed {
			if bytes.Equal(a, key.Marshal()) {
				return nil, nil
			}
		}
		return nil, errors.New("not this key")
	}}
	s.config.AddHostKey(s.host)
	s.listen()
	s.know(s.host.PublicKey())
	if err := os.Mkdir(s.root(), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) listen() {
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		s.t.Fatal(err)
	}
	l := s.listener
	s.connected.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.accepted.Add(1)
			s.mu.Unlock()
			s.connected.Go(func() { s.handle(c) })
		}
	})
}

func (s *server) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *server) root() string { return filepath.Join(s.dir, "root") }

// allow lets a key in.
func (s *server) allow(key ssh.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = append(s.allowed, key.Marshal())
}

// change changes how the server is from now on.
func (s *server) change(how func(*ssh.ServerConfig)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how(s.config)
}

// know writes known_hosts.
func (s *server) know(key ssh.PublicKey) {
	line := knownhosts.Line([]string{s.listener.Addr().String()}, key)
	if err := os.WriteFile(filepath.Join(s.dir, "known_hosts"), []byte(line+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// cut breaks every connection.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

func (s *server) stop() {
	_ = s.listener.Close()
	s.cut()
	s.connected.Wait()
}

func (s *server) handle(c net.Conn) {
	s.mu.Lock()
	config := *s.config
	s.mu.Unlock()
	conn, channels, requests, err := ssh.NewServerConn(c, &config)
	if err != nil {
		_ = c.Close()
		return
	}
	defer conn.Close()
	go func() {
		for r := range requests {
			select {
			case s.asked <- nothing{}:
			default:
			}
			_ = r.Reply(false, nil) // as OpenSSH answers a keepalive
		}
	}()
	for n := range channels {
		s.connected.Go(func() { s.channel(n) })
	}
}

func (s *server) channel(n ssh.NewChannel) {
	if n.ChannelType() == "direct-tcpip" {
		s.forward(n)
		return
	}
	ch, requests, err := n.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	for r := range requests {
		ok := r.Type == "subsystem" && string(r.Payload[4:]) == "sftp" && s.serve != nil
		_ = r.Reply(ok, nil)
		if ok {
			_ = s.serve(ch)
			return
		}
	}
}

// forward is what a jump host does.
func (s *server) forward(n ssh.NewChannel) {
	var to struct {
		Host       string
		Port       uint32
		From       string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(n.ExtraData(), &to); err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	c, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	s.jumps.Add(1)
	ch, requests, err := n.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	go func() { _, _ = io.Copy(c, ch); _ = c.Close() }()
	_, _ = io.Copy(ch, c)
	_ = ch.Close()
}

// options reach the server's root.
func (s *server) options() Options {
	return Options{
		Host: "127.0.0.1", Port: s.port(), User: "u", Root: s.root(), Home: s.dir,
		IdentityFiles: []string{filepath.Join(s.dir, "id")},
		KnownHosts:    []string{filepath.Join(s.dir, "known_hosts")},
		Timeout:       10 * time.Second,
	}
}

// newFS connects with options that change may change.
func (s *server) newFS(change ...func(*Options)) *FS {
	s.t.Helper()
	o := s.options()
	for _, c := range change {
		c(&o)
	}
	f := New(o)
	s.t.Cleanup(func() { _ = f.Close() })
	return f
}

// newSigner makes a key, and writes it to a file unless path is empty.
func newSigner(t *testing.T, path string) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if path != "" {
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return signer
}
