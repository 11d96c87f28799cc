package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"pitr/archive/wal"
)

// Deliver gives write a fresh place for the bytes of a file, and makes that
// place the file PostgreSQL asked for only if write returned nil. It may be
// called once for each archive of a Set, each time with a place of its own.
type Deliver func(write func(io.Writer) error) error

// Fetch delivers a verified file. ErrAbsent is proof that the archive does not
// have it, ErrGap that it ought to; ErrDamaged that what it has is not what was
// stored. Everything else is a doubt, also that no byte came for as long as
// patience. A call that hangs in the system is left behind.
func (a *Archive) Fetch(ctx context.Context, name wal.Name, patience time.Duration, deliver Deliver) error {
	ctx, watch := watchStall(ctx, patience)
	defer watch.stop()
	err := within(ctx, func(ctx context.Context) error { return a.fetch(ctx, name, watch, deliver) })
	if !errors.Is(err, ErrPlace) {
		a.report(err)
	}
	if err != nil {
		return a.named(fmt.Errorf("%s: %w", name, err))
	}
	return nil
}

func (a *Archive) fetch(ctx context.Context, name wal.Name, watch io.Writer, deliver Deliver) error {
	v, file, err := a.openWith(ctx, name, a.openMarked)
	if err != nil {
		return err
	}
	v.watch = watch
	v.alive()
	f, err := file.Object, file.err
	if isAbsent(err) {
		if err := v.proveAbsent(ctx, name); !errors.Is(err, errAppeared) {
			return err
		}
		if f, err = v.store.Open(ctx, v.id.path(name)); isAbsent(err) {
			return errors.New("it is listed, and cannot be opened: a cache of the file system is out of date, or it is being removed")
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return v.deliver(ctx, name, f, deliver)
}

// deliver hands out an open file, verified.
func (v view) deliver(ctx context.Context, name wal.Name, f Object, deliver Deliver) error {
	var ours error // what came of the archive's part in it
	err := deliver(func(w io.Writer) error {
		v.listener = listener{name, w}
		if ours = v.verified(ctx, name, f, place{w}); ours == nil {
			// A call that was left behind must not deliver any more.
			ours = context.Cause(ctx)
		}
		return ours
	})
	if err != nil && ours == nil {
		return placeError{err}
	}
	return err
}

// ErrPlace: the file could not be written where it was to go. That is nothing against
// the archive, and another one would not help.
var ErrPlace = errors.New("no place for it")

// placeError is such an error, in its own words.
type placeError struct{ error }

func (e placeError) Is(err error) bool { return err == ErrPlace }

func (e placeError) Unwrap() error { return e.error }

// place tells the errors of where a file goes from those of where it comes from.
type place struct{ io.Writer }

func (p place) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(b)
	if err != nil {
		err = placeError{err}
	}
	return n, err
}

// errAppeared says that a file is listed which a moment ago was not there: it
// was stored just now, or its file system had forgotten to ask.
var errAppeared = errors.New("it appeared")

// proveAbsent returns ErrAbsent, ErrGap, or why neither can be said.
func (v view) proveAbsent(ctx context.Context, name wal.Name) error {
	if err := v.confirmBefore(ctx); err != nil {
		return err
	}
	v.alive()
	evidence, err := v.look(ctx, name)
	if err == nil && evidence == "" {
		// Whoever took the archive away meanwhile has taken the evidence along.
		err = v.confirm(ctx)
	}
	if err != nil {
		return err
	}
	if evidence == "" {
		return ErrAbsent
	}
	if v.opts.GapIsEnd {
		v.opts.Log.Warn("a gap is taken for the end, as restore_gap: end says", "archive", v.name, "missing", name, "evidence", evidence)
		return ErrAbsent
	}
	return hinted{
		fmt.Errorf("%w: %s", ErrGap, evidence),
		"find the missing file (pg_wal of the primary, another archive) and push it; restore_gap: end gives up what comes after it",
	}
}

// look looks for what shows that a missing file once was: in the listings, in
// quarantine, and by name. Empty if nothing does; errAppeared if the file itself is
// listed.
func (v view) look(ctx context.Context, name wal.Name) (evidence string, err error) {
	var entries []Entry
	var aside, there string
	var asideErr, thereErr error
	err = v.together(
		func() (err error) { entries, err = v.listFor(ctx, name); return err },
		func() error { aside, asideErr = v.setAside(ctx, name); return nil },
		func() error { there, thereErr = v.askByName(ctx, name); return nil },
	)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == name }) {
		return "", errAppeared
	}
	evidence, err = aside, asideErr
	if err == nil && evidence == "" {
		evidence, err = v.listed(ctx, name, entries)
	}
	if err == nil && evidence == "" {
		evidence, err = there, thereErr
	}
	if err != nil {
		err = fmt.Errorf("look for later WAL: %w", err)
	}
	return evidence, err
}

// listed tells what in a listing shows that a missing file once was.
func (v view) listed(ctx context.Context, name wal.Name, entries []Entry) (string, error) {
	switch name.Kind() {
	case wal.KindSegment:
		return v.laterWAL(ctx, name, entries)
	case wal.KindHistory:
		return v.heirs(ctx, name, entries)
	}
	return "", nil
}

