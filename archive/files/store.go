package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Store puts and gets files below the root of an FS. Goroutines, processes and
// hosts may use one tree at the same time.
type Store struct {
	fs     FS
	writer Writer
}

// NewStore returns the store over fsys. writer is who its temporary files say
// made them.
func NewStore(fsys FS, writer Writer) *Store {
	return &Store{fs: fsys, writer: writer}
}

// Put stores what write writes under name, durably, all or nothing. The parent
// directory is made if it is missing, its own parent must be there. It reports
// fs.ErrExist, after write has run, if the name is taken: nothing is changed
// then, and nothing is said about how durable the file that stands there is
// (see Sync). After any other error the name is free, or holds the whole file.
func (s *Store) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	temp := path.Join(tempDirectory(name), s.writer.NewTempName())
	names := s.namesOf(name)
	defer names.drop()
	err := s.writeTemp(ctx, name, temp, func(w io.Writer) error {
		// Not before: where the temporary file lies, these directories are.
		names.prepare(ctx)
		return write(w)
	})
	if err != nil {
		return fmt.Errorf("put %s: %w", name, errors.Join(err, s.dropTemp(ctx, temp)))
	}
	if _, err := s.publish(ctx, temp, name); err != nil {
		return fmt.Errorf("put %s: %w", name, errors.Join(err, s.dropTemp(ctx, temp)))
	}
	if err := names.sync(ctx); err != nil {
		return fmt.Errorf("put %s: stored, but not known to be durable: %w", name, err)
	}
	return nil
}

// publish moves a file to a free name. The directory of name is nearly always
// there, so it is made only when it turns out not to be: made tells that.
func (s *Store) publish(ctx context.Context, from, name string) (made bool, err error) {
	err = s.fs.Publish(ctx, from, name)
	if !errors.Is(err, fs.ErrNotExist) || path.Dir(name) == "." {
		return false, err
	}
	if err := s.makeDirectory(ctx, path.Dir(name)); err != nil {
		return false, err
	}
	return true, s.fs.Publish(ctx, from, name)
}

// makeDirectory makes a directory, but none above it: a missing one there may be
// a file system that is not mounted.
func (s *Store) makeDirectory(ctx context.Context, dir string) error {
	err := s.fs.Mkdir(ctx, dir)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (s *Store) writeTemp(ctx context.Context, name, temp string, write func(io.Writer) error) error {
	f, err := s.create(ctx, name, temp)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync: %w", err), f.Close())
	}
	return f.Close()
}

// create makes the temporary file of name, and the directory that it is to lie
// in if that is PendingDirectory or the one of name itself.
func (s *Store) create(ctx context.Context, name, temp string) (File, error) {
	f, err := s.fs.Create(ctx, temp)
	if dir := path.Dir(temp); errors.Is(err, fs.ErrNotExist) && (dir == PendingDirectory || dir == path.Dir(name)) {
		if err := s.makeDirectory(ctx, dir); err != nil {
			return nil, err
		}
		f, err = s.fs.Create(ctx, temp)
	}
	if errors.Is(err, fs.ErrExist) {
		// Of the temporary name: it says nothing about the one that counts.
		return nil, errors.New(err.Error())
	}
	return f, err
}

// dropTemp removes a temporary file of ours. It goes on when ctx has ended:
// cleaning up is what the time after the end is for.
func (s *Store) dropTemp(ctx context.Context, temp string) error {
	err := s.fs.Remove(context.WithoutCancel(ctx), temp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// names are the directories from that of a file up to the root, all of which
// are synced each time: another writer may have made one of them and died before
// it was durable, and with it goes everything below.
type names struct {
	fs   FS
	dirs []string
	// ready syncs them, where that was prepared; undo is for when it is not
	// to happen.
	ready func(context.Context) error
	undo  func()
}

func (s *Store) namesOf(name string) *names {
	n := &names{fs: s.fs, dirs: []string{path.Dir(name)}}
	for n.dirs[len(n.dirs)-1] != "." {
		n.dirs = append(n.dirs, path.Dir(n.dirs[len(n.dirs)-1]))
	}
	return n
}

// prepare begins what a far file system can do before it is time to sync.
func (n *names) prepare(ctx context.Context) {
	if far, ok := n.fs.(Far); ok {
		n.ready, n.undo = far.SyncLater(ctx, n.dirs...)
	}
}

func (n *names) drop() {
	if n.undo != nil {
		n.undo()
	}
}

func (n *names) sync(ctx context.Context) error {
	if n.ready != nil {
		return n.ready(ctx)
	}
	for _, dir := range n.dirs {
		if err := n.fs.Sync(ctx, dir); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
	}
	return nil
}

// syncNames syncs the directories of a file that stands there.
func (s *Store) syncNames(ctx context.Context, name string) error {
	n := s.namesOf(name)
	n.prepare(ctx)
	defer n.drop()
	return n.sync(ctx)
}

// Sync makes a file that was found, not put, as durable as a put one.
func (s *Store) Sync(ctx context.Context, name string) error {
	if err := s.fs.Sync(ctx, name); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return s.syncNames(ctx, name)
}

// Open opens a stored file. fs.ErrNotExist says that the file system said so,
// not that it is the right one.
func (s *Store) Open(ctx context.Context, name string) (Object, error) {
	return s.fs.Open(ctx, name)
}

// Far tells whether asking costs time rather than work, so that questions that
// do not depend on each other are best asked at the same time.
func (s *Store) Far() bool {
	_, far := s.fs.(Far)
	return far
}

// Stat describes a stored file or directory.
func (s *Store) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	return s.fs.Stat(ctx, name)
}

// List lists a directory, in any order, without temporary files.
func (s *Store) List(ctx context.Context, dir string) ([]fs.DirEntry, error) {
	entries, err := s.fs.ReadDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	kept := entries[:0]
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), TempPrefix) {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

// Remove removes a stored file. That it is gone is durable with the next sync
// of its directory: one that comes back after a loss of power is removed again
// by whoever wanted it gone, and until then is one file too many.
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.fs.Remove(ctx, name)
}

// Move gives a stored file another, free name, durably.
func (s *Store) Move(ctx context.Context, from, to string) error {
	if _, err := s.publish(ctx, from, to); err != nil {
		return fmt.Errorf("move %s to %s: %w", from, to, err)
	}
	// The new name first: between the two syncs the file has both, not none.
	if err := s.syncNames(ctx, to); err != nil {
		return err
	}
	return s.syncNames(ctx, from)
}

// PendingDirectory holds the temporary files of objects in the root, which may
// hold so many files that to look there for dead writers' ones takes long.
const PendingDirectory = TempPrefix + "pending"

// tempDirectory is where the temporary file of an object lies: in the first
// element of its name, so that publishing never crosses file systems.
func tempDirectory(name string) string {
	top, _, nested := strings.Cut(name, "/")
	if !nested {
		return PendingDirectory
	}
	return top
}
