package fusefs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

const (
	// brief is how long the archives are waited for, if the cache has an answer.
	brief = 2 * time.Second
	// silence is how long after that they are not waited for again.
	silence = 10 * time.Second
)

// stat looks for a file by its name. ENOENT is proven. What was read ahead was just
// looked for: a reader in sequence, far from the archive, would wait for nothing else.
func (s *source) stat(cancel <-chan struct{}, name wal.Name) (sight, syscall.Errno) {
	if seen, ok := s.sights.ahead(name); ok {
		return seen, 0
	}
	at := time.Now()
	seen, errno := s.look(cancel, name)
	if errno == 0 {
		s.sights.put(name, lately{sight: seen, at: at})
	}
	return seen, errno
}

// confirm is 0 if a name still has what was seen: an operator may have set it aside, or
// pushed another file. ESTALE if it has not.
func (s *source) confirm(cancel <-chan struct{}, name wal.Name, known sight) syscall.Errno {
	if seen, ok := s.sights.use(name); ok && seen.stamp == known.stamp {
		return 0
	}
	seen, errno := s.look(cancel, name)
	if errno == syscall.ENOENT || errno == 0 && seen.stamp != known.stamp {
		errno = syscall.ESTALE
	}
	return errno
}

// look asks the archives for a name. While they cannot be asked, what is in the cache
// is as it was.
func (s *source) look(cancel <-chan struct{}, name wal.Name) (seen sight, errno syscall.Errno) {
	s.health.lookups.Add(1)
	if s.cache.has(name) {
		seen, errno, ok := s.lookBriefly(cancel, name)
		if ok {
			return seen, errno
		}
	}
	errno = s.insist(cancel, name.String(), func() (err error) {
		seen, err = s.ask(nil, cancel, name)
		return err
	})
	return seen, errno
}

// lookBriefly asks the archives, and then the cache. ok is whether one of them knew.
func (s *source) lookBriefly(cancel <-chan struct{}, name wal.Name) (seen sight, errno syscall.Errno, ok bool) {
	err := errLate
	if time.Now().UnixNano() > s.silent.Load() {
		late := time.NewTimer(brief)
		defer late.Stop()
		if seen, err = s.ask(late.C, cancel, name); errors.Is(err, errLate) {
			s.silent.Store(time.Now().Add(silence).UnixNano())
		}
	}
	if errno, final := s.verdict(name.String(), err); final {
		return seen, errno, true
	}
	seen, ok = s.cache.remembers(name)
	return seen, 0, ok
}

// ask asks the archives for a name, until it is late, and tells the cache.
func (s *source) ask(late <-chan time.Time, cancel <-chan struct{}, name wal.Name) (sight, error) {
	found, err := s.stats.doUntil(late, cancel, name, func(ctx context.Context) (archive.Found, error) {
		ctx, stop := context.WithTimeout(ctx, patience)
		defer stop()
		return s.Archives.Stat(ctx, name)
	}, nil)
	if errors.Is(err, archive.ErrAbsent) {
		s.cache.drop(name)
	}
	if err != nil {
		return sight{}, err
	}
	seen := sightOf(found)
	s.cache.told(name, seen.stamp)
	return seen, nil
}
