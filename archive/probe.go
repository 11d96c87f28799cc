package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// Probe proves, by trying, that the archive keeps its promises where it lies: a
// file is put and synced, a second one under the same name is refused and
// leaves the first as it was. Nothing is left behind.
func (a *Archive) Probe(ctx context.Context) error {
	return a.named(within(ctx, func(ctx context.Context) error {
		v, err := a.openWritable(ctx)
		if err != nil {
			return err
		}
		return v.probe(ctx, path.Join(v.id.top(), ".tmp-probe-"+newID()))
	}))
}

func (v view) probe(ctx context.Context, name string) (err error) {
	if err := putSmall(ctx, v.store, name, []byte("first")); err != nil {
		return fmt.Errorf("a file cannot be stored: %w", err)
	}
	defer func() {
		err = errors.Join(err, v.store.Remove(context.WithoutCancel(ctx), name))
	}()
	if err := putSmall(ctx, v.store, name, []byte("second")); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("a file that exists was not protected: the second put said %v", err)
	}
	got, err := readSmall(ctx, v.store, name)
	if err == nil && string(got) != "first" {
		err = errors.New("a file that exists was replaced")
	}
	return err
}
