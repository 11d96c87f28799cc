package fusefs

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

const (
	// patience is how long an archive may keep silent.
	patience = 30 * time.Second
	// firstPause and longestPause are between two tries.
	firstPause   = 200 * time.Millisecond
	longestPause = 3 * time.Second
	// mostFetches is how many files are fetched at the same time. Each takes some
	// megabytes of memory.
	mostFetches = 5
	// largest is the size of a segment that is fetched whole. A larger one is read in
	// parts if it is compressed.
	largest = 64 << 20
)

// source asks the archives, and keeps what it gets.
type source struct {
	Options
	life   *life
	cache  *cache
	health *health
	slots  chan struct{} // full while mostFetches are under way
	limit  atomic.Int64  // largest, or less in a test

	stats    *flights[wal.Name, archive.Found]
	contents *flights[storedFile, *entry]
	aheads   *flights[wal.Name, struct{}]
	listings lister
	asides   *flights[struct{}, []archive.Aside]
	parts    *parts
	ahead    ahead
	sights   sights
	silent   atomic.Int64 // until when the archives are taken to be so: see silence
}

func newSource(o Options, l *life, c *cache, h *health) *source {
	s := &source{Options: o, life: l, cache: c, health: h, slots: make(chan struct{}, mostFetches)}
	s.limit.Store(largest)
	s.stats = newFlights[wal.Name, archive.Found](l, nil)
	s.contents = newFlights[storedFile](l, c.release)
	s.aheads = newFlights[wal.Name, struct{}](l, nil)
	s.asides = newFlights[struct{}, []archive.Aside](l, nil)
	s.listings.life = l
	s.parts = newParts(l)
	return s
}

// insist asks until there is an answer, or no hope of one.
func (s *source) insist(cancel <-chan struct{}, what string, ask func() error) syscall.Errno {
	over := time.Now().Add(s.Retry)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := ask()
		if errno, final := s.verdict(what, err); final {
			return errno
		}
		s.health.wait(what, err)
		if s.OnError == Fail || time.Now().Add(pause).After(over) {
			s.health.failures.Add(1)
			s.Log.Error("given up", "asked", what, "error", err)
			return syscall.EIO
		}
		select {
		case <-time.After(pause):
		case <-cancel:
			return syscall.EINTR
		case <-s.life.ctx.Done():
			return syscall.EIO
		}
	}
}

// verdict tells what an error is to a program, and whether asking again is of no
// use.
func (s *source) verdict(what string, err error) (errno syscall.Errno, final bool) {
	switch {
	case err == nil:
		s.health.well()
		return 0, true
	case errors.Is(err, errInterrupted):
		return syscall.EINTR, true
	case errors.Is(err, errClosed):
		return syscall.EIO, true
	case errors.Is(err, archive.ErrAbsent), errors.Is(err, archive.ErrGap):
		s.health.well()
		return syscall.ENOENT, true
	case hopeless(err):
		s.health.damaged.Add(1)
		s.health.failures.Add(1)
		s.Log.Error("not served", "asked", what, "error", err)
		return syscall.EIO, true
	}
	return 0, false
}

// hopeless tells whether time mends nothing: every archive that was in doubt holds
// something else than what was stored, or is another cluster's.
func hopeless(err error) bool {
	return !slices.ContainsFunc(archive.Verdicts(err), func(err error) bool {
		return !errors.Is(err, archive.ErrDamaged) && !errors.Is(err, archive.ErrIdentity)
	})
}

// content returns the whole file of a name, verified. The caller releases it.
func (s *source) content(cancel <-chan struct{}, name wal.Name, seen sight) (e *entry, errno syscall.Errno) {
	if e := s.cache.take(name); e != nil {
		if s.cache.serves(e, seen.stamp) {
			s.health.hits.Add(1)
			return e, 0
		}
		s.cache.release(e)
	}
	errno = s.insist(cancel, name.String(), func() (err error) {
		e, err = s.contents.do(cancel, storedFile{name, seen.stamp}, s.getWhole(name, seen), s.cache.share)
		return err
	})
	if errno == syscall.ENOENT {
		errno = syscall.ESTALE // it was there: the kernel looks for the name again
	}
	return e, errno
}

// getWhole returns what gets a file from the cache or from the archives.
func (s *source) getWhole(name wal.Name, seen sight) func(context.Context) (*entry, error) {
	return func(ctx context.Context) (*entry, error) { return s.whole(ctx, name, seen) }
}

func (s *source) whole(ctx context.Context, name wal.Name, seen sight) (*entry, error) {
	if e := s.cache.take(name); e != nil {
		if s.cache.serves(e, seen.stamp) {
			s.health.hits.Add(1)
			return e, nil
		}
		if s.cache.isOf(e, seen.stamp) {
			if s.cache.prove(e) {
				s.health.hits.Add(1)
				return e, nil
			}
			s.Log.Warn("a file in the cache was torn", "file", name)
		}
		s.cache.release(e)
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, errClosed
	}
	defer func() { <-s.slots }()
	e, err := s.fetch(ctx, name, seen)
	if errors.Is(err, syscall.ENOSPC) {
		s.cache.clear()
		e, err = s.fetch(ctx, name, seen)
	}
	return e, err
}

// fetch fetches a file into the cache. What is there by now may be newer than what was
// seen; then that is found out when it is opened the next time, and it is fetched again.
func (s *source) fetch(ctx context.Context, name wal.Name, seen sight) (*entry, error) {
	s.health.fetches.Add(1)
	var got delivery
	_, err := s.Archives.Fetch(ctx, name, patience, func(write func(io.Writer) error) error {
		d, err := s.cache.create(seen.size)
		if err != nil {
			return err
		}
		if err := write(d); err != nil {
			d.discard()
			return err
		}
		e, err := d.keep(name, seen)
		if err != nil {
			d.discard()
			return err
		}
		if !got.put(e) {
			s.cache.release(e)
		}
		return nil
	})
	e := got.take()
	switch {
	case err != nil && e != nil:
		s.cache.release(e)
		return nil, err
	case err != nil:
		return nil, err
	}
	s.health.fetchedBytes.Add(e.size)
	return e, nil
}

// delivery takes a file from a fetch, which may have been left behind meanwhile.
type delivery struct {
	mu   sync.Mutex // guards the rest
	e    *entry
	over bool
}

func (d *delivery) put(e *entry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over || d.e != nil {
		return false
	}
	d.e = e
	return true
}

func (d *delivery) take() *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	return d.e
}

// names lists the archives.
func (s *source) names(cancel <-chan struct{}) (l *listing, errno syscall.Errno) {
	s.health.listings.Add(1)
	errno = s.insist(cancel, "the listing", func() (err error) {
		l, err = s.listings.get(cancel, s.Archives.Names)
		return err
	})
	if errno == syscall.ENOENT {
		errno = syscall.EIO // nothing proves that of a directory
	}
	return l, errno
}

// setAside lists what was set aside.
func (s *source) setAside(cancel <-chan struct{}) (all []archive.Aside, errno syscall.Errno) {
	errno = s.insist(cancel, "what was set aside", func() (err error) {
		all, err = s.asides.do(cancel, struct{}{}, s.Archives.SetAside, nil)
		return err
	})
	if errno == syscall.ENOENT {
		errno = syscall.EIO
	}
	return all, errno
}
