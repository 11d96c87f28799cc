package multicall

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/remote"
)

// connections are the file systems on other hosts that a call has opened. They
// are closed at its end: a child that outlives us, ssh for one, would be adopted
// by PID 1, and where that is the postmaster its exit status brings the server
// down.
type connections struct {
	mu   sync.Mutex // guards open
	open []*remote.FS
}

func (c *connections) add(f *remote.FS) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, f)
}

// close closes all of them, and no error counts any more.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all sync.WaitGroup
	for _, f := range c.open {
		all.Go(func() { _ = f.Close() })
	}
	all.Wait()
}

// filesAt is the directory of a URL.
func (c Config) filesAt(u *url.URL, log *slog.Logger) files.FS {
	if u.Scheme == "sftp" {
		return c.remoteAt(u, log)
	}
	return local.New(u.Path)
}

// remoteAt is the directory of an sftp URL. Nothing is connected yet.
func (c Config) remoteAt(u *url.URL, log *slog.Logger) *remote.FS {
	f := remote.New(c.remoteOptions(u, log))
	c.connections.add(f)
	return f
}

func (c Config) remoteOptions(u *url.URL, log *slog.Logger) remote.Options {
	port, _ := strconv.Atoi(u.Port()) // checked; none is 0
	me, home := whoAmI(c.environ)
	o := remote.Options{
		Host: u.Hostname(), Port: port, User: u.User.Username(), Root: u.Path,
		LocalUser: me, Home: home, AgentSocket: getenv(c.environ, "SSH_AUTH_SOCK"),
		IdentityFiles: c.IdentityFiles, KnownHosts: c.KnownHosts, SSHOptions: c.SSHOptions,
		Timeout: c.SSHTimeout, AllowNoSync: c.AllowNoFsync, RateLimit: cmp.Or(c.RateLimit, c.rsyncLimit), Log: c.sshLog(log),
	}
	if c.HostKeyPolicy == "accept-new" {
		o.HostKeyPolicy = remote.AcceptNew
	}
	if len(c.SSHCommand) > 0 {
		o.Command = func(ctx context.Context) (remote.Pipe, error) { return c.startSSH(ctx, o) }
	}
	return o
}

// sshLog leaves out the steps of connections unless they are asked for.
func (c Config) sshLog(log *slog.Logger) *slog.Logger {
	if c.SSHDebug {
		return log
	}
	return slog.New(atLeast{log.Handler(), slog.LevelInfo})
}

// atLeast passes on what is important enough.
type atLeast struct {
	slog.Handler
	level slog.Level
}

// Enabled drops what is not.
func (h atLeast) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.level && h.Handler.Enabled(ctx, level)
}

// whoAmI is the name and the home directory of this user as ssh finds them: from
// the list of users, for PostgreSQL's environment may have nothing or, after
// sudo, somebody else's.
func whoAmI(environ []string) (name, home string) {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		return u.Username, u.HomeDir
	}
	return getenv(environ, "USER"), getenv(environ, "HOME")
}

// startSSH runs ssh_command for SFTP, without a shell.
func (c Config) startSSH(ctx context.Context, o remote.Options) (remote.Pipe, error) {
	words := append([]string{}, c.SSHCommand...)
	if filepath.Base(words[0]) == "ssh" {
		seconds := strconv.Itoa(max(1, int(o.Timeout/time.Second)))
		words = append(words, "-oBatchMode=yes", "-oConnectTimeout="+seconds, "-oServerAliveInterval="+seconds, "-oServerAliveCountMax=1")
	}
	if o.Port != 0 {
		words = append(words, "-p", strconv.Itoa(o.Port))
	}
	if o.User != "" {
		words = append(words, "-l", o.User)
	}
	words = append(words, "-s", o.Host, "sftp")
	cmd := exec.Command(words[0], words[1:]...)
	said := new(bytes.Buffer)
	cmd.Stderr = said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return remote.Pipe{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return remote.Pipe{}, err
	}
	if err := cmd.Start(); err != nil {
		return remote.Pipe{}, hint(fmt.Errorf("ssh_command: %w", err), "ssh_command is the program and its options, without the host")
	}
	return remote.Pipe{Stdin: stdin, Stdout: stdout, End: func() error { return endSSH(cmd, stdin, said) }}, nil
}

// endSSH closes the program's input, which ends it, or kills it a moment later.
// Its complaint is the error.
func endSSH(cmd *exec.Cmd, stdin interface{ Close() error }, said *bytes.Buffer) error {
	_ = stdin.Close() // it may have gone already
	late := time.AfterFunc(sshGrace, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Wait()
	if text := strings.Join(strings.Fields(said.String()), " "); text != "" {
		return errors.New(text)
	}
	return err
}

// sshGrace is how long an ssh_command has to end by itself.
const sshGrace = 300 * time.Millisecond
