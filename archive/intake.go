package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"pitr/archive/wal"
)

// Stager is a Store that can put a file in two halves.
type Stager[S Staged] interface {
	Store
	// Stage stores a file durably under a temporary name.
	Stage(ctx context.Context, name string, write func(io.Writer) error) (S, error)
	// SyncDirectories makes the names in directories durable.
	SyncDirectories(ctx context.Context, dirs ...string) error
}

// Staged is a file that has everything but its name.
type Staged interface {
	// Publish gives it the name: fs.ErrExist if that is taken. It is durable after
	// SyncDirectories of the name's directory.
	Publish(ctx context.Context) error
	// Drop gives it up.
	Drop(ctx context.Context) error
}

// Intake takes many files into one archive: Stage, side by side; Publish, in the
// order that the caller keeps; Settle, for several at once. What Push promises
// of a file holds when it is settled. Goroutines may share it.
type Intake struct {
	archive *Archive
	store   staging

	// opening is held by who reads the identity for everybody.
	opening chan struct{}
	mu      sync.Mutex // guards the rest
	door    view
	read    time.Time // when the door was opened; zero: it is shut
	known   map[string]bool
}

// staging is what an Intake needs of a store.
type staging interface {
	Stage(ctx context.Context, name string, write func(io.Writer) error) (Staged, error)
	SyncDirectories(ctx context.Context, dirs ...string) error
}

// staged fits a store's own type to staging.
type staged[S Staged] struct{ Stager[S] }

func (s staged[S]) Stage(ctx context.Context, name string, write func(io.Writer) error) (Staged, error) {
	f, err := s.Stager.Stage(ctx, name, write)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// NewIntake returns the way into an archive, whose store is store.
func NewIntake[S Staged](a *Archive, store Stager[S]) *Intake {
	return &Intake{archive: a, store: staged[S]{store}, opening: make(chan struct{}, 1), known: map[string]bool{}}
}

// doorStays is how long an identity that was read lets files in. Before a file is
// answered for, it is confirmed all the same.
const doorStays = 10 * time.Second

// open is openWritable, once for everybody who comes within doorStays.
func (in *Intake) open(ctx context.Context) (view, error) {
	select {
	case in.opening <- struct{}{}:
		defer func() { <-in.opening }()
	case <-ctx.Done():
		return view{}, context.Cause(ctx)
	}
	in.mu.Lock()
	v, read := in.door, in.read
	in.mu.Unlock()
	if now := in.archive.opts.Now(); !read.IsZero() && now.Sub(read) < doorStays && !now.Before(read) {
		return v, nil
	}
	v, err := in.archive.openWritable(ctx)
	if err != nil {
		return view{}, unopened{err}
	}
	v.sweep(ctx)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.door, in.read, in.known = v, in.archive.opts.Now(), map[string]bool{}
	return v, nil
}

// Compresses tells whether files of this archive are compressed, as far as it is
// known: an archive that was not asked yet may.
func (in *Intake) Compresses() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.archive.opts.Layout != Flat && (in.read.IsZero() || in.door.id.Codec == Zstd)
}

// ErrUnopened is matched by errors of an archive whose identity could not be read:
// nothing was asked of it yet.
var ErrUnopened = errors.New("the archive could not be opened")

type unopened struct{ error }

func (u unopened) Unwrap() error        { return u.error }
func (u unopened) Is(target error) bool { return target == ErrUnopened }

// Confirm proves once more that the archive has a file that was settled before: it
// is the same archive, and the file stands there, with its size.
func (in *Intake) Confirm(ctx context.Context, done Pushed) error {
	return in.about(done.As, within(ctx, func(ctx context.Context) error {
		v, err := in.archive.openWritable(ctx)
		switch {
		case err != nil:
			return err
		case v.id.ID != done.archive:
			return fmt.Errorf("%w: it was exchanged for another one", ErrIdentity)
		}
		return v.stands(ctx, done)
	}))
}

// Shut has the identity read again by the next file: after a failure nothing is
// taken for granted.
func (in *Intake) Shut() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.read, in.known = time.Time{}, map[string]bool{}
}

// Parcel is a file on its way in. One goroutine uses it at a time.
type Parcel struct {
	in     *Intake
	view   view
	name   wal.Name
	src    Source
	staged Staged // nil: a file of this name stands there
	done   Pushed
}

// Pushed says what a parcel that is settled came upon.
func (p *Parcel) Pushed() Pushed { return p.done }

// Stage stores a file durably, without a name. src must stay as it is, and open,
// until the parcel is settled or dropped. encoding may be nil, or that of this
// file: then the parcel has a share of it. Errors are those of Push.
func (in *Intake) Stage(ctx context.Context, name wal.Name, src Source, encoding *Encoding) (*Parcel, error) {
	share := encoding.share(in.archive)
	defer share.leave()
	p := &Parcel{in: in, name: name, src: src}
	err := within(ctx, func(ctx context.Context) error {
		v, err := in.open(ctx)
		if err != nil {
			return err
		}
		p.view = v
		p.view.early = share.suits(v.id)
		if err := v.inspect(name, src); err != nil {
			return err
		}
		err = p.stage(ctx, name)
		p.view.early = nil // its bytes do not come again: who has to write later encodes the file anew
		return err
	})
	if err != nil {
		return nil, in.about(name, err)
	}
	return p, nil
}

