package ship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// Destination is where files go.
type Destination struct {
	// Name is the queue's directory: one element of a path, without a dot at
	// its beginning.
	Name string
	// Archive is asked in a file's turn; its first answer opens the connection.
	Archive *archive.Archive
}

// Disk is what a queue needs of a file system.
type Disk interface {
	files.FS
	// Link gives a file another, free name: fs.ErrExist if it is taken.
	Link(ctx context.Context, from, to string) error
	// Replace moves a file to a name, free or not, in one atomic step.
	Replace(ctx context.Context, from, to string) error
	// Lock takes the lock of a name, and waits for it until ctx ends. A process
	// that has died holds none.
	Lock(ctx context.Context, name string) (release func() error, err error)
	// Visit shows each entry of a directory, in any order and without keeping
	// it, until none is left or visit returns an error.
	Visit(ctx context.Context, name string, visit func(fs.DirEntry) error) error
	// Space tells how many bytes are free, and on which device.
	Space() (free int64, dev uint64, err error)
}

var _ Disk = local.FS{}

// Shipper ships the WAL of one cluster. Goroutines and processes may use the
// same queues at the same time. It must not be copied once it was used.
type Shipper struct {
	Cluster      archive.Cluster
	Destinations []Destination
	// Disk is the queues' directory.
	Disk Disk
	// Writer is who its temporary files say made them.
	Writer files.Writer
	// Patience is how long a destination may take for its first answer, and how
	// long its queue is worked on in one call. It must be positive.
	Patience time.Duration
	// Rest is how long a destination is not tried again after it was silent for
	// half of Patience or more, as long as its queue takes everything. 0 tries
	// at every call.
	Rest time.Duration
	// Limit bounds what a queue takes.
	Limit Limit
	// Log gets what nobody is told otherwise; nil drops it.
	Log *slog.Logger
	// Now is the clock of what is written down; nil is time.Now.
	Now func() time.Time

	mu    sync.Mutex // guards desks
	desks map[string]*desk
}

func (s *Shipper) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Shipper) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// Outcome is what became of a file at one destination.
type Outcome int

// Lost is the zero Outcome: what nobody has said anything of is not safe.
const (
	Lost      Outcome = iota // neither there nor in its queue
	Queued                   // durably in its queue
	Delivered                // durably there
)

// Result is what a call came to at one destination, or a Drainer's attempt.
type Result struct {
	Destination string
	// File is the call's. A Drainer's is the last one that was delivered, or the
	// one that is to go out next; zero if it does not know it.
	File    wal.Name
	Outcome Outcome
	// Pushed is what the archive said, if it was delivered.
	Pushed archive.Pushed
	// Sent is how many queued files were delivered before.
	Sent int
	// Reason is why the destination does not have the file.
	Reason error
	// Err is why its queue does not have it either.
	Err error
	// HalfFull: with this file the queue has come to hold more than half of
	// what it may. It is said once, each time that it comes to that.
	HalfFull bool
	// Before and After are the destination's states.
	Before, After State
}

// err is a file that the destination neither has nor has queued.
func (r Result) err() error {
	if r.Outcome != Lost {
		return nil
	}
	if r.Reason == nil {
		return fmt.Errorf("%s: %w", r.Destination, r.Err)
	}
	return fmt.Errorf("%s: not queued: %w; not delivered: %w", r.Destination, r.Err, r.Reason)
}

// grace is what a call gets after its end to come back by itself.
const grace = time.Second

// errNoAnswer says that a call outlived its time: a disk hangs.
var errNoAnswer = errors.New("no answer in time")

