package multicall

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"pitr/archive"
	"pitr/backup/pg"
)

// post is where calls find a process that works for them, an agent or a fetcher:
// its socket, its lock, and why it ends.
type post struct {
	*call
	cfg     Config
	place   agentPlace
	id      agentIdentity
	build   string
	digest  string
	cluster archive.Cluster
	// follows: it ends with its postmaster.
	follows bool
	told    *memoir
	began   time.Time

	listener *net.UnixListener
	socket   fs.FileInfo // of what it listens on
	calls    sync.WaitGroup

	mu     sync.Mutex // guards the rest
	why    string     // why it ends; empty: it does not
	killed bool       // it was told to end at once
	ending chan struct{}
}

// newPost takes a place. The lock is held when it returns.
func (c *call) newPost(cfg Config, id agentIdentity, place agentPlace) (*post, func(), error) {
	cluster, err := clusterOf(id.pgdata)
	if err != nil {
		return nil, nil, err
	}
	digest, err := id.digest()
	if err != nil {
		return nil, nil, err
	}
	if err := place.make(); err != nil {
		return nil, nil, err
	}
	release, err := place.hold()
	if err != nil {
		return nil, nil, err
	}
	p := &post{
		call: c, cfg: cfg, id: id, place: place, build: buildID(), digest: digest, cluster: cluster,
		told: newMemoir(), began: time.Now(), ending: make(chan struct{}),
	}
	if p.listener, err = place.listen(); err == nil {
		p.socket, err = os.Lstat(place.socket())
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	c.log = slog.New(newTeeHandler(newLineHandler(p.told, id.role(), c.level), c.log.Handler()))
	return p, release, nil
}

// untilEnded waits until there is a reason to end. unwanted is asked for one now and
// then.
func (p *post) untilEnded(ctx context.Context, unwanted func() string) {
	tick := time.NewTicker(agentRound)
	defer tick.Stop()
	for p.reason() == "" {
		select {
		case <-ctx.Done():
			p.mu.Lock()
			p.killed = true
			p.mu.Unlock()
			p.end(context.Cause(ctx).Error())
		case <-p.ending:
		case <-tick.C:
			if why := unwanted(); why != "" {
				p.end(why)
			}
		}
	}
	p.log.Debug("the "+p.id.role()+" ends", "reason", p.reason())
}

// end takes no call any more.
func (p *post) end(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != "" {
		return
	}
	p.why = why
	close(p.ending)
	// The socket first: whoever finds none does without.
	if p.owns() {
		_ = os.Remove(p.place.socket())
	}
	_ = p.listener.Close()
}

// interrupted tells whether it has to end at once.
func (p *post) interrupted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

func (p *post) reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// owns tells whether the socket at its place is its own.
func (p *post) owns() bool {
	there, err := os.Lstat(p.place.socket())
	return err == nil && os.SameFile(there, p.socket)
}

// serverGone is why it has no server any more, or nothing.
func (p *post) serverGone() string {
	m, err := pg.ReadPostmaster(p.id.pgdata)
	switch {
	case errors.Is(err, pg.ErrNotRunning):
		return "the server has ended"
	case err == nil && !lives(m, p.id.pgdata):
		return "the server is gone"
	}
	return ""
}

// outdated is why a call is not for it, or nothing. Then it ends.
func (p *post) outdated(req agentRequest) string {
	switch {
	case req.Version != agentVersion, req.Build != p.build:
		p.end("a call came from another build")
		return "it is another build"
	case req.Config != p.digest:
		p.end("the configuration has changed")
		return "its configuration is another one"
	case p.reason() != "":
		return "it is ending"
	case p.cluster != p.clusterNow():
		p.end("the data directory is another cluster's now")
		return "it serves another cluster"
	}
	return ""
}

// clusterNow is the cluster in the data directory: after initdb or a restore in its
// place it is another one.
func (p *post) clusterNow() archive.Cluster {
	now, err := clusterOf(p.id.pgdata)
	if err != nil {
		return archive.Cluster{}
	}
	return now
}
