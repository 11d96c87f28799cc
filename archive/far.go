package archive

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"

	"pitr/archive/wal"
)

// isFar tells whether the store lies on another host. There each question takes
// as long as the way to it and back, so those that do not depend on each other
// are asked at the same time. A store that is near is asked one by one: that
// costs less, and what fails in a test fails in order.
func (a *Archive) isFar() bool {
	f, ok := a.store.(interface{ Far() bool })
	return ok && f.Far()
}

// together asks what does not depend on each other, and returns the first error
// in the order of the questions.
func (a *Archive) together(questions ...func() error) error {
	if !a.isFar() {
		for _, ask := range questions {
			if err := ask(); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, len(questions))
	var all sync.WaitGroup
	for i, ask := range questions {
		all.Go(func() { errs[i] = guarded(ask) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// openConfirmed is open, with proof that the files are there that belong to the
// identity. Far away the marker, which a tree has, is asked for before it is
// known that this is one.
func (a *Archive) openConfirmed(ctx context.Context) (view, error) {
	if !a.isFar() {
		v, err := a.open(ctx)
		if err == nil {
			err = v.confirm(ctx)
		}
		return v, err
	}
	var v view
	var found marker
	err := a.together(
		func() (err error) { v, err = a.open(ctx); return err },
		func() error { found = a.readMarker(ctx); return nil },
	)
	switch {
	case err != nil:
		return view{}, err
	case v.anonymous:
		err = v.confirmAnonymous(ctx)
	case v.id.Layout == Tree:
		err = v.check(found)
	}
	return v, err
}

// openMarked is open, for somebody who may have to prove something afterwards. Far
// away the marker is read at the same time, which takes no longer; what it says is
// of use only if a proof is needed.
func (a *Archive) openMarked(ctx context.Context) (view, error) {
	if !a.isFar() {
		return a.open(ctx)
	}
	var v view
	var found marker
	err := a.together(
		func() (err error) { v, err = a.open(ctx); return err },
		func() error { found = a.readMarker(ctx); return nil },
	)
	if err == nil && v.id.Layout == Tree {
		v.before = &found
	}
	return v, err
}

// opened is a file, or why it was not opened.
type opened struct {
	Object
	err error
}

// openWith opens an archive, in one of the ways to do that, and a file. Far away it
// does both at a time where the archive was opened before: it is a guess then where
// the file lies, and of use only if the identity, read anew, says the same.
func (a *Archive) openWith(ctx context.Context, name wal.Name, open func(context.Context) (view, error)) (view, opened, error) {
	var v view
	var file opened
	var guess string
	questions := []func() error{func() (err error) { v, err = open(ctx); return err }}
	if seen := a.seen.Load(); seen != nil && a.isFar() {
		guess, file.err = seen.path(name), errNoAnswer // unless it comes to an end
		questions = append(questions, func() error { file.Object, file.err = a.store.Open(ctx, guess); return nil })
	}
	err := a.together(questions...)
	if err == nil && v.id.path(name) == guess {
		return v, file, nil
	}
	if guess != "" && file.err == nil {
		_ = file.Close() // it was only read
	}
	if err != nil {
		return view{}, opened{}, err
	}
	a.seen.Store(&v.id)
	file.Object, file.err = a.store.Open(ctx, v.id.path(name))
	return v, file, nil
}

// stated is what was found under a name, or why nothing was.
type stated struct {
	fs.FileInfo
	err error
}

// statWith opens an archive and looks for a file, as openWith opens one.
func (a *Archive) statWith(ctx context.Context, name wal.Name) (view, stated, error) {
	var v view
	var file stated
	var guess string
	questions := []func() error{func() (err error) { v, err = a.open(ctx); return err }}
	if seen := a.seen.Load(); seen != nil && a.isFar() {
		guess, file.err = seen.path(name), errNoAnswer // unless it comes to an end
		questions = append(questions, func() error { file.FileInfo, file.err = a.store.Stat(ctx, guess); return nil })
	}
	err := a.together(questions...)
	if err != nil || v.id.path(name) == guess {
		return v, file, err
	}
	a.seen.Store(&v.id)
	file.FileInfo, file.err = a.store.Stat(ctx, v.id.path(name))
	return v, file, nil
}

// confirmBefore is confirm, by what the marker has said already if it was asked.
func (v view) confirmBefore(ctx context.Context) error {
	if v.before != nil {
		return v.check(*v.before)
	}
	return v.confirm(ctx)
}

// marker is what stands in wal/archive.id.
type marker struct {
	text []byte
	err  error
}

func (a *Archive) readMarker(ctx context.Context) marker {
	text, err := readSmall(ctx, a.store, path.Join(walDirectory, markerFile))
	return marker{text, err}
}

// errStands ends the put of a file that turns out to stand there.
var errStands = errors.New("it stands there already")

// keepFar puts a file while it finds out whether one stands there: nearly
// always there is none, and then nothing was lost by not waiting.
func (v view) keepFar(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	putting, found := v.lookFor(ctx, v.id.path(name))
	done, err := v.put(putting, name, src)
	looked := found()
	if errors.Is(err, errStands) {
		done, err = v.settle(ctx, name, src)
	}
	return done, errors.Join(err, looked)
}

// lookFor looks for a file of a far archive while it is being put. The context
// ends with errStands if one is there, also if it is this very put's: then it is
// found. over ends the look, waits for it, and tells if it panicked.
func (v view) lookFor(ctx context.Context, place string) (putting context.Context, over func() error) {
	if !v.isFar() {
		return ctx, func() error { return nil }
	}
	looking, end := context.WithCancel(ctx)
	putting, cancel := context.WithCancelCause(ctx)
	looked := make(chan error, 1)
	go func() {
		looked <- guarded(func() error {
			if _, err := v.store.Stat(looking, place); err == nil {
				cancel(errStands)
			}
			return nil
		})
	}()
	return putting, func() error {
		end()
		err := <-looked
		cancel(nil)
		return err
	}
}
