package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// settle deals with a file that stands there already. The same content counts
// as stored, once all of it was read and verified and made durable: whoever
// wrote it may have died before that, and PostgreSQL is about to recycle the
// only other copy.
func (v view) settle(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	done := Pushed{As: name, Found: true, place: v.id.path(name), size: -1}
	walker := newWalkerFor(name, v.id.SegmentSize)
	ours, err := codec.DigestOf(io.TeeReader(whole(src), walker))
	if err != nil {
		return Pushed{}, err
	}
	done.Walk = walker.finish()
	stored, err := v.digest(ctx, v.id.path(name))
	switch {
	case err == nil && stored == ours:
		return done, v.store.Sync(ctx, v.id.path(name))
	case err != nil && !errors.Is(err, ErrDamaged):
		return Pushed{}, err
	case name.Kind() == wal.KindPartial:
		return v.putBeside(ctx, done, ours, src, err)
	}
	if unfinished := v.finished(ctx, name, done.Walk); errors.Is(unfinished, errUnfinished) {
		return v.keepPartial(ctx, name, src, done.Walk)
	} else if unfinished != nil {
		return Pushed{}, unfinished
	}
	if err != nil {
		return Pushed{}, damagedConflict(name, err)
	}
	return Pushed{}, v.conflict(ctx, name, stored, ours)
}

// conflict says what stands there instead.
func (v view) conflict(ctx context.Context, name wal.Name, stored, ours codec.Digest) error {
	// A raw file stores no digest: only its records tell damage from a file
	// that somebody else wrote. And what was pushed too early stops inside.
	if _, err := v.examine(ctx, Entry{Name: name, Stored: v.id.path(name)}, nil); errors.Is(err, ErrDamaged) {
		return damagedConflict(name, err)
	}
	return hinted{
		fmt.Errorf("%w: its SHA-256 begins with %x, that of this file with %x", ErrConflict, stored.SHA256[:8], ours.SHA256[:8]),
		"do two servers archive into one directory, or did a restored copy promote on this timeline? Nothing was changed",
	}
}

func damagedConflict(name wal.Name, damage error) error {
	return hinted{
		fmt.Errorf("%w: the stored one is damaged: %w", ErrConflict, damage),
		fmt.Sprintf("pitr wal quarantine %s sets the damaged file aside; the next attempt stores the good one", name),
	}
}

// putBeside stores a .partial that differs from the one that is there, or
// replaces in effect a damaged one, under a name of its own, with the beginning
// of its SHA-256. Two standbys that are promoted in one segment, one after the
// other, write such files, and PostgreSQL never asks for them: refusing the
// second would stop its server's archiving for nothing.
func (v view) putBeside(ctx context.Context, done Pushed, ours codec.Digest, src Source, damage error) (Pushed, error) {
	name, beside := done.As, v.id.beside(done.As, ours.SHA256)
	done.place, done.size = beside, 0
	err := v.store.Put(ctx, beside, func(w io.Writer) error { return v.encode(ctx, &counting{w, &done.size}, whole(src)) })
	if errors.Is(err, fs.ErrExist) {
		done.size = -1
		err = v.settleBeside(ctx, beside, ours)
	}
	if err != nil {
		return Pushed{}, err
	}
	if damage != nil {
		v.opts.Log.Warn("the partial segment that is there is damaged; this one was stored beside it", "archive", v.name, "file", name, "as", beside, "damage", damage)
		return done, nil
	}
	v.opts.Log.Warn("another partial segment of this name is there; this one was stored beside it", "archive", v.name, "file", name, "as", beside)
	return done, nil
}

func (v view) settleBeside(ctx context.Context, beside string, ours codec.Digest) error {
	stored, err := v.digest(ctx, beside)
	if errors.Is(err, ErrDamaged) || err == nil && stored != ours {
		return hinted{
			fmt.Errorf("%w: %s is damaged: %w", ErrConflict, beside, errors.Join(err, ErrDamaged)),
			"move that file away by hand: the next attempt stores the good one",
		}
	}
	if err != nil {
		return err
	}
	return v.store.Sync(ctx, beside)
}

// digest reads a stored file to its end and returns the digest of its content.
// ErrDamaged if a digest is stored and differs.
func (v view) digest(ctx context.Context, stored string) (codec.Digest, error) {
	f, err := v.store.Open(ctx, stored)
	if err != nil {
		return codec.Digest{}, err
	}
	defer f.Close()
	if v.id.Codec == None {
		return codec.DigestOf(exactly(f, f.Size()))
	}
	r, err := codec.NewReader(f, f.Size())
	if err == nil {
		err = r.Decode(ctx, io.Discard)
	}
	if err != nil {
		return codec.Digest{}, asDamage(err)
	}
	return r.Digest(), nil
}
