package multicall

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"sync"

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
	if m, ok := throughMount(u); ok {
		return local.New(m.dir)
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
		o.Command = func(ctx context.Context, stderr io.Writer) (remote.Pipe, error) { return c.startSSH(ctx, o, stderr) }
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
