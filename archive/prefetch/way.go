package prefetch

import (
	"errors"
	"slices"
	"sync"

	"pitr/archive"
)

// Source is the archives, over connections that nobody else uses.
type Source struct {
	Archives archive.Set
	// Close ends the connections. It is called once nobody uses them.
	Close func()
}

// way is how the archives are asked. After a doubt the next one who asks does so over
// another connection: that one may be dead in a way that only its silence tells.
type way struct {
	mu  sync.Mutex // guards now, and users of each route
	now *route
}

// route is one Source in use.
type route struct {
	Source
	users int
}

// use returns the present route, or one that connect makes. The caller gives it back.
func (w *way) use(connect func() Source) *route {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now == nil {
		w.now = &route{Source: connect(), users: 1} // for w itself
	}
	w.now.users++
	return w.now
}

// back takes a route back, and what it came to.
func (w *way) back(r *route, err error) {
	w.mu.Lock()
	if r == w.now && isDoubt(err) {
		w.now = nil
		r.users--
	}
	r.users--
	unused := r.users == 0
	w.mu.Unlock()
	if unused {
		r.Close()
	}
}

// close gives the present route up.
func (w *way) close() {
	w.mu.Lock()
	r := w.now
	if w.now = nil; r != nil {
		r.users--
	}
	unused := r != nil && r.users == 0
	w.mu.Unlock()
	if unused {
		r.Close()
	}
}

// isDoubt tells whether an archive could not be asked: everything but what it said.
func isDoubt(err error) bool {
	if err == nil || errors.Is(err, archive.ErrAbsent) || errors.Is(err, archive.ErrUnsettled) {
		return false
	}
	said := []error{archive.ErrGap, archive.ErrDamaged, archive.ErrIdentity, archive.ErrNoIdentity}
	return slices.ContainsFunc(archive.Verdicts(err), func(err error) bool {
		return !slices.ContainsFunc(said, func(one error) bool { return errors.Is(err, one) })
	})
}
