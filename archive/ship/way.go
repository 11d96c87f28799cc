package ship

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// way is what is known of an archive between two files.
type way struct {
	Way
	ahead  *Ahead
	ctx    context.Context // ends with the agent
	cancel context.CancelFunc

	mu      sync.Mutex // guards the rest
	settled []settled  // the last files that it has
	is      WayState
	ended   *convoy       // the convoy that has failed in it
	staging int           // files that are being staged
	pace    time.Duration // what one of them takes alone; 0: nobody knows
	probing bool
}

// settled is a file that an archive has.
type settled struct {
	name  wal.Name
	facts any
	done  archive.Pushed
	at    time.Time
}

// WayState is what an archive was last.
type WayState struct {
	Archive string    // its URL
	Last    wal.Name  // the last file that it has, of those that passed through here
	LastAt  time.Time // zero: none
	Err     error     // why the last one of those that failed did; nil: none has
	ErrFile wal.Name
	ErrAt   time.Time
	Failing bool      // nothing has succeeded since Err
	Down    time.Time // since when it has been silent; zero: it is not
}

func newWay(a *Ahead, w Way) *way {
	ctx, cancel := context.WithCancel(context.Background())
	return &way{Way: w, ahead: a, ctx: ctx, cancel: cancel, is: WayState{Archive: w.Archive.Name()}}
}

func (w *way) now() time.Time { return time.Now() }

func (w *way) close() { w.cancel() }

func (w *way) state() WayState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.is
}

// has returns a file that the archive has. It remembers those that may be ahead of
// PostgreSQL, so that a failure of another archive does not make this one compare
// them all again.
func (w *way) has(it *item) (settled, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.settled {
		if s.name == it.name && s.facts == it.facts {
			return s, true
		}
	}
	return settled{}, false
}

// forget takes nothing for granted any more.
func (w *way) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = nil
}

func (w *way) remember(it *item, done archive.Pushed) {
	const most = lead + width
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = append(w.settled, settled{it.name, it.facts, done, w.now()})
	w.settled = w.settled[max(0, len(w.settled)-most):]
	w.is.Last, w.is.LastAt, w.is.Failing = it.name, w.now(), false
}

// stop notes that a file of a convoy has failed: nothing of that convoy is published
// any more.
func (w *way) stop(l *convoy, name wal.Name, err error) {
	w.Intake.Shut()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended != l && !errors.Is(err, errBehind) && !errors.Is(err, errDown) {
		w.is.Err, w.is.ErrFile, w.is.ErrAt, w.is.Failing = err, name, w.now(), true
	}
	w.ended = l
}

func (w *way) stopped(l *convoy) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended == l
}

// enter counts a file that begins to be staged.
func (w *way) enter() (began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.staging++
	return w.now()
}

// leave notes how long a file would have taken alone, and what it came to.
func (w *way) leave(began time.Time, err error) {
	took := w.now().Sub(began)
	w.mu.Lock()
	alone := took / time.Duration(w.staging)
	w.staging--
	switch {
	case errors.Is(err, errBudget):
		w.pace = w.ahead.Budget
	case err == nil:
		w.pace = (w.pace + alone) / 2
	}
	w.mu.Unlock()
	w.took(began, err)
}

// width is how many files may be on their way at a time: so many that the one
// whose turn it is has the line to itself for long enough.
func (w *way) width(budget time.Duration) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pace == 0 {
		return 1 // until it is known
	}
	return int(min(width, max(1, budget/4/w.pace)))
}

// took notes an archive that has kept silent for the whole of a step's time, or
// for most of ssh_timeout when it was to be opened, and has it probed.
func (w *way) took(began time.Time, err error) {
	silent := w.now().Sub(began) >= min(w.ahead.Budget, w.ahead.Patience)/2 && errors.Is(err, archive.ErrUnopened)
	stopped := errors.Is(err, errBehind) || errors.Is(err, context.Canceled)
	if !silent && !errors.Is(err, errBudget) || stopped || needsSomebody(err) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.is.Down.IsZero() {
		w.is.Down = began
	}
	w.is.Err, w.is.ErrAt, w.is.Failing = err, w.now(), true
	if !w.probing {
		w.probing = true
		go w.probe()
	}
}

// down is why an archive is not asked now; nil if it is.
func (w *way) down() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.is.Down.IsZero() {
		return nil
	}
	return fmt.Errorf("%w since %s: %w", errDown, w.is.Down.Format(time.TimeOnly), w.is.Err)
}

// errDown is the answer to files that an archive is not asked for.
var errDown = errors.New("it has not answered")

// probe asks an archive that is down for its identity, until it answers anything.
func (w *way) probe() {
	const shortest, longest = time.Second, 20 * time.Second
	for pause := shortest; ; pause = min(2*pause, longest) {
		select {
		case <-time.After(pause):
		case <-w.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, w.ahead.Patience)
		began := w.now()
		_, err := w.Archive.Identity(ctx)
		cancel()
		if err == nil || w.now().Sub(began) < w.ahead.Patience/2 {
			break // also a refusal is an answer: the next file hears it itself
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.is.Down, w.probing = time.Time{}, false // still failing: only a file that it takes proves that it takes files
}
