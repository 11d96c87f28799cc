package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// asDamage makes the codec's finding the archive's.
func asDamage(err error) error {
	if errors.Is(err, codec.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// read is verified for a file that is not open yet, by its place in the store.
func (v view) read(ctx context.Context, name wal.Name, stored string, w io.Writer) error {
	f, err := v.store.Open(ctx, stored)
	if err != nil {
		return err
	}
	defer f.Close()
	return v.verified(ctx, name, f, w)
}

// verified writes the raw content of a stored file to w and verifies it: nil
// says that it is what its name says and what was stored; ErrDamaged that it is
// not. Only then is what was written of use.
func (v view) verified(ctx context.Context, name wal.Name, f Object, w io.Writer) error {
	c, err := v.newChecker(ctx, name, f)
	if err != nil {
		return err
	}
	if err := v.contents(ctx, name, f, io.MultiWriter(w, c)); err != nil {
		return err
	}
	return c.finish(ctx)
}

// contents writes the raw content, verified against the stored digest if the
// form has one. Nothing is written of a file that cannot be what its name says:
// a full pg_wal stops a server.
func (v view) contents(ctx context.Context, name wal.Name, f Object, w io.Writer) error {
	w = io.MultiWriter(v.watch, w)
	if v.id.Codec == None {
		if err := v.mayHave(name, f.Size()); err != nil {
			return err
		}
		return v.copyDigested(ctx, name, f, w)
	}
	r, err := codec.NewReader(f, f.Size())
	if err == nil {
		err = v.mayHave(name, r.Digest().Length)
	}
	switch {
	case err != nil:
	case v.settled: // nobody waits for it
		err = r.DecodeFrugally(ctx, w)
	default:
		err = r.Decode(ctx, w)
	}
	if err == nil {
		v.listener.digested(name, r.Digest().SHA256)
	}
	return asDamage(err)
}

// copyDigested copies a raw file, and computes its digest where that is of use.
func (v view) copyDigested(ctx context.Context, name wal.Name, f Object, w io.Writer) error {
	if !v.listener.wantsDigest(name) {
		return copyRaw(ctx, w, exactly(f, f.Size()))
	}
	h := sha256.New()
	if err := copyRaw(ctx, io.MultiWriter(w, h), exactly(f, f.Size())); err != nil {
		return err
	}
	v.listener.digested(name, [sha256.Size]byte(h.Sum(nil)))
	return nil
}

// mayHave tells whether a file can have so many raw bytes.
func (v view) mayHave(name wal.Name, length int64) error {
	switch {
	case hasRecords(name) && length != int64(v.id.SegmentSize):
		return fmt.Errorf("%w: %s has %d bytes, a segment has %d", ErrDamaged, name, length, v.id.SegmentSize)
	case !hasRecords(name) && length > largestSmallFile:
		return fmt.Errorf("%w: %s has %d bytes", ErrDamaged, name, length)
	}
	return nil
}

// checker sees the raw bytes of a file pass and tells in the end whether they
// are what the name says.
type checker struct {
	view   view
	name   wal.Name
	head   []byte
	length int64
	walker *walker
}

// newChecker returns the checker of an open file. Where no digest is stored,
// only the records vouch for the bytes, so also the one that crosses into the
// segment is verified.
func (v view) newChecker(ctx context.Context, name wal.Name, f Object) (*checker, error) {
	c := &checker{view: v, name: name, walker: newWalkerFor(name, v.id.SegmentSize)}
	if v.digests() || !hasRecords(name) || v.opts.Verified && !v.settled {
		return c, nil
	}
	tail, crosses, err := v.tailBefore(ctx, name, f)
	if err == nil && crosses && tail == nil {
		err = v.provisional("the record that crosses into it cannot be verified without the segment before")
	}
	c.walker.opts.Tail = tail
	return c, err
}

// digests tells whether a digest is stored with each file: then it is as it was
// pushed, whatever it is.
func (v view) digests() bool { return v.id.Codec != None }

// vouches tells whether a digest does so, or something below that has verified the
// file. That one may have been told otherwise what damage is: it counts no further
// than for what cannot be seen here.
func (v view) vouches() bool { return v.digests() || v.opts.Verified }

func hasRecords(name wal.Name) bool {
	return name.Kind() == wal.KindSegment || name.Kind() == wal.KindPartial
}

// headLimit is enough for the header of a segment and the whole of a small
// file.
func (c *checker) headLimit() int {
	if hasRecords(c.name) {
		return wal.HeaderLen
	}
	return largestSmallFile
}

func (c *checker) Write(p []byte) (int, error) {
	c.length += int64(len(p))
	if room := c.headLimit() - len(c.head); room > 0 {
		c.head = append(c.head, p[:min(room, len(p))]...)
	}
	return c.walker.Write(p)
}

func (c *checker) finish(ctx context.Context) error {
	var err error
	switch c.name.Kind() {
	case wal.KindHistory:
		_, err = wal.ParseHistory(c.name.Timeline(), c.head)
	case wal.KindBackup:
		err = wal.CheckBackupLabel(c.name, c.head)
	default:
		err = wal.CheckSegment(c.name, c.head, c.length, c.view.expect())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return c.judge(ctx, c.walker.finish())
}

// judge decides what the walk over a segment proves. PostgreSQL takes the place
// where sound records stop for the end of WAL, without a word: so it gets such
// a segment only if nothing later is known.
func (c *checker) judge(ctx context.Context, w wal.Walk) error {
	v := c.view
	if w.Status == wal.Complete {
		return nil
	}
	if err := v.provisional(fmt.Sprintf("its WAL stops at %s: %s", w.End, w.Reason)); err != nil {
		return err
	}
	switch {
	case c.name.Kind() == wal.KindPartial && (w.Status == wal.Ended || v.digests()):
		return nil // it ends so by nature
	case c.name.Kind() == wal.KindPartial:
		return c.judgePartial(ctx, w)
	case w.Status == wal.Damaged && !v.digests():
		return c.damage(w)
	}
	later, err := v.laterThan(ctx, c.name)
	if err != nil {
		return fmt.Errorf("its WAL stops at %s; look for later WAL: %w", w.End, err)
	}
	stops := fmt.Errorf("%w: its WAL stops at %s: %s", ErrDamaged, w.End, w.Reason)
	switch {
	case v.vouches() && (later == "" || v.opts.GapIsEnd), later == "" && v.opts.GapIsEnd:
		v.opts.Log.Warn("this segment's WAL stops inside it: a recovery ends there", "archive", v.name, "file", c.name, "at", w.End, "reason", w.Reason)
		return nil
	case v.vouches():
		return hinted{
			fmt.Errorf("%w; it was pushed like this, and %s", stops, later),
			"a recovery would end there without a word: is there a good copy in pg_wal or another archive? restore_gap: end gives up what comes later",
		}
	case later != "":
		return fmt.Errorf("%w, and %s", stops, later)
	}
	return hinted{stops, "the rest was lost, or this is a .partial renamed by hand: then restore_gap: end takes it"}
}

// judgePartial decides about a raw .partial whose records stop being sound: what
// follows the place where its timeline was left is no damage.
func (c *checker) judgePartial(ctx context.Context, w wal.Walk) error {
	err := c.view.finished(ctx, c.name.Segment(), w)
	switch {
	case errors.Is(err, errUnfinished):
		return nil
	case err != nil:
		return fmt.Errorf("its WAL stops at %s; look for where its timeline was left: %w", w.End, err)
	}
	return c.damage(w)
}

// damage says where the records of a raw segment are not sound. One that crosses
// into it was joined with its beginning: nothing tells which of the two parts is
// the wrong one.
func (c *checker) damage(w wal.Walk) error {
	err := fmt.Errorf("%w: at %s: %s", ErrDamaged, w.End, w.Reason)
	start, startErr := c.name.Start(c.view.id.SegmentSize)
	if startErr != nil || w.End > start {
		return err
	}
	return hinted{
		fmt.Errorf("%w; the record comes from the segment before, which may be the damaged one", err),
		"hold both against pg_wal or another archive; pitr wal quarantine --force sets the one before aside",
	}
}

// laterThan tells what shows that the WAL went on after a segment that is there.
func (v view) laterThan(ctx context.Context, name wal.Name) (string, error) {
	entries, err := v.listFor(ctx, name)
	if err != nil {
		return "", err
	}
	after := name.Segment()
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return position(e.Name) <= position(after) && hasRecords(e.Name) })
	return v.laterWAL(ctx, after, entries)
}

// tailBefore finds how the record begins that crosses into this segment, from
// the segments before it, so that its checksum can be verified. nil where
// nothing crosses, or where those segments are not there: then the part of
// the record in this segment stays unverified. That one is there and cannot be
// read is an error: it must not make a check weaker. crosses is whether anything may
// cross.
func (v view) tailBefore(ctx context.Context, name wal.Name, f Object) (tail *wal.Tail, crosses bool, err error) {
	head := make([]byte, wal.HeaderLen)
	if n, err := f.ReadAt(head, 0); n < len(head) {
		return nil, true, damagedOr(err)
	}
	header, err := wal.ParsePageHeader(head)
	if err != nil {
		return nil, true, nil // told when the whole of it is looked at
	}
	if header.RemainingLen > 0 {
		tail, err = v.tailInto(ctx, name, longestCrossing)
	}
	return tail, header.RemainingLen > 0, err
}

// damagedOr is an error of reading, or that there was nothing to read.
func damagedOr(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it is shorter than a page header", ErrDamaged)
	}
	return err
}

