package prefetch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// Reader fetches what it is asked for, and the segments after it. Goroutines may
// share it. Its fields are set before it is used.
type Reader struct {
	// Connect makes a way to the archives; nothing is connected yet. There are two:
	// what somebody waits for does not stand behind what nobody has asked for.
	Connect func() Source
	Size    wal.SegmentSize
	// Place makes a file without a name, where what is fetched can lie.
	Place func() (*os.File, error)
	// Room is how many segments may be kept, when so many are: the disk may be
	// nearly full.
	Room func(held int) int
	Log  *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	workers sync.WaitGroup
	asked   way // for what is asked for
	ahead   way // for what is not

	mu     sync.Mutex // guards what follows; not held while something is fetched
	closed bool
	asking int           // questions that are being fetched
	took   time.Duration // by the last segment that was fetched ahead; 0: none was
	held   map[wal.Name]*segment
	line   line
	last   wal.Name // the segment that was asked for last
	// window is how many segments after the last one are wanted.
	window int
	// again is a segment that was handed over and will be asked for once more.
	again wal.Name
	// end is where nothing more was found, or could be read, and since when.
	end   wal.SegmentNumber
	ended time.Time
	taken int // that were ready when they were asked for
}

const (
	// parallel is how many segments are fetched at a time, where one takes less than
	// quick. Where it takes longer the line is full with one or two: more would only
	// make the next one late.
	parallel = 4
	quick    = time.Second

	// first is how many are wanted after the first one. It doubles with each that
	// follows the one before.
	first = 2

	// patience is how long to wait for a byte of what nobody has asked for.
	patience = 5 * time.Second

	// rest is after how long the place where nothing more was found is looked at
	// again, if nobody asks for it.
	rest = 5 * time.Second
)

// Get returns a file, which the caller closes, and the archive it came from.
// Errors are those of archive.Set.Fetch. The call waits for the next byte as long
// as told.
func (r *Reader) Get(ctx context.Context, name wal.Name, wait time.Duration) (*os.File, string, error) {
	if s := r.ask(name); s != nil {
		began := time.Now()
		if err := s.wait(ctx, min(wait/2, patience)); err != nil {
			return nil, "", err
		}
		if f := r.take(name, s); f != nil {
			return f, s.from, nil
		}
		// It hangs, or did not work: over another connection, in the time that is left.
		wait -= min(time.Since(began), wait/2)
	}
	r.question(1)
	f, from, err := r.fetch(&r.asked, nil, func(set archive.Set, deliver archive.Deliver) (string, error) {
		return set.Fetch(ctx, name, wait, deliver)
	})
	r.question(-1)
	if err == nil {
		r.given(name, f)
	}
	return f, from, err
}

// question counts what is being asked: nothing more is fetched ahead meanwhile.
func (r *Reader) question(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking += n
}

// given takes note of a file that was fetched for a question, and goes on.
func (r *Reader) given(name wal.Name, f *os.File) {
	h, known := historyIn(name, f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if known {
		r.line, r.ended = line{size: r.Size, history: h}, time.Time{}
	}
	if name == r.last {
		r.keep(r.next)
	}
	r.more()
}

// Start fetches what comes after a segment that somebody else was given.
func (r *Reader) Start(after wal.Name) {
	r.ask(after)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.more()
}

// Warm connects for the questions that will come, and returns when that is done.
// Nobody depends on it.
func (r *Reader) Warm(ctx context.Context) {
	to := r.asked.use(r.Connect)
	var all error
	for _, a := range to.Archives {
		_, err := a.Identity(ctx)
		all = errors.Join(all, err)
	}
	r.asked.back(to, all)
}

// Ending says, before name is asked for, that a recovery asks, which ends where the
// archive does. It reads the last segment again then, and so does the server that
// comes out of it (FinishWalRecovery in xlogrecovery.c).
func (r *Reader) Ending(name wal.Name) {
	number, err := name.Number(r.Size)
	r.mu.Lock()
	defer r.mu.Unlock()
	before, beforeErr := r.last.Number(r.Size)
	if errors.Join(err, beforeErr) != nil || before+1 != number || number != r.end || r.endedStill(before).IsZero() {
		return
	}
	r.again = r.last
	r.beginAgain()
}

// beginAgain fetches a segment that was handed over already.
func (r *Reader) beginAgain() {
	number, err := r.again.Number(r.Size)
	if err == nil && r.held[r.again] == nil && !r.closed && len(r.held) < r.Room(len(r.held)) {
		r.begin(number, []wal.Name{r.again})
	}
}

// Held is how many segments are ready or under way, and taken how many were when
// they were asked for.
func (r *Reader) Held() (held, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held), r.taken
}

// Forget drops what is held: nobody has asked for it for a while.
func (r *Reader) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.again, r.window = wal.Name{}, wal.Name{}, 0
	for name := range r.held {
		r.drop(name)
	}
}

// Close drops everything and waits until nothing is under way any more.
func (r *Reader) Close() {
	r.mu.Lock()
	r.closed = true
	for name := range r.held {
		r.drop(name)
	}
	r.mu.Unlock()
	r.workers.Wait()
	r.asked.close()
	r.ahead.close()
}

