package standby

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// Mode is what PostgreSQL does with a restore_command that fails.
type Mode int

const (
	// Recovery: PostgreSQL takes status 1 for the end of WAL and opens the
	// database. Also when no signal file is in sight, as under pg_rewind.
	Recovery Mode = iota
	// Standby: PostgreSQL tries again for ever, and stops at 126 and above.
	Standby
	// Promotion: a server runs and has removed its signal file already, but is
	// not open yet. It asks for the history of the timeline that it leaves. To
	// stop it now would be worse than to wait: the next start, a plain crash
	// recovery, would open the old timeline.
	Promotion
)

// String names the mode as PostgreSQL's documentation does.
func (m Mode) String() string {
	switch m {
	case Standby:
		return "standby mode"
	case Promotion:
		return "promotion"
	}
	return "recovery"
}

// ModeOf reads the mode from the signal files of a data directory.
// standby.signal wins, as in readRecoverySignalFile of xlogrecovery.c. Without
// either, a server that runs there is being promoted (StartupXLOG removes the
// files before it reads the parent's history); if none runs, pg_rewind asks.
func ModeOf(pgdata string) Mode {
	there := func(name string) bool {
		_, err := os.Stat(filepath.Join(pgdata, name))
		return err == nil
	}
	switch {
	case there("standby.signal"):
		return Standby
	case !there("recovery.signal") && there("postmaster.pid"):
		return Promotion
	}
	return Recovery
}

// Fetcher is what a file is restored from; archive.Set is one. patience is how
// long to wait for the next byte.
type Fetcher interface {
	Fetch(ctx context.Context, name wal.Name, patience time.Duration, deliver archive.Deliver) (from string, err error)
}

// Restore is one restore_command's policy.
type Restore struct {
	From Fetcher
	Mode Mode
	// Retry is the budget of a doubt in recovery: when it is over, no further
	// attempt begins. One under way is not cut while bytes arrive.
	Retry time.Duration
	// Local tells whether pg_wal has a whole and sound copy of a file. Then a
	// gap is no reason to stop: told that the file is absent, PostgreSQL takes
	// its own. nil: there is no such place.
	Local func(wal.Name) bool
	Log   *slog.Logger
}

const (
	// shortBudget is for answers that must come quickly: PostgreSQL has other
	// sources to turn to, or time mends nothing.
	shortBudget = 5 * time.Second

	// longestPatience is how long an attempt may wait for its next byte before
	// it is given up and the next one begins.
	longestPatience = 10 * time.Minute

	// forEver is the budget of an answer that only SIGTERM may replace.
	forEver = time.Duration(math.MaxInt64)

	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
)

// Doubt says that a file may or may not exist: nothing was proven.
type Doubt struct {
	Mode Mode
	Err  error
}

// Error names the mode, because it explains the exit status.
func (d *Doubt) Error() string { return fmt.Sprintf("in doubt (%s): %v", d.Mode, d.Err) }

// Unwrap gives the reason. It never matches archive.ErrAbsent.
func (d *Doubt) Unwrap() error { return d.Err }

// ExitStatus is what PostgreSQL has to be told: in standby mode to ask again,
// in recovery to stop rather than open the database.
func (d *Doubt) ExitStatus() int {
	if d.Mode == Standby {
		return 1
	}
	return 255
}

// Run restores one file through deliver. nil: it is there, verified.
// archive.ErrAbsent: proven absent. *Doubt: everything else. When ctx ends, its
// cause.
func (r Restore) Run(ctx context.Context, name wal.Name, deliver archive.Deliver) error {
	if name == wal.HistoryName(1) {
		return fmt.Errorf("%s: timeline 1 has no history: %w", name, archive.ErrAbsent)
	}
	if r.Mode == Promotion && name.Kind() == wal.KindHistory && r.hasLocal(name) {
		return fmt.Errorf("%s: pg_wal has it: %w", name, archive.ErrAbsent)
	}
	started := time.Now()
	said := ""
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		from, err := r.From.Fetch(ctx, name, r.patience(name), deliver)
		switch {
		case err == nil:
			r.sayRestored(name, from, started, said)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, archive.ErrAbsent):
			return err
		case errors.Is(err, archive.ErrGap) && r.hasLocal(name):
			return fmt.Errorf("%s: %v, but pg_wal has it: %w", name, err, archive.ErrAbsent)
		}
		if time.Since(started)+pause >= r.budget(name, err) {
			return &Doubt{r.Mode, err}
		}
		if said != err.Error() && r.budget(name, err) > shortBudget { // otherwise the end, which says it too, is near
			said = err.Error()
			r.Log.Warn("in doubt, trying again", "file", name, "for", r.budget(name, err), "error", err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

func (r Restore) hasLocal(name wal.Name) bool { return r.Local != nil && r.Local(name) }

// patience is how long an attempt waits for the next byte.
func (r Restore) patience(name wal.Name) time.Duration {
	return min(max(r.budget(name, nil), time.Second), longestPatience)
}

// budget is how long to try: docs/exit-codes.md has the table.
func (r Restore) budget(name wal.Name, err error) time.Duration {
	lasting := errors.Is(err, archive.ErrGap) || errors.Is(err, archive.ErrIdentity)
	switch {
	case r.Mode == Promotion && name.Kind() == wal.KindHistory:
		return forEver
	case r.Mode == Standby && lasting:
		return 0
	case r.Mode == Standby, lasting, errors.Is(err, archive.ErrDamaged):
		return min(r.Retry, shortBudget)
	}
	return r.Retry
}

func (r Restore) sayRestored(name wal.Name, from string, started time.Time, said string) {
	level := slog.LevelDebug
	if said != "" {
		level = slog.LevelInfo
	}
	r.Log.Log(context.Background(), level, "restored", "file", name, "from", from, "after", time.Since(started).Round(time.Millisecond))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