// Ship brings a file to every destination, or into its queue; at the same time.
// It returns one Result for each, in their order, and nil only if each has the
// file or its queue has it. archive.ErrForeign if the file is not what its name
// says: it is lost everywhere then, for nothing went anywhere. archive.ErrConflict
// if other content waits under its name. When ctx ends, what hangs in the system
// is left behind: nothing of it was acknowledged.
func (s *Shipper) Ship(ctx context.Context, name wal.Name, src archive.Source) ([]Result, error) {
	if len(s.Destinations) == 0 {
		return nil, fmt.Errorf("ship %s: no destination", name)
	}
	one := s.shipment(ctx, name, src)
	one.refused = archive.Inspect(name, src, s.Cluster)
	results := one.everywhere(ctx)
	if one.refused != nil {
		return results, fmt.Errorf("ship %s: %w", name, one.refused)
	}
	var lost []error
	for _, r := range results {
		lost = append(lost, r.err())
	}
	if err := errors.Join(lost...); err != nil {
		return results, fmt.Errorf("ship %s: %w", name, err)
	}
	return results, nil
}

// shipment is one call of Ship.
type shipment struct {
	*Shipper
	name  wal.Name
	src   archive.Source
	copy  *copyOnce
	swept sync.Once
	// refused is why the file must not go anywhere.
	refused error
	// patient ends when no further file may be begun.
	patient func(context.Context) (context.Context, context.CancelFunc)
}

func (s *Shipper) shipment(ctx context.Context, name wal.Name, src archive.Source) *shipment {
	one := &shipment{Shipper: s, name: name, src: src}
	one.copy = &copyOnce{disk: s.Disk, writer: s.Writer, src: src, room: s.room}
	until := time.Now().Add(s.Patience)
	over := fmt.Errorf("ssh_timeout of %s is over", s.Patience)
	one.patient = func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithDeadlineCause(ctx, until, over)
	}
	return one
}

// everywhere ships to all destinations, and comes back soon after ctx has ended.
func (s *shipment) everywhere(ctx context.Context) []Result {
	done := make([]chan Result, len(s.Destinations))
	for i, d := range s.Destinations {
		done[i] = make(chan Result, 1)
		go func() { done[i] <- s.guarded(ctx, d) }()
	}
	late := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, func() { close(late) }) })
	defer stop()
	results := make([]Result, len(s.Destinations))
	hangs := false
	for i, d := range s.Destinations {
		r, answered := await(done[i], late)
		if !answered {
			r = unanswered(ctx, s.name, d)
		}
		results[i], hangs = r, hangs || !answered
	}
	if !hangs { // else somebody may still be linking it
		s.copy.drop(ctx)
	}
	return results
}

// await returns a result, if it comes before late, or is there already.
func await(done <-chan Result, late <-chan struct{}) (Result, bool) {
	select {
	case r := <-done:
		return r, true
	case <-late:
	}
	select {
	case r := <-done:
		return r, true
	default:
		return Result{}, false
	}
}

// unanswered is what is known of a destination that outlived the call.
func unanswered(ctx context.Context, file wal.Name, d Destination) Result {
	r := Result{Destination: d.Name, File: file, Err: fmt.Errorf("%w: %w", errNoAnswer, context.Cause(ctx)), After: Failed}
	if errors.Is(ctx.Err(), context.Canceled) {
		r.After = Unknown // it was not given its time
	}
	return r
}

// guarded ships to one destination. A panic there must not take the others along.
func (s *shipment) guarded(ctx context.Context, d Destination) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r = Result{Destination: d.Name, File: s.name, After: Failed, Err: panicked(p)}
		}
	}()
	s.swept.Do(func() { s.sweep(ctx) })
	l := s.lane(d)
	l.run(ctx)
	return l.result
}

func panicked(value any) error { return fmt.Errorf("internal error: %v\n%s", value, debug.Stack()) }

// sweep removes what dead writers of this host left among the queues.
func (s *shipment) sweep(ctx context.Context) {
	removed, err := files.NewStore(s.Disk, s.Writer).Sweep(ctx, ".", time.Time{})
	if len(removed) > 0 {
		s.log().Info("temporary files of dead writers removed", "count", len(removed))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log().Warn("temporary files cannot be looked through", "error", err)
	}
}
