package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
)

// Staged is a file that is stored, whole and durably, under a temporary name.
// One goroutine uses it.
type Staged struct {
	store      *Store
	temp, name string
}

// Stage is the first half of Put: what write writes is durable on return, and
// nothing is to be seen of it. Publish or Drop must follow.
func (s *Store) Stage(ctx context.Context, name string, write func(io.Writer) error) (*Staged, error) {
	temp := path.Join(tempDirectory(name), s.writer.NewTempName())
	if err := s.writeTemp(ctx, name, temp, write); err != nil {
		return nil, fmt.Errorf("put %s: %w", name, errors.Join(err, s.dropTemp(ctx, temp)))
	}
	return &Staged{s, temp, name}, nil
}

// Publish gives the file its name. fs.ErrExist if that is taken: nothing is
// changed then. It is durable after SyncDirectories of the name's directory. After any
// other error the name is free, or holds the whole file. It is called once.
func (f *Staged) Publish(ctx context.Context) error {
	err := f.store.publishKnown(ctx, f.temp, f.name)
	if err != nil {
		return fmt.Errorf("put %s: %w", f.name, errors.Join(err, f.Drop(ctx)))
	}
	return nil
}

// publishKnown is publish, and where that had to make the directory, its own name
// is durable on return.
func (s *Store) publishKnown(ctx context.Context, from, name string) error {
	made, err := s.publish(ctx, from, name)
	if err != nil || !made {
		return err
	}
	return s.syncNames(ctx, path.Dir(name))
}

// Drop removes the temporary file of one that shall not be published.
func (f *Staged) Drop(ctx context.Context) error { return f.store.dropTemp(ctx, f.temp) }

// SyncDirectories makes the names in directories durable; where that takes time
// rather than work, at the same time.
func (s *Store) SyncDirectories(ctx context.Context, dirs ...string) error {
	errs := make([]error, len(dirs))
	one := func(i int) {
		if err := s.fs.Sync(ctx, dirs[i]); err != nil {
			errs[i] = fmt.Errorf("sync directory %s: %w", dirs[i], err)
		}
	}
	if !s.Far() {
		for i := range dirs {
			one(i)
		}
		return errors.Join(errs...)
	}
	var all sync.WaitGroup
	for i := range dirs {
		all.Go(func() { one(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
