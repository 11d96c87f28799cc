package ship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"pitr/archive"
	"pitr/archive/wal"
)

// convoy is files in the archiver's order, from one that PostgreSQL asked for on,
// on their way into the archives. It ends with the first one that fails, or when
// it is stopped, and then another one begins.
type convoy struct {
	*Ahead
	ctx    context.Context // ends when the convoy is stopped: what is staged is dropped
	cancel context.CancelCauseFunc
	over   chan struct{} // closed when nothing of the convoy is under way any more
	moved  chan struct{} // has a token when there may be room for one more
	tracks []*track

	mu    sync.Mutex // guards the rest
	items []*item    // from the last one that was asked for on
	bad   bool       // one has failed
}

// errBehind is what becomes of files behind one that failed, or that is not the
// one that PostgreSQL asked for.
var errBehind = errors.New("not pushed: the file before it has not arrived")

// begin begins a convoy with a file.
func (a *Ahead) begin(name wal.Name, f File) (*convoy, *item) {
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &convoy{Ahead: a, ctx: ctx, cancel: cancel, over: make(chan struct{}), moved: make(chan struct{}, 1)}
	for i, w := range a.ways {
		l.tracks = append(l.tracks, &track{convoy: l, way: w, i: i, items: make(chan *item, width+1), settling: make(chan arrival, width+1)})
	}
	first := l.newItem(name, f)
	l.items = []*item{first}
	careful := a.careful
	go l.run(first, careful)
	return l, first
}

func (l *convoy) newItem(name wal.Name, f File) *item {
	n := len(l.tracks)
	it := &item{
		name: name, file: f, facts: f.Facts(), done: make(chan struct{}), open: n,
		cancel: make([]context.CancelCauseFunc, n), pushed: make([]archive.Pushed, n), errs: make([]error, n),
	}
	for range l.tracks {
		it.steps = append(it.steps, make(chan step, 1))
	}
	return it
}

// stop ends the convoy. What is being published comes to its end.
func (l *convoy) stop() { l.cancel(errBehind) }

// fail says that a file has failed: none is added any more.
func (l *convoy) fail() {
	l.mu.Lock()
	l.bad = true
	l.mu.Unlock()
	l.wake()
}

func (l *convoy) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad
}

func (l *convoy) wake() {
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

func (l *convoy) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.underway() > 0
}

// underway counts the files that have not arrived. l.mu is held.
func (l *convoy) underway() int {
	n := 0
	for _, it := range l.items {
		if !it.isDone() {
			n++
		}
	}
	return n
}

// take returns the file's item, and makes room behind it. nil if there is none,
// if it has failed, or if the file is another one by now.
func (l *convoy) take(name wal.Name, facts any) *item {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, it := range l.items {
		if it.name != name {
			continue
		}
		if it.facts != facts || it.isDone() && (it.hasFailed() || it.isOld()) {
			return nil
		}
		l.items = l.items[i:]
		l.wake()
		return it
	}
	return nil
}

// run brings the files on their way, and ends when all of them have an answer.
func (l *convoy) run(first *item, careful bool) {
	defer close(l.over)
	var tracks sync.WaitGroup
	for _, t := range l.tracks {
		tracks.Go(t.publish)
		tracks.Go(t.settle)
	}
	l.launch(first)
	if careful {
		<-first.done
	}
	l.feed(first.name)
	for _, t := range l.tracks {
		close(t.items)
	}
	tracks.Wait()
}

// feed adds the files that follow on the same timeline, as long as there is room.
// Another one begins with its history, which PostgreSQL asks for first: if that is
// another server's, nothing of ours may lie behind it.
func (l *convoy) feed(last wal.Name) {
	var names []wal.Name
	for l.ctx.Err() == nil && !l.failed() {
		var err error
		if l.room() && len(names) == 0 {
			if names, err = l.WAL.Ready(l.ctx, last, listed); err != nil {
				l.Log.Debug("what else waits to be archived cannot be seen", "error", err)
			}
		}
		if len(names) == 0 || !l.room() {
			select {
			case <-l.moved:
			case <-l.ctx.Done():
			}
			continue
		}
		if names[0].Timeline() != last.Timeline() {
			return
		}
		f, err := l.WAL.Open(names[0])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// PostgreSQL leaves the mark of a file that is gone, and passes over it.
			last, names = names[0], names[1:]
			continue
		case err != nil:
			// Whoever goes past it leaves a hole. It is told when it is asked for.
			l.Log.Debug("a file that waits cannot be opened", "file", names[0], "error", err)
			return
		}
		it := l.newItem(names[0], f)
		last, names = names[0], names[1:]
		l.mu.Lock()
		l.items = append(l.items, it)
		l.mu.Unlock()
		l.launch(it)
	}
}

// room tells whether one more file may be on its way.
func (l *convoy) room() bool {
	most := width
	for _, t := range l.tracks {
		most = min(most, t.way.width(l.Budget))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.items) <= lead && l.underway() < most
}

// launch begins to stage a file for every archive.
func (l *convoy) launch(it *item) {
	go func() {
		<-it.done
		l.wake()
	}()
	var wanted archive.Set
	stage := make([]func(), len(l.tracks))
	for i, t := range l.tracks {
		if err := t.way.down(); err != nil {
			it.steps[i] <- step{err: fmt.Errorf("push %s: archive %s: %w", it.name, t.way.Archive.Name(), err)}
			continue
		}
		ctx, cancel := context.WithCancelCause(l.ctx)
		it.cancel[i] = cancel
		if s, ok := t.way.has(it); ok {
			stage[i] = func() { t.recall(ctx, it, s) }
			continue
		}
		compresses := t.way.Intake.Compresses()
		if compresses {
			wanted = append(wanted, t.way.Archive)
		}
		stage[i] = func() { it.steps[i] <- t.stage(ctx, it, compresses) }
	}
	it.enc = wanted.Encode(l.ctx, it.name, it.file)
	for i, t := range l.tracks {
		if stage[i] != nil {
			go stage[i]()
		}
		t.items <- it
	}
}
