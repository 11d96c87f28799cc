package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// Ahead pushes the WAL of one cluster to the archives that must have it, ahead of
// PostgreSQL's asking: see "Ahead of PostgreSQL" in docs/agent.md. Goroutines may
// share it.
type Ahead struct {
	// WAL is the cluster's.
	WAL WAL
	// Ways are the archives.
	Ways []Way
	// Budget is how long each step of one file may take, and after which an
	// archive that has said nothing is down.
	Budget time.Duration
	// Patience is how long an archive that is down may take to answer.
	Patience time.Duration
	// Log gets what nobody is told otherwise; nil drops it.
	Log *slog.Logger

	mu     sync.Mutex // guards what follows
	convoy *convoy    // the files under way, and those that arrived last; nil: none
	ways   []*way
	// careful: the last convoy ended with a failure, so nothing goes ahead before
	// a file has succeeded.
	careful bool
	closed  bool
}

// WAL is where the files are.
type WAL interface {
	// Ready lists files that wait to be archived, in the archiver's order: at
	// most so many of those that come after a name.
	Ready(ctx context.Context, after wal.Name, most int) ([]wal.Name, error)
	Open(name wal.Name) (File, error)
}

// File is a file of pg_wal. The caller closes it.
type File interface {
	archive.Source
	Close() error
	// Facts compare equal for two looks at one file between which nobody has
	// changed it.
	Facts() any
}

// Way is an archive and the way into it.
type Way struct {
	Archive *archive.Archive
	Intake  *archive.Intake
}

const (
	// width is how many files are staged at a time.
	width = 8

	// lead is how many files are ahead of the last one that was asked for.
	lead = 32

	// fresh is for how long an archive is believed to have what it had: after
	// that it is asked again, before a file is answered for.
	fresh = 10 * time.Second

	// listed is how many names are read of those that wait.
	listed = 256
)

// errClosed says that the agent is ending.
var errClosed = errors.New("the agent is ending")

// Push brings a file to every archive, or waits until it is there. It returns nil
// only if all of them have it, and the file in pg_wal is the one that they have.
// Errors are those of archive.Push. When ctx ends, the file stays under way.
func (a *Ahead) Push(ctx context.Context, name wal.Name) ([]archive.Pushed, error) {
	f, err := a.WAL.Open(name)
	if err != nil {
		return nil, err
	}
	it, err := a.ask(ctx, name, f)
	if err != nil {
		return nil, fmt.Errorf("push %s: %w", name, err)
	}
	select {
	case <-it.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("push %s: it is still under way: %w", name, context.Cause(ctx))
	}
	return it.outcome()
}

// ask finds the file on its way, or begins a convoy with it. f is closed, now or
// when the file has arrived.
func (a *Ahead) ask(ctx context.Context, name wal.Name, f File) (*item, error) {
	for {
		it, l, err := a.look(name, f)
		if it != nil || err != nil {
			return it, err
		}
		// PostgreSQL goes another way than we thought, or the convoy came to its end.
		l.stop()
		select {
		case <-l.over:
			a.end(l)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("others are still under way: %w", context.Cause(ctx)), f.Close())
		}
	}
}

// look returns the file's item, or the convoy that has to end first.
func (a *Ahead) look(name wal.Name, f File) (*item, *convoy, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, nil, errors.Join(errClosed, f.Close())
	}
	if a.convoy != nil {
		it := a.convoy.take(name, f.Facts())
		if it == nil {
			return nil, a.convoy, nil
		}
		return it, nil, f.Close()
	}
	a.prepare()
	l, first := a.begin(name, f)
	a.convoy = l
	return first, nil, nil
}

// end forgets a convoy that is over.
func (a *Ahead) end(l *convoy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.convoy == l {
		a.careful = l.failed()
		a.convoy = nil
	}
}

func (a *Ahead) prepare() {
	if a.ways != nil {
		return
	}
	if a.Log == nil {
		a.Log = slog.New(slog.DiscardHandler)
	}
	for _, w := range a.Ways {
		a.ways = append(a.ways, newWay(a, w))
	}
}

// Busy tells whether a file is under way.
func (a *Ahead) Busy() bool {
	a.mu.Lock()
	l := a.convoy
	a.mu.Unlock()
	return l != nil && l.busy()
}

// Close drops what is staged, and waits for what is being published, no longer
// than until ctx ends. Every later Push fails.
func (a *Ahead) Close(ctx context.Context) {
	a.mu.Lock()
	a.closed = true
	l, ways := a.convoy, a.ways
	a.mu.Unlock()
	for _, w := range ways {
		w.close()
	}
	if l == nil {
		return
	}
	l.stop()
	select {
	case <-l.over:
	case <-ctx.Done():
	}
}

// States tells what each archive was last.
func (a *Ahead) States() []WayState {
	a.mu.Lock()
	a.prepare()
	ways := a.ways
	a.mu.Unlock()
	var all []WayState
	for _, w := range ways {
		all = append(all, w.state())
	}
	return all
}

// item is a file on its way to every archive.
type item struct {
	name  wal.Name
	file  File
	facts any

	enc    *archive.Encoding
	steps  []chan step               // of each way: the parcel, when it is staged
	cancel []context.CancelCauseFunc // of each way: ends the staging
	done   chan struct{}             // closed when every way has an answer

	mu     sync.Mutex // guards the rest
	at     time.Time  // when it was done
	open   int        // ways without an answer
	pushed []archive.Pushed
	errs   []error
}

// step is what staging came to. With neither parcel nor error the archive has the
// file already.
type step struct {
	parcel *archive.Parcel
	has    *archive.Pushed
	err    error
}

// answer settles the item for one way.
func (it *item) answer(i int, done archive.Pushed, err error) {
	it.mu.Lock()
	it.pushed[i], it.errs[i] = done, err
	it.open--
	last := it.open == 0
	if last {
		it.at = time.Now()
	}
	it.mu.Unlock()
	if last {
		for _, cancel := range it.cancel {
			if cancel != nil {
				cancel(nil)
			}
		}
		it.enc.Stop()
		// Of a file that was read: nothing can be lost any more.
		_ = it.file.Close()
		close(it.done)
	}
}

func (it *item) isDone() bool {
	select {
	case <-it.done:
		return true
	default:
		return false
	}
}

// isOld tells whether the archives must be asked again before anybody is told that
// they have it.
func (it *item) isOld() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return time.Since(it.at) >= fresh
}

func (it *item) hasFailed() bool {
	_, err := it.outcome()
	return err != nil
}

func (it *item) outcome() ([]archive.Pushed, error) {
	it.mu.Lock()
	defer it.mu.Unlock()
	return slices.Clone(it.pushed), errors.Join(it.errs...)
}
