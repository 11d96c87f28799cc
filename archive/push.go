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

	archive string // the id of the one that has it
	place   string // where it lies in the store
	size    int64  // what was written there; -1: it was found
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
	defer early.Stop()
	v, err := a.openWritable(ctx)
	if err != nil {
		return Pushed{}, err
	}
	if err := v.inspect(name, src); err != nil {
		return Pushed{}, err
	}
	v.early = early.share(a).suits(v.id)
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
	err = a.together(
		func() error { return v.confirm(ctx) },
		func() error { return v.stands(ctx, done) },
	)
	if err != nil {
		return Pushed{}, fmt.Errorf("stored, but where? %w", err)
	}
	if v.opts.VerifyPuts && done.size >= 0 {
		return done, v.readBack(ctx, done.place, src)
	}
	return done, nil
}

// stands looks once more for what was stored, and synced since. Its host may have
// lost power between these two: then the sync went to one that has just
// started, and the name may be gone.
func (v view) stands(ctx context.Context, done Pushed) error {
	info, err := v.store.Stat(ctx, done.place)
	switch {
	case isAbsent(err):
		return fmt.Errorf("%s is not there any more: did its host restart?", done.place)
	case err != nil:
		return err
	case done.size >= 0 && info.Size() != done.size:
		return fmt.Errorf("%w: %s has %d bytes, and %d were written", ErrDamaged, done.place, info.Size(), done.size)
	}
	return nil
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
	done := Pushed{As: name, place: v.id.path(name)}
	err := v.store.Put(ctx, done.place, func(w io.Writer) error {
		var err error
		if done.Walk, err = v.write(ctx, &counting{w, &done.size}, name, src); err != nil {
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
	}
	return done, nil
}

// counting counts what is written.
type counting struct {
	w io.Writer
	n *int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}

// write writes the stored form of a file, and tells what its records look like.
func (v view) write(ctx context.Context, w io.Writer, name wal.Name, src Source) (wal.Walk, error) {
	if early := v.early.take(); early != nil {
		defer early.leave()
		if err := early.writeTo(w); err != nil {
			return wal.Walk{}, err
		}
		return early.of.walk, nil
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
