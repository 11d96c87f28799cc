package fusefs

import (
	"context"
	"slices"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// listing is what the archives held at some time. It is shared, and never changed.
type listing struct{ files []listed }

// listed is one file.
type listed struct {
	name wal.Name
	sight
}

// unseen is the size of a file that the listing tells nothing of but its name.
const unseen = -1

func compact(all []archive.Listed) []listed {
	files := make([]listed, len(all))
	for i, l := range all {
		files[i] = listed{l.Name, sight{size: unseen}}
		if !l.ModTime.IsZero() {
			files[i].sight = sightOf(l.Found)
		}
	}
	return files
}

// listPatience is how long a listing may take.
const listPatience = 5 * time.Minute

// lister lists once for all who ask at the same time. One listing only is under way
// at a time, and nobody gets one that began before he asked: what was stored before
// is in it.
type lister struct {
	life *life

	mu      sync.Mutex // guards the rest
	running bool
	next    *pending // that will begin when the one under way has ended
	last    *listing
}

// pending is a listing that several wait for.
type pending struct {
	done    chan struct{} // closed when the rest is there
	listing *listing
	err     error
}

func (l *lister) get(cancel <-chan struct{}, ask func(context.Context) ([]archive.Listed, error)) (*listing, error) {
	p := l.join(ask)
	select {
	case <-p.done:
		return p.listing, p.err
	case <-cancel:
		return nil, errInterrupted
	case <-l.life.ctx.Done():
		return nil, errClosed
	}
}

func (l *lister) join(ask func(context.Context) ([]archive.Listed, error)) *pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil {
		l.next = &pending{done: make(chan struct{})}
	}
	p := l.next
	if !l.running {
		l.begin(ask)
	}
	return p
}

// begin starts the next listing. mu is held.
func (l *lister) begin(ask func(context.Context) ([]archive.Listed, error)) {
	p := l.next
	l.next, l.running = nil, l.life.start(func() { l.run(p, ask) })
}

func (l *lister) run(p *pending, ask func(context.Context) ([]archive.Listed, error)) {
	ctx, stop := context.WithTimeout(l.life.ctx, listPatience)
	defer stop()
	all, err := ask(ctx)
	files := compact(all)
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.err = err; err == nil {
		if l.last == nil || !slices.Equal(l.last.files, files) {
			l.last = &listing{files}
		}
		p.listing = l.last
	}
	close(p.done)
	if l.running = false; l.next != nil {
		l.begin(ask)
	}
}
