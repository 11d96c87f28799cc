package multicall

import (
	"context"
	"errors"
	"time"

	"pitr/backup/pg"
)

const (
	// stoppingPatience is how long a call may take once the server is stopping.
	// PostgreSQL makes three of them before it ends.
	stoppingPatience = 5 * time.Second

	// stoppingRound is how often that is looked at.
	stoppingRound = 250 * time.Millisecond
)

// errStopping ends calls that keep a server from stopping.
var errStopping = errors.New("the server is stopping, and 5s are over")

// untilStopping is a context that ends when the server of a data directory has been
// stopping for stoppingPatience: pg_ctl stop waits for archive_command.
func untilStopping(ctx context.Context, pgdata string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	began := time.Now()
	stopping := false
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(2*stoppingRound, func() {
		<-ready
		if !stopping {
			p, err := pg.ReadPostmaster(pgdata)
			stopping = err == nil && p.Stopping
			if stopping && time.Since(began) > 4*stoppingRound {
				began = time.Now() // it was told to in the middle of this call
			}
		}
		if stopping && time.Since(began) >= stoppingPatience {
			cancel(errStopping)
			return
		}
		if ctx.Err() == nil {
			timer.Reset(stoppingRound)
		}
	})
	close(ready)
	return ctx, func() { timer.Stop(); cancel(nil) }
}