func (in *Intake) about(name wal.Name, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("push %s: %w", name, in.archive.named(err))
}

// stage stages the file under a name, unless one stands there.
func (p *Parcel) stage(ctx context.Context, as wal.Name) error {
	p.done = Pushed{As: as, place: p.view.id.path(as)}
	if !p.view.isFar() {
		switch _, err := p.view.store.Stat(ctx, p.done.place); {
		case err == nil:
			return nil
		case !isAbsent(err):
			return err
		}
	}
	staged, err := p.write(ctx, as)
	if errors.Is(err, errStands) {
		return nil
	}
	if errors.Is(err, errUnfinished) && as == p.name {
		walk := p.done.Walk
		if err = p.stage(ctx, p.name.Partial()); err == nil {
			p.view.opts.Log.Warn("the WAL of this segment ends inside it: it is stored as .partial",
				"archive", p.view.name, "file", p.name, "at", walk.End, "reason", walk.Reason)
		}
		return err
	}
	if err == nil {
		p.staged = staged
	}
	return err
}

// write stores the file without a name; errStands if it turns out that one stands
// under it.
func (p *Parcel) write(ctx context.Context, as wal.Name) (Staged, error) {
	ctx, found := p.view.lookFor(ctx, p.done.place)
	defer found()
	return p.in.store.Stage(ctx, p.done.place, func(w io.Writer) error {
		var err error
		if p.done.Walk, err = p.view.write(ctx, &counting{w, &p.done.size}, p.name, p.src); err != nil || as != p.name {
			return err
		}
		return p.view.finished(ctx, p.name, p.done.Walk)
	})
}

// Publish gives the file its name, or settles with one that stands there. After
// an error nothing of it is to be seen, or all of it.
func (p *Parcel) Publish(ctx context.Context) error {
	return p.in.about(p.name, within(ctx, func(ctx context.Context) error {
		if p.staged != nil {
			err := p.staged.Publish(ctx)
			p.staged = nil
			if !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		done, err := p.view.settle(ctx, p.done.As, p.src)
		if err == nil {
			p.done = done
		}
		return err
	}))
}

// Drop gives up a file that was not published.
func (p *Parcel) Drop(ctx context.Context) {
	if p.staged == nil {
		return
	}
	// What stays is swept by somebody later.
	_ = within(ctx, p.staged.Drop)
	p.staged = nil
}

// Settle makes files that were published durable, and proves that they lie in the
// archive: of each an error or nil, in their order.
func (in *Intake) Settle(ctx context.Context, parcels []*Parcel) []error {
	errs := make([]error, len(parcels))
	if len(parcels) == 0 {
		return errs
	}
	each := make([]error, len(parcels))
	err := within(ctx, func(ctx context.Context) error { return in.settle(ctx, parcels, each) })
	for i, p := range parcels {
		switch {
		case err != nil:
			errs[i] = in.about(p.name, fmt.Errorf("stored, but not known to be durable: %w", err))
		case each[i] != nil:
			errs[i] = in.about(p.name, fmt.Errorf("stored, but where? %w", each[i]))
		}
	}
	return errs
}

// settle fills each with what is wrong with single files.
func (in *Intake) settle(ctx context.Context, parcels []*Parcel, each []error) error {
	if err := in.syncNames(ctx, parcels); err != nil {
		return err
	}
	// Once more: a file system that went away in between leaves an empty place
	// behind, and that is where the files would be now.
	questions := []func() error{func() error { return parcels[0].view.confirm(ctx) }}
	for i, p := range parcels {
		questions = append(questions, func() error { each[i] = p.view.stands(ctx, p.done); return nil })
	}
	if err := in.archive.together(questions...); err != nil {
		return err
	}
	for i, p := range parcels {
		p.done.archive = p.view.id.ID
		if each[i] == nil && p.view.opts.VerifyPuts && p.done.size >= 0 {
			each[i] = p.view.readBack(ctx, p.done.place, p.src)
		}
	}
	return nil
}

// syncNames syncs the directories of files, deepest first. That those have their
// own names durably is seen to each time that the door is opened: somebody may
// have made one and died before that.
func (in *Intake) syncNames(ctx context.Context, parcels []*Parcel) error {
	var dirs, above []string
	in.mu.Lock()
	for _, p := range parcels {
		dir := path.Dir(p.done.place)
		if p.done.size < 0 || slices.Contains(dirs, dir) { // a found one is durable already
			continue
		}
		dirs = append(dirs, dir)
		for up := dir; up != "." && !in.known[dir]; {
			up = path.Dir(up)
			if !slices.Contains(above, up) {
				above = append(above, up)
			}
		}
	}
	in.mu.Unlock()
	if err := in.store.SyncDirectories(ctx, append(slices.Clone(dirs), above...)...); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, dir := range dirs {
		in.known[dir] = true
	}
	return nil
}
