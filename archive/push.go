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

// Source is a file of pg_wal to be archived. Its content does not change.
type Source interface {
	io.ReaderAt
	Size() int64
}

// Pushed says what a successful Push came upon.
type Pushed struct {
	// As is the name under which it is stored: that of the file, or the .partial
	// of a segment whose WAL ends inside it.
	As wal.Name
	// Found: the same file stood there already.
	Found bool
	// Walk is what the records of a segment look like. A damaged one is
	// stored as it is, for it is PostgreSQL's; somebody should know.
	Walk wal.Walk
}

// Push stores a file durably. When it returns nil, the archive holds exactly
// this file, and PostgreSQL may recycle its own. A segment whose WAL ends inside
// it is stored as a .partial: its name is that of the finished one. Otherwise ErrForeign (not what
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
	early := a.encodeAhead(ctx, name, src)
	defer early.drop()
	v, err := a.openWritable(ctx)
	if err != nil {
		return Pushed{}, err
	}
	if err := v.inspect(name, src); err != nil {
		return Pushed{}, err
	}
	if early.fits(v.id) {
		v.early = early
	}
	var done Pushed
	err = a.together(
		func() error { v.sweep(ctx); return nil },
		func() (err error) { done, err = v.keep(ctx, name, src); return err },
	)
	if err != nil {
		return Pushed{}, err
	}
	// Once more: a file system that went away in between leaves an empty place
	// behind, and that is where the file would be now.
	if err := v.confirm(ctx); err != nil {
		return Pushed{}, fmt.Errorf("stored, but where? %w", err)
	}
	return done, nil
}

// keep settles with a file that stands there, or puts this one.
func (v view) keep(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	if v.isFar() {
		return v.keepFar(ctx, name, src)
	}
	_, err := v.store.Stat(ctx, v.id.path(name))
	switch {
	case err == nil:
		return v.settle(ctx, name, src)
	case !isAbsent(err):
		return Pushed{}, err
	}
	return v.put(ctx, name, src)
}

// sweep removes what dead writers of this host left.
func (v view) sweep(ctx context.Context) {
	removed, err := v.store.Sweep(ctx, v.id.pending(), cutoffNone)
	if len(removed) > 0 {
		v.opts.Log.Info("temporary files of dead writers removed", "archive", v.name, "count", len(removed))
	}
	if err != nil && !isAbsent(err) && !errors.Is(err, fs.ErrPermission) { // somebody else's, in an archive that one can only add to
		v.opts.Log.Warn("temporary files cannot be looked through", "archive", v.name, "error", err)
	}
}

// errUnfinished ends the put of a segment whose WAL ends inside it.
var errUnfinished = errors.New("its WAL ends inside it")

func (v view) put(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	done := Pushed{As: name}
	err := v.store.Put(ctx, v.id.path(name), func(w io.Writer) error {
		var err error
		if done.Walk, err = v.write(ctx, w, name, src); err != nil {
			return err
		}
		return v.finished(ctx, name, done.Walk)
	})
	switch {
	case errors.Is(err, errUnfinished):
		return v.keepPartial(ctx, name, src, done.Walk)
	case errors.Is(err, fs.ErrExist):
		return v.settle(ctx, name, src)
	case err != nil:
		return Pushed{}, err
	case v.opts.VerifyPuts:
		return done, v.readBack(ctx, v.id.path(name), src)
	}
	return done, nil
}

// write writes the stored form of a file, and tells what its records look like.
func (v view) write(ctx context.Context, w io.Writer, name wal.Name, src Source) (wal.Walk, error) {
	if v.early != nil && v.early.take() {
		if err := v.early.writeTo(w); err != nil {
			return wal.Walk{}, err
		}
		return v.early.walk, nil
	}
	walker := newWalkerFor(name, v.id.SegmentSize)
	err := v.encode(ctx, w, io.TeeReader(whole(src), walker))
	return walker.finish(), err
}