// longestCrossing is how many segments back the beginning of a record is looked
// for. Only with segments of 1 MB are there records that go further.
const longestCrossing = 64

// tailInto finds the tail that the segment before a segment leaves. One that is
// damaged counts as not there: it is told of when it is asked for itself.
func (v view) tailInto(ctx context.Context, name wal.Name, depth int) (*wal.Tail, error) {
	number, err := name.Number(v.id.SegmentSize)
	if err != nil || number == 0 || depth == 0 {
		return nil, nil
	}
	names, err := v.candidatesBefore(ctx, name.Timeline(), number)
	if err != nil {
		return nil, err
	}
	for _, before := range names {
		tail, err := v.tailOf(ctx, before, depth)
		switch {
		case err == nil:
			return tail, nil
		case !isAbsent(err) && !errors.Is(err, ErrDamaged):
			return nil, fmt.Errorf("for the record that crosses into it: %s: %w", before, err)
		}
	}
	return nil, nil
}

// candidatesBefore are the names under which the segment before number may lie
// in the line of descent of a timeline: its own, and those of ancestors that it
// had not left by then.
func (v view) candidatesBefore(ctx context.Context, tli wal.TimelineID, number wal.SegmentNumber) ([]wal.Name, error) {
	size := v.id.SegmentSize
	names := []wal.Name{wal.SegmentName(tli, number-1, size)}
	if tli == 1 {
		return names, nil // it has no history, and to prove that costs round trips
	}
	h, err := v.history(ctx, tli)
	if isAbsent(err) || errors.Is(err, ErrDamaged) {
		return names, nil
	}
	if err != nil {
		return nil, err
	}
	for i := len(h.Entries) - 1; i >= 0; i-- {
		if size.Start(number) <= h.Entries[i].Switch {
			names = append(names, wal.SegmentName(h.Entries[i].Timeline, number-1, size))
		}
	}
	return names, nil
}

