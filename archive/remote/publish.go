package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"pitr/archive"
)

// Publish moves a file to a free name. What became of it when the connection
// breaks is not known.
func (f *FS) Publish(ctx context.Context, from, to string) error {
	_, err := once(ctx, f, func(s *session) (nothing, error) {
		if s.link {
			return nothing{}, f.publishByLink(s, from, to)
		}
		return nothing{}, f.publishByRename(s, from, to)
	})
	return about("publish", to, err)
}

// publishByLink leaves it to the background to remove the old name: nobody needs
// to wait for that.
func (f *FS) publishByLink(s *session, from, to string) error {
	if err := f.named(s, from, to, s.client.Link); err != nil {
		return err
	}
	s.aside(func() { _ = s.client.Remove(f.path(from)) }) // one that stays is swept later
	return nil
}

func (f *FS) publishByRename(s *session, from, to string) error {
	if _, err := s.lstat(f.path(to)); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return unproven(err)
	}
	return f.named(s, from, to, s.client.Rename)
}

// named gives a file a free name, and finds out why not if it gets none: the
// server does not say. fs.ErrNotExist: the directory of the name is missing.
func (f *FS) named(s *session, from, to string, give func(from, to string) error) error {
	const tries = 3 // somebody else may be making the directory
	var err error
	for range tries {
		err = give(f.path(from), f.path(to))
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if why := f.nowhere(s, from, path.Dir(to), err); !errors.Is(why, errAppeared) {
			return why
		}
	}
	if err == nil || isLost(err) {
		return err
	}
	if _, there := s.lstat(f.path(to)); there == nil {
		return fs.ErrExist
	} else if !errors.Is(there, fs.ErrNotExist) {
		return unproven(there)
	}
	return f.refused(s, from, err)
}

// nowhere is fs.ErrNotExist if dir is missing; errAppeared if it is there, and
// so is the file that wants to go there.
func (f *FS) nowhere(s *session, from, dir string, err error) error {
	if _, missing := s.stat(f.path(dir)); errors.Is(missing, fs.ErrNotExist) {
		return f.absence(s, dir, missing)
	}
	if _, gone := s.lstat(f.path(from)); gone != nil {
		return fmt.Errorf("%s is gone: %w", from, unproven(err))
	}
	return errAppeared
}

// refused explains why a free name was not given.
func (f *FS) refused(s *session, from string, err error) error {
	if s.link && (isUnsupported(err) || errors.Is(err, fs.ErrPermission)) {
		if _, mine := s.lstat(f.path(from)); mine == nil {
			return archive.WithHint(fmt.Errorf("%w, or this user may not write there: %w", ErrNoLinks, err), "without hard links nothing can be protected from being replaced: put the archive on another file system (not FAT, exFAT or most FUSE ones)")
		}
	}
	if isFailure(err) {
		return f.failure(s, err)
	}
	return unproven(err)
}