// readBack compares what was stored with what was sent.
func (v view) readBack(ctx context.Context, stored string, src Source) error {
	ours, err := codec.DigestOf(whole(src))
	if err != nil {
		return err
	}
	got, err := v.digest(ctx, stored)
	if err == nil && got != ours {
		err = fmt.Errorf("its SHA-256 begins with %x, and %x was stored", got.SHA256[:8], ours.SHA256[:8])
	}
	if err != nil {
		return hinted{
			fmt.Errorf("%w: it was stored, and cannot be read back: %w", ErrDamaged, err),
			"the archive's host or its disk does not do what it says; do not rely on it",
		}
	}
	return nil
}

// finished is errUnfinished for a segment whose WAL ends inside it. A standby
// that follows a promotion archives one with archive_mode = always, and so does
// a server that starts again after a promotion that was interrupted. Its full
// name belongs to the finished segment: under it, this one would keep that one
// out, or end a recovery early. PostgreSQL itself adds .partial for the same
// reason (CleanupAfterArchiveRecovery in xlog.c).
func (v view) finished(ctx context.Context, name wal.Name, walk wal.Walk) error {
	switch {
	case name.Kind() != wal.KindSegment || walk.Status == wal.Complete:
		return nil
	case walk.Status == wal.Ended:
		return errUnfinished
	}
	// Behind the end of WAL may stand what a recycled segment held before; where
	// a history says that the timeline was left, that is no damage.
	histories, err := v.listWhere(ctx, func(string) bool { return false })
	if err != nil {
		return err
	}
	for _, e := range histories {
		if e.Name.Kind() != wal.KindHistory || e.Name.Timeline() <= name.Timeline() {
			continue
		}
		h, err := v.history(ctx, e.Name.Timeline())
		if err != nil && !errors.Is(err, ErrDamaged) {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		if left, ok := h.SwitchOf(name.Timeline()); ok && left == walk.End {
			return errUnfinished
		}
	}
	return nil
}

// keepPartial stores an unfinished segment as the .partial that it is.
func (v view) keepPartial(ctx context.Context, name wal.Name, src Source, walk wal.Walk) (Pushed, error) {
	done, err := v.keep(ctx, name.Partial(), src)
	if err != nil {
		return Pushed{}, err
	}
	v.opts.Log.Warn("the WAL of this segment ends inside it: it is stored as .partial",
		"archive", v.name, "file", name, "at", walk.End, "reason", walk.Reason)
	return done, nil
}

// whole reads all of a source. One that ends early is an error, not a shorter
// file.
func whole(src Source) io.Reader { return exactly(src, src.Size()) }

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
func (v view) inspect(name wal.Name, src Source) error { return inspect(name, src, v.expect()) }

// Inspect holds a file against its name and against a cluster, whose unknown
// fields fit everything: what Push refuses before it stores anything, for
// whoever has to decide without an archive at hand. ErrForeign if the file is
// refused.
func Inspect(name wal.Name, src Source, c Cluster) error {
	return inspect(name, src, wal.Expect{SystemID: c.SystemID, Major: c.Major, Size: c.SegmentSize})
}

func inspect(name wal.Name, src Source, want wal.Expect) error {
	switch name.Kind() {
	case wal.KindSegment, wal.KindPartial:
		head := make([]byte, wal.HeaderLen)
		n, err := src.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := wal.CheckSegment(name, head[:n], src.Size(), want); err != nil {
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

func refuse(err error) error {
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
func (v view) settle(ctx context.Context, name wal.Name, src Source) (Pushed, error) {
	done := Pushed{As: name, Found: true}
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
		return done, v.putBeside(ctx, name, ours, src, err)
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
func (v view) putBeside(ctx context.Context, name wal.Name, ours codec.Digest, src Source, damage error) error {
	beside := v.id.beside(name, ours.SHA256)
	err := v.store.Put(ctx, beside, func(w io.Writer) error { return v.encode(ctx, w, whole(src)) })
	if errors.Is(err, fs.ErrExist) {
		err = v.settleBeside(ctx, beside, ours)
	}
	if err != nil {
		return err
	}
	if damage != nil {
		v.opts.Log.Warn("the partial segment that is there is damaged; this one was stored beside it", "archive", v.name, "file", name, "as", beside, "damage", damage)
		return nil
	}
	v.opts.Log.Warn("another partial segment of this name is there; this one was stored beside it", "archive", v.name, "file", name, "as", beside)
	return nil
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
