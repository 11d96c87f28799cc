package sshd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Program is sshd; it wants to be started by its whole path.
const Program = "/usr/sbin/sshd"

// What a server may have as its SFTP subsystem.
const (
	Internal = "internal-sftp"
	External = "/usr/lib/openssh/sftp-server" // a process of its own
	None     = "none"
)

// Config is what a server is like. Only Dir and Keys are needed.
type Config struct {
	Dir     string              // absolute; belongs to User
	User    *syscall.Credential // whom it runs as, and lets in; nil is this process's user
	Keys    Keys
	SFTP    string   // Internal if empty
	HostKey string   // instead of Keys.Host
	LetIn   string   // instead of Keys.Client
	Lines   []string // more settings; they win over the others
	Under   []string // a command that runs sshd, as strace does
}

// Server is an sshd. Only one goroutine may use it at a time.
type Server struct {
	config Config
	cmd    *exec.Cmd // nil while stopped

	Host       string // a loopback address
	Port       int
	User       string // to log in as
	Identity   string // the private key that is let in
	KnownHosts string // a file with the host's key
	ClientFile string // a configuration for ssh -F: all of the above, and no questions
}

// New writes a server's configuration, and does not start it.
func New(c Config) (*Server, error) {
	who, err := account(c.User)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: c, User: who,
		// All of 127.0.0.0/8 is this machine. So the port is free, is not one that
		// the system lends to clients, and stays the same after a restart.
		Host: fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254)), Port: 2222,
		Identity:   c.Keys.Client,
		KnownHosts: filepath.Join(c.Dir, "known_hosts"),
		ClientFile: filepath.Join(c.Dir, "ssh_config"),
	}
	for name, text := range map[string]string{"sshd_config": s.settings(), "ssh_config": s.client(), "known_hosts": "", "sshd.log": ""} {
		if err := s.write(name, text); err != nil {
			return nil, err
		}
	}
	return s, s.Know(s.Addr())
}

func (s *Server) write(name, text string) error {
	path := filepath.Join(s.config.Dir, name)
	return errors.Join(os.WriteFile(path, []byte(text), 0o600), give(path, s.config.User))
}

// Change starts a server anew with another configuration, at the same address
// and with the same client. It returns the one before.
func (s *Server) Change(how func(*Config)) (before Config, err error) {
	before = s.config
	if err := s.Stop(); err != nil {
		return before, err
	}
	how(&s.config)
	if err := s.write("sshd_config", s.settings()); err != nil {
		return before, err
	}
	return before, s.Start()
}

// account is the name of a user.
func account(c *syscall.Credential) (string, error) {
	uid := os.Getuid()
	if c != nil {
		uid = int(c.Uid)
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

func (s *Server) settings() string {
	host, letIn, sftp := s.config.Keys.Host, s.config.Keys.Client, Internal
	if s.config.HostKey != "" {
		host = s.config.HostKey
	}
	if s.config.LetIn != "" {
		letIn = s.config.LetIn
	}
	if s.config.SFTP != "" {
		sftp = s.config.SFTP
	}
	lines := append(s.config.Lines,
		"ListenAddress "+s.Addr(), "HostKey "+host, "AuthorizedKeysFile "+letIn+".pub", "PidFile none", "StrictModes no", "UsePAM no",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "DisableForwarding yes")
	if sftp != None {
		lines = append(lines, "Subsystem sftp "+sftp)
	}
	return strings.Join(lines, "\n") + "\n"
}

func (s *Server) client() string {
	return strings.Join([]string{
		"User " + s.User, "Port " + strconv.Itoa(s.Port), "IdentityFile " + s.Identity, "IdentitiesOnly yes",
		"UserKnownHostsFile " + s.KnownHosts, "GlobalKnownHostsFile none", "BatchMode yes",
	}, "\n") + "\n"
}

// Addr is host and port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// Know makes the host's key known for one more address, as that of a proxy in
// front of it. It is Keys.Host, also if the server shows another one.
func (s *Server) Know(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(s.config.Keys.Host + ".pub")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.KnownHosts, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "[%s]:%s %s", host, port, key)
	return errors.Join(err, f.Close())
}

// Log is what the server has said so far.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *Server) log() string { return filepath.Join(s.config.Dir, "sshd.log") }

// Start starts the server and waits until it listens.
func (s *Server) Start() error {
	said := len(s.Log())
	log, err := os.OpenFile(s.log(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(s.config.Under, Program, "-D", "-e", "-f", filepath.Join(s.config.Dir, "sshd_config"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.config.Dir, log, log
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.config.User, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	const patience, tick = 30 * time.Second, time.Millisecond
	for end := time.Now().Add(patience); !strings.Contains(s.Log()[said:], "Server listening"); time.Sleep(tick) {
		if ended := strings.Contains(s.Log()[said:], "Cannot bind"); ended || time.Now().After(end) {
			return errors.Join(fmt.Errorf("sshd does not listen: %s", s.Log()[said:]), s.Stop())
		}
	}
	return nil
}

// Stop ends the server and all its sessions, as a host that goes down does. A
// server that is stopped stays so.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGSTOP) // no session shall begin unseen
	sessions := s.Processes("")
	err := s.cmd.Process.Kill()
	for _, pid := range sessions {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
	return err
}

// PID is the server's process, or 0 while it is stopped. The CPU time of its
// sessions counts as that of its children.
func (s *Server) PID() int {
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// Processes are the server's sessions and all that runs in them, as far as
// their command line has this in it.
func (s *Server) Processes(commandLine string) (pids []int) {
	if s.cmd == nil {
		return nil
	}
	children := childrenOf()
	for todo := children[s.cmd.Process.Pid]; len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		todo = append(todo, children[pid]...)
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(line), commandLine) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// childrenOf maps every process to its children.
func childrenOf() map[int][]int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT; the name may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		pid, err1 := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	return children
}
