package remote

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"pitr/archive/files"
)

// HostKeyPolicy says what to make of a host whose key is not known. A key that
// differs from the known one is refused by each.
type HostKeyPolicy int

const (
	// Strict refuses it.
	Strict HostKeyPolicy = iota
	// AcceptNew believes it, and notes it in the first of the known_hosts files.
	AcceptNew
)

// Options say where an archive lies and how to get there.
type Options struct {
	Host string // a name, one of ~/.ssh/config, or an address
	Port int    // 0: what ~/.ssh/config says, or 22
	User string // "": what ~/.ssh/config says, or LocalUser
	Root string // absolute

	LocalUser string // who we are
	Home      string // where ~/ is; "" if that is not known
	// AgentSocket is where an ssh-agent listens, or "".
	AgentSocket string

	IdentityFiles []string // nil: IdentityFile of ~/.ssh/config, or the usual ones
	KnownHosts    []string // nil: UserKnownHostsFile of ~/.ssh/config, or the usual ones
	HostKeyPolicy HostKeyPolicy
	// SSHOptions are Key=Value of ssh_config(5). They win over ~/.ssh/config.
	SSHOptions []string
	// Command starts an external program instead of the built-in client, if it
	// is set. What the program says on its standard error goes to stderr.
	Command func(ctx context.Context, stderr io.Writer) (Pipe, error)

	Timeout     time.Duration // for connecting, and for a host's silence
	AllowNoSync bool          // also store where the far side cannot sync
	RateLimit   int64         // bytes a second, both ways together; 0 is none

	Log *slog.Logger // nil drops it
}

// Pipe is a running program that speaks SFTP on its standard input and output.
type Pipe struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	// End ends the program and waits for it, and for its standard error.
	End func() error
}

// FS is the tree below one directory of another host. Goroutines may share it.
type FS struct {
	opts    Options
	limiter *rate.Limiter // nil: no limit
	spare   spares

	mu     sync.Mutex // guards what follows
	live   *session   // nil: not connected
	closed bool
	// dialling is the attempt that is under way, or nil.
	dialling *attempt
}

var _ files.Far = (*FS)(nil)

// New returns the tree below opts.Root. Nothing is connected yet.
func New(opts Options) *FS {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	f := &FS{opts: opts}
	if opts.RateLimit > 0 {
		f.limiter = rate.NewLimiter(rate.Limit(opts.RateLimit), largestChunk)
	}
	return f
}

// path is the place of a name on the far side.
func (f *FS) path(name string) string {
	if name == "." {
		return f.opts.Root
	}
	return f.opts.Root + "/" + name
}

// expand replaces a leading ~/ by the home directory.
func (o Options) expand(path string) (string, error) {
	rest, inHome := strings.CutPrefix(path, "~/")
	switch {
	case !inHome:
		return path, nil
	case o.Home == "":
		return "", errors.New(path + ": the home directory of this user is not known")
	}
	return filepath.Join(o.Home, rest), nil
}