// ask takes note of what PostgreSQL wants now, which decides what it will want
// next, and returns the segment if it is here or on its way.
func (r *Reader) ask(name wal.Name) *segment {
	number, err := name.Number(r.Size)
	if name.Kind() != wal.KindSegment || err != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = map[wal.Name]*segment{}
	}
	r.line.size = r.Size
	before, err := r.last.Number(r.Size) // of the zero Name: an error
	switch {
	case number == r.end: // the archive went on: perhaps by this one only
		r.window = 1
	case err == nil && before == number: // asked again, as at promotion; or of another timeline
	case err == nil && before+1 == number:
		r.window = max(1, 2*r.window)
	default:
		r.window = first
	}
	if name.Timeline() != r.last.Timeline() {
		r.ended = time.Time{}
	}
	if again, err := r.again.Number(r.Size); err != nil || number != again && number != again+1 {
		r.again = wal.Name{} // it went on
	}
	r.last = name
	r.ended = r.endedStill(number)
	s := r.held[name]
	r.keep(func(other wal.Name) bool { return other == name || r.next(other) || r.instead(other) })
	if s != nil {
		r.more()
	}
	return s
}

// endedStill is since when nothing is known to come after a place, if that is
// still worth something.
func (r *Reader) endedStill(asked wal.SegmentNumber) time.Time {
	if asked >= r.end || r.now().Sub(r.ended) > rest {
		return time.Time{}
	}
	return r.ended
}

func (r *Reader) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// next tells whether a segment may be asked for after the last one.
func (r *Reader) next(name wal.Name) bool {
	if name == r.again {
		return true
	}
	number, err := name.Number(r.Size)
	last, lastErr := r.last.Number(r.Size)
	return err == nil && lastErr == nil && number > last && number <= last+wal.SegmentNumber(r.window) &&
		slices.Contains(r.line.at(r.last.Timeline(), number), name)
}

// instead tells whether a segment may be asked for if the last one is not there: it
// is one of an older timeline then.
func (r *Reader) instead(name wal.Name) bool {
	number, err := name.Number(r.Size)
	last, lastErr := r.last.Number(r.Size)
	return err == nil && lastErr == nil && number >= last && number <= last+wal.SegmentNumber(r.window) && name != r.last &&
		slices.Contains(r.line.at(name.Timeline(), last), r.last)
}

// keep drops what nobody will ask for.
func (r *Reader) keep(wanted func(wal.Name) bool) {
	for name := range r.held {
		if !wanted(name) {
			r.drop(name)
		}
	}
}

// more begins to fetch what comes next, as far as there is room.
func (r *Reader) more() {
	if r.closed || r.asking > 0 {
		return
	}
	room := r.Room(len(r.held))
	r.window = min(r.window, room)
	last, err := r.last.Number(r.Size)
	if err != nil {
		return
	}
	for n := last + 1; n <= last+wal.SegmentNumber(r.window) && r.underWay() < r.atOnce() && len(r.held) < room; n++ {
		if !r.ended.IsZero() && n >= r.end {
			return
		}
		names := r.line.at(r.last.Timeline(), n)
		if slices.ContainsFunc(names, func(one wal.Name) bool { return r.held[one] != nil }) {
			continue
		}
		r.begin(n, names)
	}
}

// atOnce is how many segments are fetched at a time.
func (r *Reader) atOnce() int {
	switch {
	case r.took == 0 || r.took > 2*quick:
		return 1
	case r.took > quick:
		return 2
	}
	return parallel
}

// underWay counts what is being fetched.
func (r *Reader) underWay() int {
	n := 0
	for _, s := range r.held {
		select {
		case <-s.done:
		default:
			n++
		}
	}
	return n
}

// begin fetches a segment under the first of its names that is there.
func (r *Reader) begin(n wal.SegmentNumber, names []wal.Name) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &segment{cancel: cancel, done: make(chan struct{})}
	began := r.now()
	s.byteAt.Store(time.Now().UnixNano())
	r.held[names[0]] = s
	r.workers.Go(func() {
		defer cancel()
		f, from, err := r.fetch(&r.ahead, &s.byteAt, func(set archive.Set, deliver archive.Deliver) (string, error) {
			return set.FetchAhead(ctx, names[0], patience, deliver)
		})
		r.settle(ctx, s, n, names, f, from, err, r.now().Sub(began))
	})
}

// settle takes note of what became of a segment, and goes on.
func (r *Reader) settle(ctx context.Context, s *segment, n wal.SegmentNumber, names []wal.Name, f *os.File, from string, err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(s.done)
	if isDoubt(err) && ctx.Err() == nil {
		r.took = 0 // one by one, until one has come through
	}
	if r.held[names[0]] != s { // nobody wants it any more
		if f != nil {
			_ = f.Close()
		}
		return
	}
	if err == nil {
		s.file, s.from, r.took = f, from, max(took, 1)
		r.more()
		return
	}
	delete(r.held, names[0])
	switch {
	case ctx.Err() != nil || r.closed:
	case errors.Is(err, archive.ErrUnsettled) && len(names) > 1 && r.held[names[1]] == nil:
		// Its timeline begins in this segment, and its first server never finished
		// it: then PostgreSQL asks for the older one's.
		r.begin(n, names[1:])
	default:
		if r.ended.IsZero() || n < r.end {
			r.end, r.ended = n, r.now()
		}
		r.Log.Debug("nothing to read ahead", "file", names[0], "reason", err)
	}
}

// take hands over a segment. Once: who asks again is given a fresh one.
func (r *Reader) take(name wal.Name, s *segment) *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[name] != s || s.file == nil {
		return nil
	}
	delete(r.held, name)
	r.taken++
	if name == r.again {
		r.beginAgain()
	}
	r.keep(r.next)
	r.more()
	return s.file
}

// drop forgets a segment.
func (r *Reader) drop(name wal.Name) {
	s := r.held[name]
	delete(r.held, name)
	s.cancel()
	if s.file != nil {
		_ = s.file.Close()
	}
}
