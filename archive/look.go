package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// Found is what a look at a file's name tells, without reading the file.
type Found struct {
	// Size is that of the raw file, as its stored form says.
	Size int64
	// ModTime is when it was stored.
	ModTime time.Time
	// Stored is the size of the stored form, and Archive the name of the archive
	// that has it. Where these and the time are the same, so is the file.
	Stored  int64
	Archive string
}

// Stat looks for a file by its name, and lists nothing that grows with the
// archive. ErrAbsent is proof that the archive does not have it, as Fetch's is,
// but whether it once had it is not asked: no gap is told here. Everything else is
// a doubt, and nothing is said of the content.
func (a *Archive) Stat(ctx context.Context, name wal.Name) (Found, error) {
	found, err := answer(ctx, a, func(ctx context.Context) (Found, error) {
		found, err := a.look(ctx, name)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return found, err
	})
	a.report(err)
	return found, err
}

func (a *Archive) look(ctx context.Context, name wal.Name) (Found, error) {
	v, file, err := a.statWith(ctx, name)
	if err != nil {
		return Found{}, err
	}
	info, err := file.FileInfo, file.err
	if isAbsent(err) {
		err = v.proveNotThere(ctx, name)
		if errors.Is(err, errAppeared) {
			info, err = v.store.Stat(ctx, v.id.path(name))
		}
	}
	if isAbsent(err) { // a second time: no proof any more
		err = errors.New(err.Error())
	}
	if err != nil {
		return Found{}, err
	}
	size, err := v.rawSize(ctx, name, info)
	if err == nil && hasRecords(name) {
		v.held.saw(v.id)
	}
	return Found{Size: size, ModTime: info.ModTime(), Stored: info.Size(), Archive: a.name}, err
}

// rawSize tells the raw size of a stored file. Of a segment that is compressed it
// is in its name, so to speak.
func (v view) rawSize(ctx context.Context, name wal.Name, info fs.FileInfo) (int64, error) {
	switch {
	case !info.Mode().IsRegular():
		return 0, errors.New("not a regular file")
	case v.id.Codec == None:
		return info.Size(), nil
	case hasRecords(name):
		return int64(v.id.SegmentSize), nil
	}
	f, err := v.store.Open(ctx, v.id.path(name))
	if isAbsent(err) {
		return 0, errors.New("it was removed just now")
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r, err := codec.NewReader(f, f.Size())
	if err != nil {
		return 0, asDamage(err)
	}
	return r.Digest().Length, v.mayHave(name, r.Digest().Length)
}

// proveNotThere returns ErrAbsent, errAppeared, or why neither can be said. The
// identity was seen before, and is seen again after all that is asked here. The
// second look opens the file: over NFS that asks the far side.
func (v view) proveNotThere(ctx context.Context, name wal.Name) error {
	if err := v.holdsAny(ctx); err != nil {
		return err
	}
	f, err := v.store.Open(ctx, v.id.path(name))
	if err == nil {
		return errors.Join(errAppeared, f.Close())
	}
	if !isAbsent(err) {
		return err
	}
	if err := v.confirm(ctx); err != nil {
		return err
	}
	return ErrAbsent
}

// holdsAny proves that the archive holds WAL. Without any it may be a second one,
// made while the file system of the first was not mounted. Once seen is enough.
func (v view) holdsAny(ctx context.Context) error {
	if v.anonymous || v.held.seen(v.id) {
		return nil // an anonymous one is confirmed by nothing else
	}
	// Of a timeline that no directory has: one with WAL is enough then.
	_, err := v.listFor(ctx, wal.HistoryName(^wal.TimelineID(0)))
	if err == nil {
		v.held.saw(v.id)
	}
	return err
}

// held remembers that an archive was seen to hold WAL.
type held struct {
	mu      sync.Mutex // guards the rest
	id      string     // of the archive that does
	witness wal.Name   // a segment in one without identity
}

func (h *held) saw(id Identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id = id.ID
}

func (h *held) seen(id Identity) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id == id.ID && id.ID != ""
}

func (h *held) witnessed(n wal.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.witness = n
}

func (h *held) lastWitness() wal.Name {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.witness
}

// Stat is Archive.Stat of the first archive that has the file; ErrAbsent only if
// every one proved it. Where there are several, one that takes longer than 5 s is
// passed over.
func (s Set) Stat(ctx context.Context, name wal.Name) (Found, error) {
	return first(ctx, s, func(ctx context.Context, a *Archive) (Found, error) { return a.Stat(ctx, name) })
}

// first asks one archive after the other until one of them knows.
func first[T any](ctx context.Context, s Set, ask func(context.Context, *Archive) (T, error)) (T, error) {
	var failed verdict
	for _, a := range s {
		got, err := oneOf(ctx, s, a, ask)
		if err == nil {
			return got, nil
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	var none T
	return none, failed.sum(len(s))
}

func oneOf[T any](ctx context.Context, s Set, a *Archive, ask func(context.Context, *Archive) (T, error)) (T, error) {
	if len(s) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sharedPatience)
		defer cancel()
	}
	return ask(ctx, a)
}