// setAside tells whether a file of this name lies in quarantine.
func (v view) setAside(ctx context.Context, name wal.Name) (string, error) {
	dir := path.Join(v.id.top(), quarantineDirectory)
	entries, err := v.store.List(ctx, dir)
	if err != nil && !isAbsent(err) {
		return "", err
	}
	for _, e := range entries {
		if stored, ok := cutAside(e.Name()); ok && stored == path.Base(v.id.path(name)) {
			return fmt.Sprintf("it was set aside as %s", path.Join(dir, e.Name())), nil
		}
	}
	return "", nil
}

// heirs tells what belongs to a timeline whose history is missing: segments,
// or a history that has the timeline as an ancestor. A .partial does not count:
// a promotion that was interrupted before it wrote the history leaves one of a
// timeline that never came to be.
func (v view) heirs(ctx context.Context, name wal.Name, entries []Entry) (string, error) {
	for _, e := range entries {
		n := e.Name
		switch {
		case n.Kind() == wal.KindSegment && n.Timeline() == name.Timeline():
			return fmt.Sprintf("%s of that timeline is there", n), nil
		case n.Kind() == wal.KindHistory && n.Timeline() > name.Timeline():
			h, err := v.history(ctx, n.Timeline())
			if err != nil {
				return "", fmt.Errorf("%s: %w", n, err)
			}
			if _, ok := h.SwitchOf(name.Timeline()); ok {
				return fmt.Sprintf("%s names that timeline as an ancestor", n), nil
			}
		}
	}
	return "", nil
}

// laterWAL tells what shows that a missing segment once was: a later one of
// its timeline, or a history by which a descendant left the timeline after the
// segment began. Empty if nothing does.
func (v view) laterWAL(ctx context.Context, name wal.Name, entries []Entry) (string, error) {
	start, err := name.Start(v.id.SegmentSize)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		n := e.Name
		switch {
		case n.Kind() == wal.KindHistory && n.Timeline() > name.Timeline():
			h, err := v.history(ctx, n.Timeline())
			if err != nil {
				return "", fmt.Errorf("%s: %w", n, err)
			}
			if left, ok := h.SwitchOf(name.Timeline()); ok && left > start {
				return fmt.Sprintf("%s says that timeline %d went on to %s", n, name.Timeline(), left), nil
			}
		case hasRecords(n) && n.Timeline() == name.Timeline() && position(n) >= position(name):
			return fmt.Sprintf("%s is there", n), nil
		}
	}
	return "", nil
}

// Set is the archives of one cluster, in the order in which they are asked.
type Set []*Archive

// sharedPatience is how long an archive may keep silent when there is another
// one to ask.
const sharedPatience = 5 * time.Second

// Fetch delivers the first verified copy and returns the archive it came from.
// ErrAbsent only if every archive proved it. Where there are several, one that
// gives no byte for 5 s is passed over.
func (s Set) Fetch(ctx context.Context, name wal.Name, patience time.Duration, deliver Deliver) (string, error) {
	if len(s) > 1 {
		patience = min(patience, sharedPatience)
	}
	var failed verdict
	for _, a := range s {
		err := a.Fetch(ctx, name, patience, deliver)
		if err == nil {
			failed.warn(a, name)
			return a.name, nil
		}
		if errors.Is(err, ErrPlace) {
			return "", err
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return "", failed.sum(len(s))
}

// verdict is what the archives said that did not have the file.
type verdict []error

// warn tells of the archives that should have had the file and did not.
func (v verdict) warn(a *Archive, name wal.Name) {
	for _, err := range v {
		if !errors.Is(err, ErrAbsent) {
			a.opts.Log.Warn("another archive had to help out", "file", name, "helped", a.name, "error", err)
		}
	}
}

// sum makes one answer of several. One doubt makes the whole a doubt, and then
// nothing in the error may match ErrAbsent or ErrGap any more. What the archives
// said one by one is in Verdicts.
func (v verdict) sum(asked int) error {
	var absent, gaps, doubts []error
	for _, err := range v {
		switch {
		case errors.Is(err, ErrAbsent):
			absent = append(absent, err)
		case errors.Is(err, ErrGap):
			gaps = append(gaps, err)
		default:
			doubts = append(doubts, err)
		}
	}
	switch {
	case len(doubts) > 0:
		return verdicts{errors.Join(doubts...), doubts}
	case len(v) < asked || asked == 0:
		return fmt.Errorf("%d of %d archives were asked: %w", len(v), asked, errNoAnswer)
	case len(gaps) > 0:
		return verdicts{errors.Join(gaps...), gaps}
	}
	return errors.Join(absent...)
}

// verdicts is an error of several archives.
type verdicts struct {
	error
	each []error
}

func (v verdicts) Unwrap() []error { return v.each }

// Verdicts returns what each archive said that Set.Fetch was in doubt about, or
// the error itself.
func Verdicts(err error) []error {
	var v verdicts
	if errors.As(err, &v) {
		return v.each
	}
	return []error{err}
}

// Push stores a file in every archive of the set, at the same time. It returns
// nil only if all of them have it.
func (s Set) Push(ctx context.Context, name wal.Name, src Source) ([]Pushed, error) {
	type result struct {
		done Pushed
		err  error
	}
	results := make([]chan result, len(s))
	for i, a := range s {
		results[i] = make(chan result, 1)
		go func() {
			done, err := a.Push(ctx, name, src)
			results[i] <- result{done, err}
		}()
	}
	var all []Pushed
	var err error
	for _, c := range results {
		r := <-c
		all = append(all, r.done)
		err = errors.Join(err, r.err)
	}
	if len(s) == 0 {
		err = errors.New("no archive to push to")
	}
	return all, err
}
