package multicall

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"pitr/archive/wal"
	"pitr/backup/pg"
)

// pg_ctl stop waits for archive_command: PostgreSQL makes three calls before it
// ends, a second apart, and three more if it was told to in the middle of one.
const (
	// stoppingPatience is how long a call may take once the server is stopping.
	stoppingPatience = 5 * time.Second

	// stoppingBudget is how long all of them may take, from when it began to.
	stoppingBudget = 10 * time.Second

	// stoppingLeast is what a call has in any case.
	stoppingLeast = 500 * time.Millisecond

	// stoppingRound is how often that is looked at.
	stoppingRound = 250 * time.Millisecond
)

// errStopping ends calls that keep a server from stopping.
var errStopping = errors.New("the server is stopping, and does not wait any longer")

// untilStopping is a context for a call that has begun, which ends when the server
// of a data directory is stopping and has waited long enough.
func untilStopping(ctx context.Context, pgdata string, began time.Time) (context.Context, context.CancelFunc) {
	if end, stopping := stoppingEnd(pgdata, began); stopping {
		return context.WithDeadlineCause(ctx, end, errStopping)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(stoppingRound)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				// It began to in the middle of this call, which has its time from now on.
				if end, stopping := stoppingEnd(pgdata, now); stopping {
					select {
					case <-ctx.Done():
					case <-time.After(time.Until(end)):
						cancel(errStopping)
					}
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// stoppingEnd is when a call that began at some time has to end, if the server is
// stopping.
func stoppingEnd(pgdata string, began time.Time) (time.Time, bool) {
	told, stopping := stoppingSince(pgdata)
	if !stopping {
		return time.Time{}, false
	}
	if told.IsZero() || told.After(began) {
		told = began
	}
	end := began.Add(stoppingPatience)
	if all := told.Add(stoppingBudget); all.Before(end) {
		end = all
	}
	if least := began.Add(stoppingLeast); end.Before(least) {
		end = least
	}
	return end, true
}

// stoppingSince is since when a server waits for nothing but its archiver. One that
// was told to stop, but serves the clients that it has (a smart shutdown), lives on
// for as long as they stay, and makes WAL: pg_control says when it is over.
func stoppingSince(pgdata string) (since time.Time, stopping bool) {
	p, err := pg.ReadPostmaster(pgdata)
	if err != nil || !p.Stopping {
		return time.Time{}, false
	}
	// That it is stopping is the last thing that is written there.
	since = changed(filepath.Join(pgdata, "postmaster.pid"))
	control, err := wal.ReadControl(pgdata)
	if err != nil {
		return since, true // then all that is known is that it was told to
	}
	if control.State == wal.InProduction || control.State == wal.InArchiveRecovery {
		return time.Time{}, false
	}
	if at := changed(filepath.Join(pgdata, "global", "pg_control")); at.After(since) {
		since = at
	}
	return since, true
}

// changed is when a file was written; zero: nobody knows.
func changed(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
