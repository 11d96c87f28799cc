package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// Source is a file of pg_wal to be archived. Its content does not change.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Pushed says what a successful Push came upon.
type Pushed struct {
	// Found: the same file stood there already.
	Found bool
	// Walk is what the records of a segment look like. A damaged one is
	// stored as it is, for it is PostgreSQL's; somebody should know.
	Walk wal.Walk
}

// Push stores a file durably. When it returns nil, the archive holds exactly
// this file, and PostgreSQL may recycle its own. Otherwise ErrForeign (not what
// its name says, or another cluster's), ErrConflict (other content stands
// there; nothing was changed), ErrIdentity, ErrNoIdentity, or a doubt: push
// again. When ctx ends, a call that hangs in the system is left behind.
func (a *Archive) Push(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	var done Pushed
	err := within(ctx, func(ctx context.Context) error {
		var err error
		done, err = a.push(ctx, name, src)
		return err
	})
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", name, a.named(err))
	}
	return done, nil
}

func (a *Archive) push(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	v, err := a.openWritable(ctx)
	if err != nil {
		return Pushed{}, err
	}
	if err := v.inspect(name, src); err != nil {
		return Pushed{}, err
	}
	v.sweep(ctx)
	_, err = v.store.Stat(ctx, v.id.path(name))
	switch {
	case err == nil:
		return Pushed{Found: true}, v.settle(ctx, name, src)
	case !isAbsent(err):
		return Pushed{}, err
	}
	return v.put(ctx, name, src)
}

// sweep removes what dead writers of this host left in a tree. In a flat
// archive, where it would mean to list every segment, Prune does it.
func (v view) sweep(ctx context.Context) {
	if v.id.Layout != Tree {
		return
	}
	removed, err := v.store.Sweep(ctx, walDirectory, cutoffNone)
	if len(removed) > 0 {
		v.opts.Log.Info("temporary files of dead writers removed", "archive", v.name, "count", len(removed))
	}
	if err != nil {
		v.opts.Log.Warn("temporary files cannot be looked through", "archive", v.name, "error", err)
	}
}

func (v view) put(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	var done Pushed
	err := v.store.Put(ctx, v.id.path(name), func(w io.Writer) error {
		walker := newWalkerFor(name, v.id.SegmentSize)
		if err := v.encode(ctx, w, io.TeeReader(whole(src), walker)); err != nil {
			return err
		}
		done.Walk = walker.finish()
		return nil
	})
	if errors.Is(err, fs.ErrExist) {
		return Pushed{Found: true}, v.settle(ctx, name, src)
	}
	if err != nil {
		return Pushed{}, err
	}
	return done, nil
}

func whole(src Source) io.Reader { return io.NewSectionReader(src, 0, src.Size()) }

// encode writes the stored form of a file.
func (v view) encode(ctx context.Context, w io.Writer, src io.Reader) error {
	encoder, err := v.encoder()
	if err != nil {
		return err
	}
	if encoder == nil {
		return copyRaw(ctx, w, src)
	}
	_, err = encoder.Encode(ctx, w, src)
	return err
}

// inspect holds a file against its name and against the archive's cluster.
func (v view) inspect(name wal.Name, src Source) error {
	refuse := func(err error) error {
		if errors.Is(err, wal.ErrForeign) {
			return hinted{
				fmt.Errorf("%w: %w", ErrForeign, err),
				"is this server archiving into another cluster's directory? Nothing was stored",
			}
		}
		return hinted{
			fmt.Errorf("%w: %w", ErrForeign, err),
			"the file is not what its name says; in pg_wal it may be one that PostgreSQL has set apart for later. Nothing was stored",
		}
	}
	switch name.Kind() {
	case wal.KindSegment, wal.KindPartial:
		head := make([]byte, wal.HeaderLen)
		n, err := src.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := wal.CheckSegment(name, head[:n], src.Size(), v.expect()); err != nil {
			return refuse(err)
		}
	case wal.KindHistory, wal.KindBackup:
		if src.Size() > largestSmallFile {
			return refuse(fmt.Errorf("%d bytes are too many for a %s file", src.Size(), name.Kind()))
		}
		if err := checkText(name, whole(src)); err != nil {
			return refuse(err)
		}
	}
	return nil
}

func checkText(name wal.Name, r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if name.Kind() == wal.KindHistory {
		_, err = wal.ParseHistory(name.Timeline(), text)
		return err
	}
	return wal.CheckBackupLabel(name, text)
}

// settle deals with a file that stands there already. The same content counts
// as stored, once all of it was read and verified and made durable: whoever
// wrote it may have died before that, and PostgreSQL is about to recycle the
// only other copy.
func (v view) settle(ctx context.Context, name wal.Name, src Source) error {
	ours, err := codec.DigestOf(whole(src))
	if err != nil {
		return err
	}
	stored, err := v.digest(ctx, v.id.path(name))
	if name.Kind() == wal.KindPartial && (err == nil && stored != ours || errors.Is(err, ErrDamaged)) {
		return v.putBeside(ctx, name, ours, src)
	}
	if errors.Is(err, ErrDamaged) {
		return damagedConflict(name, err)
	}
	if err != nil {
		return err
	}
	if stored != ours {
		// A raw file stores no digest: only its records tell damage from a
		// file that somebody else wrote.
		if err := v.read(ctx, name, io.Discard); errors.Is(err, ErrDamaged) {
			return damagedConflict(name, err)
		}
		return hinted{
			fmt.Errorf("%w: its SHA-256 begins with %x, that of this file with %x", ErrConflict, stored.SHA256[:8], ours.SHA256[:8]),
			"do two servers archive into one directory, or did a restored copy promote on this timeline? Nothing was changed",
		}
	}
	if err := v.store.Sync(ctx, v.id.path(name)); err != nil {
		return err
	}
	return nil
}

func damagedConflict(name wal.Name, damage error) error {
	return hinted{
		fmt.Errorf("%w: the stored one is damaged: %w", ErrConflict, damage),
		fmt.Sprintf("pitr wal quarantine %s sets the damaged file aside; the next attempt stores the good one", name),
	}
}

// putBeside stores a .partial that differs from the one that is there under a
// name of its own, with the beginning of its SHA-256. Two standbys that are
// promoted in one segment, one after the other, write such files, and
// PostgreSQL never asks for them: refusing the second would stop its server's
// archiving for nothing.
func (v view) putBeside(ctx context.Context, name wal.Name, ours codec.Digest, src Source) error {
	beside := fmt.Sprintf("%s.%x%s", path.Join(path.Dir(v.id.path(name)), name.String()), ours.SHA256[:8], v.id.Codec.suffix())
	err := v.store.Put(ctx, beside, func(w io.Writer) error { return v.encode(ctx, w, whole(src)) })
	if errors.Is(err, fs.ErrExist) {
		var stored codec.Digest
		if stored, err = v.digest(ctx, beside); err == nil && stored != ours {
			err = fmt.Errorf("%w: %s", ErrDamaged, beside)
		}
		if err == nil {
			err = v.store.Sync(ctx, beside)
		}
	}
	if err == nil {
		v.opts.Log.Warn("another partial segment of this name is there; this one was stored beside it", "archive", v.name, "file", name, "as", beside)
	}
	return err
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
		return codec.DigestOf(io.NewSectionReader(f, 0, f.Size()))
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
