package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"
)

// Probed is what a probe found besides that all is well.
type Probed struct {
	// Clock is how far the clock that dates the archive's files is ahead of
	// ours, in whole seconds; negative if it is behind.
	Clock time.Duration
}

// Probe proves, by trying, that the archive keeps its promises where it lies: a
// file is put and synced, a second one under the same name is refused and
// leaves the first as it was. Nothing is left behind.
func (a *Archive) Probe(ctx context.Context) (Probed, error) {
	return answer(ctx, a, func(ctx context.Context) (Probed, error) {
		v, err := a.openWritable(ctx)
		if err != nil {
			return Probed{}, err
		}
		return v.probe(ctx, path.Join(v.id.top(), ".tmp-probe-"+newID()))
	})
}

func (v view) probe(ctx context.Context, name string) (found Probed, err error) {
	before := v.opts.Now()
	if err := putSmall(ctx, v.store, name, []byte("first")); err != nil {
		return found, fmt.Errorf("a file cannot be stored: %w", err)
	}
	after := v.opts.Now()
	defer func() {
		err = errors.Join(err, v.store.Remove(context.WithoutCancel(ctx), name))
	}()
	if err := putSmall(ctx, v.store, name, []byte("second")); !errors.Is(err, fs.ErrExist) {
		return found, fmt.Errorf("a file that exists was not protected: the second put said %v", err)
	}
	got, err := readSmall(ctx, v.store, name)
	if err == nil && string(got) != "first" {
		err = errors.New("a file that exists was replaced")
	}
	if err != nil {
		return found, err
	}
	info, err := v.store.Stat(ctx, name)
	if err == nil {
		found.Clock = apart(info.ModTime(), before, after)
	}
	return found, err
}

// apart is by how much a time lies outside of a span. What dates files may know
// whole seconds only.
func apart(t, from, to time.Time) time.Duration {
	switch {
	case t.Before(from.Truncate(time.Second)):
		return t.Sub(from).Truncate(time.Second)
	case t.After(to):
		return t.Sub(to).Truncate(time.Second)
	}
	return 0
}
