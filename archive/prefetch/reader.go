package prefetch

import (
	"context"
	"errors"
	"io"
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
	From archive.Set
	Size wal.SegmentSize
	// Place makes a file without a name, where what is fetched can lie.
	Place func() (*os.File, error)
	// Room is how many segments may be kept, when so many are: the disk may be
	// nearly full.
	Room func(held int) int
	Log  *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time

	workers sync.WaitGroup

	mu     sync.Mutex // guards what follows; not held while something is fetched
	closed bool
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

// segment is one that is fetched, or was.
type segment struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when what follows is settled
	file   *os.File      // nil: it did not work
	from   string
}

const (
	// parallel is how many segments are fetched at a time.
	parallel = 4

	// first is how many are wanted after the first one. It doubles with each that
	// follows the one before.
	first = 4

	// patience is how long to wait for a byte of what nobody has asked for.
	patience = 10 * time.Second

	// rest is after how long the place where nothing more was found is looked at
	// again, if nobody asks for it.
	rest = 5 * time.Second
)

// Get returns a file, which the caller closes, and the archive it came from.
// Errors are those of archive.Set.Fetch. The call waits for the next byte as long
// as told.
func (r *Reader) Get(ctx context.Context, name wal.Name, wait time.Duration) (*os.File, string, error) {
	if s := r.ask(name); s != nil {
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		}
		if f := r.take(name, s); f != nil {
			return f, s.from, nil
		}
	}
	f, from, err := r.fetch(func(deliver archive.Deliver) (string, error) {
		return r.From.Fetch(ctx, name, wait, deliver)
	})
	if err == nil && name.Kind() == wal.KindHistory {
		r.learn(name.Timeline(), f)
	}
	return f, from, err
}

// Start fetches what comes after a segment that somebody else was given.
func (r *Reader) Start(after wal.Name) { r.ask(after) }

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
	case name == r.last: // asked again, as at promotion
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
	for other := range r.held {
		if other != name && !r.wanted(other) {
			r.drop(other)
		}
	}
	r.more()
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

// wanted tells whether a segment may be asked for soon.
func (r *Reader) wanted(name wal.Name) bool {
	if name == r.again {
		return true
	}
	number, err := name.Number(r.Size)
	last, lastErr := r.last.Number(r.Size)
	return err == nil && lastErr == nil && number > last && number <= last+wal.SegmentNumber(r.window) &&
		slices.Contains(r.line.at(r.last.Timeline(), number), name)
}

// more begins to fetch what comes next, as far as there is room.
func (r *Reader) more() {
	if r.closed {
		return
	}
	room := r.Room(len(r.held))
	r.window = min(r.window, room)
	last, err := r.last.Number(r.Size)
	if err != nil {
		return
	}
	for n := last + 1; n <= last+wal.SegmentNumber(r.window) && r.underWay() < parallel && len(r.held) < room; n++ {
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
	r.held[names[0]] = s
	r.workers.Go(func() {
		defer cancel()
		f, from, err := r.fetch(func(deliver archive.Deliver) (string, error) {
			return r.From.FetchAhead(ctx, names[0], patience, deliver)
		})
		r.settle(ctx, s, n, names, f, from, err)
	})
}

// settle takes note of what became of a segment, and goes on.
func (r *Reader) settle(ctx context.Context, s *segment, n wal.SegmentNumber, names []wal.Name, f *os.File, from string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(s.done)
	if r.held[names[0]] != s { // nobody wants it any more
		if f != nil {
			_ = f.Close()
		}
		return
	}
	if err == nil {
		s.file, s.from = f, from
		r.more()
		return
	}
	delete(r.held, names[0])
	switch {
	case ctx.Err() != nil || r.closed:
	case errors.Is(err, archive.ErrUnsettled) && len(names) > 1:
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

// fetch has a file fetched into a place of its own.
func (r *Reader) fetch(from func(archive.Deliver) (string, error)) (*os.File, string, error) {
	var l landing
	where, err := from(func(write func(io.Writer) error) error {
		f, err := r.Place()
		if err != nil {
			return err
		}
		if err := write(f); err != nil {
			return errors.Join(err, f.Close())
		}
		return l.put(f)
	})
	return l.take(err), where, err
}

// landing is where a fetch leaves its file. One that hung in the system, and was
// left behind, may come late.
type landing struct {
	mu   sync.Mutex // guards what follows
	file *os.File
	over bool
}

func (l *landing) put(f *os.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return errors.Join(errors.New("nobody waits for it any more"), f.Close())
	}
	l.file = f
	return nil
}

// take returns the file of a fetch that worked.
func (l *landing) take(err error) *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if err != nil && l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
	return l.file
}

// learn reads a history that PostgreSQL was given: it goes along that line.
func (r *Reader) learn(tli wal.TimelineID, f *os.File) {
	const most = 1 << 20
	text, err := io.ReadAll(io.NewSectionReader(f, 0, most))
	if err != nil {
		return
	}
	h, err := wal.ParseHistory(tli, text)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line, r.ended = line{size: r.Size, history: h}, time.Time{}
}
