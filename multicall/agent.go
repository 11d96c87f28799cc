package multicall

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

// agent is the process that ships for the calls of archive_command.
type agent struct {
	*post
	ahead   *ship.Ahead // nil: no archive must have it
	way     delivery
	drainer *ship.Drainer // nil: there are no queues
	watched watched

	pushing struct {
		sync.Mutex     // guards n
		n          int // calls that push, under way
	}
}

// newAgent prepares an agent. The lock is held when it returns.
func (c *call) newAgent(cfg Config, id agentIdentity, place agentPlace) (*agent, func(), error) {
	p, release, err := c.newPost(cfg, id, place)
	if err != nil {
		return nil, nil, err
	}
	a := &agent{post: p}
	a.prepare()
	return a, release, nil
}

// prepare makes the ways to all destinations. Nothing is connected yet.
func (a *agent) prepare() {
	if len(a.cfg.Required()) > 0 {
		a.ahead = a.newAhead()
	}
	a.way.required = func(ctx context.Context, name wal.Name, _ archive.Source) ([]archive.Pushed, error) {
		if a.ahead == nil {
			return nil, nil
		}
		return a.ahead.Push(ctx, name)
	}
	if len(a.cfg.Queued) == 0 && len(a.cfg.Slaves) == 0 {
		return
	}
	a.way.queues = a.shipper(a.cfg, a.cluster)
	a.drainer = &ship.Drainer{
		Shipper: a.way.queues, Workers: a.cfg.MaxQueueWorkers, Wait: a.cfg.QueueWait, Budget: a.cfg.PushTimeout,
		Changed: func(r ship.Result) { a.tell([]ship.Result{r}) },
	}
}

// tell logs what became of a file in queues, and alerts.
func (a *agent) tell(results []ship.Result) {
	for _, r := range results {
		if r.Outcome == ship.Delivered {
			a.watched.delivered(r.Destination, r.File, time.Now())
		}
	}
	a.sayShipped(a.cfg, results)
	a.notify(a.cfg, results)
}

// newAhead is the way of the required archives.
func (a *agent) newAhead() *ship.Ahead {
	ahead := &ship.Ahead{
		WAL:    pgWAL{local.PGWAL{Dir: filepath.Join(a.id.pgdata, "pg_wal")}},
		Budget: a.cfg.PushTimeout, Patience: a.cfg.SSHTimeout, Log: a.log,
	}
	for _, u := range a.cfg.Required() {
		dir := a.cfg.filesAt(u, a.log)
		store := files.NewStore(dir, local.Writer())
		one := a.cfg.archiveOf(store, u, a.cluster, a.log)
		ahead.Ways = append(ahead.Ways, ship.Way{Archive: one, Intake: archive.NewIntake(one, store)})
	}
	return ahead
}

// pgWAL is pg_wal as package ship wants it.
type pgWAL struct{ local.PGWAL }

func (w pgWAL) Open(name wal.Name) (ship.File, error) {
	f, err := w.PGWAL.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}
