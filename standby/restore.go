package standby

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
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

// WithoutArchive answers what needs no archive, and no configuration either:
// archive.ErrAbsent, or nil for everything else.
func (r Restore) WithoutArchive(name wal.Name) error {
	switch {
	case name == wal.HistoryName(1):
		return fmt.Errorf("%s: timeline 1 has no history: %w", name, archive.ErrAbsent)
	case r.mustNotStop(name) && r.hasLocal(name):
		return fmt.Errorf("%s: pg_wal has it: %w", name, archive.ErrAbsent)
	}
	return nil
}

// mustNotStop tells whether to stop PostgreSQL now would open the old timeline.
func (r Restore) mustNotStop(name wal.Name) bool {
	return r.Mode == Promotion && name.Kind() == wal.KindHistory
}

// Run restores one file through deliver. nil: it is there, verified.
// archive.ErrAbsent: proven absent. *Doubt: everything else. When ctx ends, its
// cause.
func (r Restore) Run(ctx context.Context, name wal.Name, deliver archive.Deliver) error {
	if err := r.WithoutArchive(name); err != nil {
		return err
	}
	doubts := doubts{Restore: r, name: name, started: time.Now(), pause: firstPause}
	for {
		from, err := r.From.Fetch(ctx, name, r.Patience(name), deliver)
		switch {
		case err == nil:
			doubts.sayRestored(from)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, archive.ErrAbsent):
			return err
		case errors.Is(err, archive.ErrGap) && r.hasLocal(name):
			return fmt.Errorf("%s: %v, but pg_wal has it: %w", name, err, archive.ErrAbsent)
		}
		if doubts.over(err) {
			return &Doubt{r.Mode, err}
		}
		if err := doubts.sleep(ctx); err != nil {
			return err
		}
	}
}

// Prepare gets ready for Run: reads a configuration, a pg_control. What fails
// may be a passing fault, and then is a doubt, or hopeless, such as a
// configuration that makes no sense, and then is returned as it is. Where
// PostgreSQL must not be stopped, Prepare tries until it succeeds, in either
// case: somebody may mend the file.
func (r Restore) Prepare(ctx context.Context, name wal.Name, prepare func() error, hopeless func(error) bool) error {
	doubts := doubts{Restore: r, name: name, started: time.Now(), pause: firstPause}
	for {
		err := prepare()
		switch {
		case err == nil:
			return nil
		case r.mustNotStop(name):
		case hopeless(err):
			return err
		default:
			return &Doubt{r.Mode, err}
		}
		doubts.over(err)
		if err := doubts.sleep(ctx); err != nil {
			return err
		}
	}
}

// doubts are those of one file, one after the other.
type doubts struct {
	Restore
	name    wal.Name
	started time.Time
	// lasting is since when every doubt was one that time does not mend; zero if
	// the last one was not.
	lasting time.Time
	pause   time.Duration // before the next attempt
	said    string
}

// over tells whether to give up after a doubt, and says, once, that it goes on.
func (d *doubts) over(err error) bool {
	since := d.started
	switch {
	case !lasts(err):
		d.lasting = time.Time{}
	case d.lasting.IsZero():
		d.lasting, d.pause = time.Now(), firstPause
	}
	if !d.lasting.IsZero() {
		since = d.lasting
	}
	budget := d.budget(d.name, err)
	if time.Since(since)+d.pause >= budget {
		return true
	}
	if d.said != err.Error() && budget > shortBudget { // otherwise the end, which says it too, is near
		d.said = err.Error()
		d.Log.Warn("in doubt, trying again", "file", d.name, "for", forHowLong(budget), "error", err)
	}
	return false
}

func forHowLong(budget time.Duration) string {
	if budget == forEver {
		return "as long as it takes"
	}
	return budget.String()
}

func (r Restore) hasLocal(name wal.Name) bool { return r.Local != nil && r.Local(name) }

// Patience is how long an attempt waits for the next byte.
func (r Restore) Patience(name wal.Name) time.Duration {
	return min(max(r.budget(name, nil), time.Second), longestPatience)
}

// budget is how long to try: docs/exit-codes.md has the table.
func (r Restore) budget(name wal.Name, err error) time.Duration {
	switch {
	case r.mustNotStop(name):
		return forEver
	case r.Mode == Standby && every(err, isFinding):
		return 0
	case r.Mode == Standby, lasts(err):
		return min(r.Retry, shortBudget)
	}
	return r.Retry
}

// isFinding tells whether an archive has answered, and will say the same again.
func isFinding(err error) bool {
	return errors.Is(err, archive.ErrGap) || errors.Is(err, archive.ErrIdentity)
}

// lasts tells whether time mends nothing: what every archive said is a finding,
// or damage. If one of them could not be asked, it is worth the wait.
func lasts(err error) bool {
	return every(err, func(err error) bool { return isFinding(err) || errors.Is(err, archive.ErrDamaged) })
}

func every(err error, is func(error) bool) bool {
	if err == nil {
		return false
	}
	return !slices.ContainsFunc(archive.Verdicts(err), func(err error) bool { return !is(err) })
}

func (d *doubts) sayRestored(from string) {
	level := slog.LevelDebug
	if d.said != "" {
		level = slog.LevelInfo
	}
	d.Log.Log(context.Background(), level, "restored", "file", d.name, "from", from, "after", time.Since(d.started).Round(time.Millisecond))
}

// sleep waits before the next attempt, each time longer.
func (d *doubts) sleep(ctx context.Context) error {
	pause := d.pause
	d.pause = min(2*pause, longestPause)
	return sleep(ctx, pause)
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
