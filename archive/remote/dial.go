package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"pitr/archive"
)

// The largest content of a packet: what OpenSSH takes since 8.5 (limits@openssh.com
// in its PROTOCOL), and what every server has to.
const (
	largestChunk = 255 << 10
	safeChunk    = 32 << 10
)

// dialling is a connection in the making.
type dialling struct {
	f       *FS
	links   *links
	steps   []Step
	current string // what is being done, for the message if it fails
	started time.Time
	hop     hop // where to
}

// step ends the step before and begins the next one.
func (d *dialling) step(name string) {
	now := time.Now()
	if d.current != "" {
		d.steps = append(d.steps, Step{d.current, now.Sub(d.started)})
		d.f.opts.Log.Debug("ssh", "host", d.hop.name, "step", d.current, "took", now.Sub(d.started).Round(100*time.Microsecond))
	}
	d.current, d.started = name, now
}

// dial connects within the timeout.
func (f *FS) dial(ctx context.Context) (*session, error) {
	over := fmt.Errorf("no answer within ssh_timeout (%s)", f.opts.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, f.opts.Timeout, over)
	defer cancel()
	d := &dialling{f: f, links: &links{}, hop: hop{name: f.opts.Host}}
	s, err := d.run(ctx)
	if err == nil {
		return s, nil
	}
	silent := ctx.Err() != nil
	said := d.links.close()
	if silent {
		err = context.Cause(ctx)
		if said != nil && d.f.opts.Command != nil {
			err = fmt.Errorf("%w; %w", err, said)
		}
	}
	if silent && d.current == "key exchange" {
		err = archive.WithHint(err, "something accepts connections there and says nothing: is it sshd, and is the host overloaded?")
	}
	return nil, d.explain(err)
}

