package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pitr/test/proxy"
	"pitr/test/sshd"
)

// sshServer is a real sshd that runs as the servers' user and lets it in.
type sshServer struct {
	*sshd.Server
	t testing.TB
}

// sshKeys are the same for all servers of a run.
var sshKeys = sync.OnceValues(func() (sshd.Keys, error) {
	dir, err := home.directory("keys")
	if err != nil {
		return sshd.Keys{}, err
	}
	return sshd.NewKeys(dir, home.user)
})

// newSSHD starts an sshd that ends with the test. Each variant changes what it
// is like.
func newSSHD(t testing.TB, variants ...func(*sshd.Config)) *sshServer {
	t.Helper()
	if _, err := os.Stat(sshd.Program); err != nil {
		t.Skip("OpenSSH is not installed: run test/setup")
	}
	keys, err := sshKeys()
	check(t, err)
	c := sshd.Config{Dir: newDirectory(t, "s"), User: home.user, Keys: keys}
	for _, change := range variants {
		change(&c)
	}
	s, err := sshd.New(c)
	check(t, err)
	server := &sshServer{s, t}
	t.Cleanup(func() {
		server.stop()
		if t.Failed() {
			t.Logf("log of the sshd in %s:\n%s", c.Dir, tail(s.Log(), 20))
		}
	})
	server.start()
	return server
}

func withoutSFTP(c *sshd.Config)     { c.SFTP = sshd.None }
func externalSFTP(c *sshd.Config)    { c.SFTP = sshd.External }
func withAnotherKey(c *sshd.Config)  { c.HostKey = c.Keys.Stranger }
func refusingOurKey(c *sshd.Config)  { c.LetIn = c.Keys.Stranger }
func allowingOldOnly(c *sshd.Config) { c.Lines = append(c.Lines, oldAlgorithms...) }

// oldAlgorithms are what a server of ten years ago has, and today's clients may
// still use.
var oldAlgorithms = []string{"Ciphers aes128-ctr,aes256-ctr", "MACs hmac-sha2-256", "KexAlgorithms diffie-hellman-group14-sha256,ecdh-sha2-nistp256"}

func (s *sshServer) start() { s.t.Helper(); check(s.t, s.Start()) }
func (s *sshServer) stop()  { s.t.Helper(); check(s.t, s.Stop()) }

// behind puts a proxy in front of the server that ends with the test.
func (s *sshServer) behind(plan proxy.Plan) *proxy.Proxy {
	s.t.Helper()
	p, err := proxy.Listen(s.Addr(), plan)
	check(s.t, err)
	s.t.Cleanup(func() { check(s.t, p.Close()) })
	check(s.t, s.Know(p.Addr()))
	return p
}

// client is ssh, sftp or scp of OpenSSH, which knows the server.
func (s *sshServer) client(program string, args ...string) *exec.Cmd {
	return home.command(program, append([]string{"-F", s.ClientFile}, args...)...)
}

// sftp runs a script of OpenSSH's sftp at an address: its options come first.
func (s *sshServer) sftp(script string, options ...string) result {
	cmd := s.client("sftp", append(append([]string{"-q", "-b", "-"}, options...), s.Host)...)
	cmd.Stdin = strings.NewReader(script)
	return run(cmd)
}

func TestSSHDServesFiles(t *testing.T) {
	t.Parallel()
	for name, variant := range map[string]func(*sshd.Config){
		"as it comes": func(*sshd.Config) {}, "external sftp-server": externalSFTP, "old algorithms": allowingOldOnly,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			s := newSSHD(t, variant)
			t.Logf("started within %s", time.Since(began))
			from, to := filepath.Join(newDirectory(t, "f"), "from"), filepath.Join(newDirectory(t, "f"), "to")
			writeFile(t, from, "some text")
			if r := s.sftp("put " + from + " " + to); r.status != 0 {
				t.Fatal(r)
			}
			if got := string(readFile(t, to)); got != "some text" {
				t.Errorf("got %q", got)
			}
			info, err := os.Stat(to)
			check(t, err)
			if owner := info.Sys().(*syscall.Stat_t).Uid; home.user != nil && owner != home.user.Uid {
				t.Errorf("the file belongs to %d, not to %d who runs the server", owner, home.user.Uid)
			}
		})
	}
}

func TestSSHDRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		variant func(*sshd.Config)
		says    string
	}{
		"no sftp":         {withoutSFTP, "subsystem request failed"},
		"another host":    {withAnotherKey, "Host key verification failed"},
		"key not allowed": {refusingOurKey, "Permission denied (publickey)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSSHD(t, tt.variant)
			cmd := s.client("sftp", "-b", "-", s.Host)
			cmd.Stdin = strings.NewReader("pwd")
			if r := run(cmd); r.status == 0 || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("want %q: %s", tt.says, r)
			}
		})
	}
}

func TestSSHDStopsAndStarts(t *testing.T) {
	t.Parallel()
	s := newSSHD(t)
	long := s.client("ssh", s.Host, "echo here; sleep 100")
	out, err := long.StdoutPipe()
	check(t, err)
	check(t, long.Start())
	_, err = out.Read(make([]byte, 5))
	check(t, err)
	s.stop()
	if err := long.Wait(); err == nil {
		t.Error("a session outlived the server and ended well")
	}
	if r := s.sftp("pwd"); r.status == 0 {
		t.Errorf("it is stopped and answers: %s", r)
	}
	s.start()
	if r := s.sftp("pwd"); r.status != 0 {
		t.Errorf("after a restart: %s", r)
	}
}

// TestSSHDCanHang: the process behind the subsystem is stopped, and goes on.
func TestSSHDCanHang(t *testing.T) {
	t.Parallel()
	s := newSSHD(t, externalSFTP)
	cmd := s.client("sftp", "-q", "-b", "-", s.Host)
	in, err := cmd.StdinPipe()
	check(t, err)
	check(t, cmd.Start())
	var servers []int
	eventually(t, "sftp-server runs", func() bool { servers = s.Processes("sftp-server"); return len(servers) > 0 })
	for _, pid := range servers {
		check(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	_, err = in.Write([]byte("pwd\n"))
	check(t, err)
	check(t, in.Close())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("it was answered by a process that is stopped: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	for _, pid := range servers {
		check(t, syscall.Kill(pid, syscall.SIGCONT))
	}
	check(t, <-ended)
}

func TestSSHDBehindProxy(t *testing.T) {
	t.Parallel()
	s := newSSHD(t)
	p := s.behind(proxy.Distance(20 * time.Millisecond))
	host, port, _ := strings.Cut(p.Addr(), ":")
	began := time.Now()
	if r := run(s.client("ssh", "-p", port, host, "true")); r.status != 0 {
		t.Fatal(r)
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("five round trips took %s", took)
	}
	p.Set(proxy.Plan{Up: proxy.Flow{After: 1500, Then: proxy.Cut}})
	if r := run(s.client("ssh", "-p", port, host, "true")); r.status != 255 {
		t.Errorf("a connection that was cut: %s", r)
	}
}
