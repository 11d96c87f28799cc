package multicall

import (
	"context"
	"errors"
	"runtime/debug"

	"pitr/archive"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

// delivery is the way of files of pg_wal to every archive of a configuration.
type delivery struct {
	// required stores a file in the archives that must have it, and returns what
	// each of them said.
	required func(ctx context.Context, name wal.Name, src archive.Source) ([]archive.Pushed, error)
	// queues ships it to the others, or puts it into their queues; nil if there
	// are none.
	queues *ship.Shipper
	// archives are all of them.
	archives archive.Set
}

// delivery is that of a call by itself.
func (c *call) delivery(cfg Config, cluster archive.Cluster) delivery {
	set := cfg.archives(cfg.Required(), cluster, c.log)
	d := delivery{required: set.Push, archives: set}
	if len(set) == 0 {
		d.required = func(context.Context, wal.Name, archive.Source) ([]archive.Pushed, error) { return nil, nil }
	}
	if len(cfg.Queued) > 0 {
		d.queues = c.shipper(cfg, cluster)
		for _, to := range d.queues.Destinations {
			d.archives = append(d.archives, to.Archive)
		}
	}
	return d
}

// run brings a file everywhere, at the same time. nil says that each archive
// that must have it has it, and that each other one has it or its queue does.
func (d delivery) run(ctx context.Context, f walFile) ([]archive.Pushed, []ship.Result, error) {
	if d.queues == nil {
		stored, err := d.required(ctx, f.name, f)
		return stored, nil, err
	}
	var shipped []ship.Result
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				failed = &panicked{v, debug.Stack()}
			}
		}()
		shipped, failed = d.queues.Ship(ctx, f.name, f)
	}()
	stored, err := d.required(ctx, f.name, f)
	<-done
	return stored, shipped, errors.Join(err, failed)
}

// neverBegan is neverBegan for all archives: the history of the timeline must
// not wait in a queue either.
func (d delivery) neverBegan(ctx context.Context, f walFile) bool {
	return (d.queues == nil || neverQueued(ctx, d.queues, f)) && neverBegan(ctx, d.archives, f)
}

// neverQueued tells whether the history of a file's timeline waits in no queue.
func neverQueued(ctx context.Context, s *ship.Shipper, f walFile) bool {
	for _, to := range s.Destinations {
		waits, err := ship.Has(ctx, s.Disk, to.Name, wal.HistoryName(f.name.Timeline()))
		if waits || err != nil {
			return false
		}
	}
	return true
}