func (d *dialling) run(ctx context.Context) (*session, error) {
	// Whatever hangs ends when its connection is closed.
	stop := context.AfterFunc(ctx, func() { _ = d.links.close() })
	defer stop()
	s, err := d.open(ctx)
	if err != nil {
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return s, nil
}

func (d *dialling) open(ctx context.Context) (*session, error) {
	if d.f.opts.Command != nil {
		return d.openCommand(ctx)
	}
	route, err := d.f.opts.route()
	if err != nil {
		return nil, err
	}
	var client *ssh.Client
	var last *quickConn
	for _, d.hop = range route {
		if client, last, err = d.login(ctx, client); err != nil {
			return nil, err
		}
	}
	s, err := d.openChannel(client)
	if err != nil {
		return nil, err
	}
	ask := func() { _, _, _ = client.SendRequest("keepalive@openssh.com", true, nil) } // any answer is a sign of life
	go last.keepAlive(ask, d.links.fail, d.f.opts.Timeout, s.lost)
	return s, nil
}

// login makes one hop, from here or from the host before.
func (d *dialling) login(ctx context.Context, via *ssh.Client) (*ssh.Client, *quickConn, error) {
	config, err := d.f.opts.clientConfig(ctx, d.hop, d.step)
	if err != nil {
		return nil, nil, err
	}
	raw, err := d.connect(ctx, via)
	if err != nil {
		return nil, nil, err
	}
	d.links.add(raw.Close)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	conn := newQuickConn(raw)
	d.step("key exchange")
	c, channels, requests, err := ssh.NewClientConn(conn, d.hop.address(), config.ClientConfig)
	if err != nil {
		return nil, nil, config.because(err)
	}
	return ssh.NewClient(c, channels, requests), conn, nil
}

// connect makes the connection that SSH goes over.
func (d *dialling) connect(ctx context.Context, via *ssh.Client) (net.Conn, error) {
	if via != nil {
		d.step("connect through the jump host")
		return via.DialContext(ctx, "tcp", d.hop.address())
	}
	d.step("resolve")
	var once sync.Once
	dialer := net.Dialer{ControlContext: func(context.Context, string, string, syscall.RawConn) error {
		once.Do(func() { d.step("connect") })
		return nil
	}}
	return dialer.DialContext(ctx, "tcp", d.hop.address())
}

// openChannel starts the SFTP subsystem.
func (d *dialling) openChannel(client *ssh.Client) (*session, error) {
	d.step("open a channel")
	channel, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	stdin, err := channel.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := channel.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := channel.StderrPipe()
	if err != nil {
		return nil, err
	}
	said, heard := new(lastWords), make(chan nothing)
	// Always read: what nobody reads fills the channel's window, and then
	// nothing gets through any more.
	go func() { defer close(heard); _, _ = io.Copy(said, stderr) }()
	d.step("start sftp")
	if err := channel.RequestSubsystem("sftp"); err != nil {
		return nil, archive.WithHint(fmt.Errorf("the server does not offer SFTP: %w", err), "its sshd_config needs a line: Subsystem sftp internal-sftp")
	}
	s, err := d.openSFTP(stdout, stdin)
	if err != nil {
		// It came before the end of the output, and is read by somebody else.
		select {
		case <-heard:
		case <-time.After(closeGrace):
		}
		err = said.explain(err)
	}
	return s, err
}

// openCommand starts the external program.
func (d *dialling) openCommand(ctx context.Context) (*session, error) {
	d.step("start ssh_command")
	said := new(lastWords)
	pipe, err := d.f.opts.Command(ctx, said)
	if err != nil {
		return nil, err
	}
	d.links.add(func() error {
		err := pipe.End()
		if text := said.String(); text != "" {
			// Worth more than how it ended.
			return fmt.Errorf("ssh_command: %s", text)
		}
		if err != nil {
			err = fmt.Errorf("ssh_command: %w", err)
		}
		return err
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s, err := d.openSFTP(pipe.Stdout, pipe.Stdin)
	if err != nil {
		if why := d.links.close(); why != nil {
			err = why
		}
	}
	return s, err
}

// openSFTP greets the server.
func (d *dialling) openSFTP(r io.Reader, w io.WriteCloser) (*session, error) {
	arrived := &counter{r: r}
	client, err := sftp.NewClientPipe(arrived, w, sftp.MaxPacketUnchecked(largestChunk), sftp.MaxConcurrentRequestsPerFile(1))
	if err != nil {
		return nil, archive.WithHint(fmt.Errorf("no SFTP: %w", err), "something else than an SFTP server answers: does the log-in there print text, or is the account not allowed to use SFTP?")
	}
	d.step("")
	offers := func(extension string) bool { _, ok := client.HasExtension(extension); return ok }
	s := &session{
		client: client, links: d.links, steps: d.steps, lost: make(chan struct{}), chunk: safeChunk, patience: d.f.opts.Timeout, arrived: arrived,
		sync: offers("fsync@openssh.com"), link: offers("hardlink@openssh.com"), space: offers("statvfs@openssh.com"),
	}
	if offers("limits@openssh.com") {
		s.chunk = largestChunk
	}
	s.room = make(chan nothing, mostUnanswered/s.chunk)
	s.allow(leastUnanswered)
	go s.watch()
	s.background(func() {
		began := time.Now()
		_, _ = s.rootMode(d.f.opts.Root) // whoever creates something will want to know it
		s.allow(unanswered(time.Since(began)) - leastUnanswered)
	})
	return s, nil
}

// explain says where a connection failed, and what may help.
func (d *dialling) explain(err error) error {
	where := d.hop.String()
	if d.current != "" {
		where += ", at step " + d.current
	}
	whole := fmt.Errorf("%w to %s: %w", ErrConnect, where, err)
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return archive.WithHint(whole, "does sshd run there, on this port?")
	case errors.As(err, &dns):
		return archive.WithHint(whole, "is the name right, and does the name server answer?")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), d.current == "connect":
		return archive.WithHint(whole, "is the host up, and does no firewall stand between?")
	}
	return whole
}

// lastWords keeps the end of what a program says on its standard error.
type lastWords struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

// Write keeps the last kilobyte.
func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const most = 1 << 10
	w.buf = append(w.buf, p[max(0, len(p)-most):]...)
	w.buf = bytes.Clone(w.buf[max(0, len(w.buf)-most):])
	return len(p), nil
}

// String is its text on one line.
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(w.buf), "?")), " ")
}

// explain adds to an error what was said.
func (w *lastWords) explain(err error) error {
	if text := w.String(); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}