// tailOf walks a segment and returns its tail. If the record that crosses out of
// it crosses into it too, the walk begins further back.
func (v view) tailOf(ctx context.Context, name wal.Name, depth int) (*wal.Tail, error) {
	f, err := v.store.Open(ctx, v.id.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := newWalkerFor(name, v.id.SegmentSize)
	for {
		if err := v.contents(ctx, name, f, w); err != nil {
			return nil, err
		}
		walk := w.finish()
		if walk.Status != wal.Complete {
			return nil, fmt.Errorf("%s: %w", name, ErrDamaged)
		}
		begin, crosses := walk.Tail.Crosses()
		if !crosses || begin != 0 || w.opts.Tail != nil {
			return walk.Tail, nil
		}
		before, err := v.tailInto(ctx, name, depth-1)
		if err != nil || before == nil {
			return walk.Tail, err
		}
		w = newWalkerFor(name, v.id.SegmentSize)
		w.opts.Tail = before
	}
}

// history reads a history file of the archive.
func (v view) history(ctx context.Context, tli wal.TimelineID) (wal.History, error) {
	var text limitedBuffer
	name := wal.HistoryName(tli)
	if err := v.read(ctx, name, v.id.path(name), &text); err != nil {
		return wal.History{}, err
	}
	return wal.ParseHistory(tli, text.b)
}

// limitedBuffer keeps a small file and refuses a large one.
type limitedBuffer struct{ b []byte }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > largestSmallFile {
		return 0, fmt.Errorf("larger than %d bytes: %w", largestSmallFile, ErrDamaged)
	}
	l.b = append(l.b, p...)
	return len(p), nil
}
