package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// Options are what an operator or the cluster beside us settles about an
// archive. The zero value is valid: nothing is known of the cluster.
type Options struct {
	Cluster Cluster
	// Layout is what the operator says that the archive is; empty is anything.
	// Flat reads also a directory that has no archive.json, and never writes to
	// it.
	Layout Layout
	// GapIsEnd takes a gap, and WAL that ends inside a segment, for the end of
	// what was archived (restore_gap: end).
	GapIsEnd bool
	// ReadOnly is what every change is refused with; nil: the archive takes
	// them.
	ReadOnly error
	// Verified says that the store has verified each file before it gives it away,
	// as a mount of this archive does. It saves looking at the segment before for
	// the record that crosses in from there, and WAL that ends inside a segment is
	// as it was pushed. Damage that can be seen stays damage. FetchAhead looks at it
	// all the same: nobody says here what could not be verified below yet.
	Verified bool
	// CompressLevel is Zstandard's, 1 to 19; 0 is 1.
	CompressLevel int
	// VerifyPuts reads a file back after it was stored, and compares.
	VerifyPuts bool
	// Log gets what an operator should know although the call goes on; nil
	// drops it.
	Log *slog.Logger
	// Report is told how each Fetch, Stat and listing of the archive ended; nil
	// tells nobody.
	Report func(error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Archive is one archive. It holds nothing open; goroutines may share it.
type Archive struct {
	name  string
	store Store
	opts  Options
	// encoder compresses its files.
	encoder struct {
		mu   sync.Mutex // guards made
		made *codec.Encoder
	}
	shelf shelf
	held  held
	// seen is its identity as it was read last: a guess at where a file lies.
	seen atomic.Pointer[Identity]
}

// New returns the archive in a store. name is how messages call it: its URL.
func New(name string, store Store, opts Options) *Archive {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.CompressLevel == 0 {
		opts.CompressLevel = 1
	}
	return &Archive{name: name, store: store, opts: opts}
}

// Name is the archive's URL.
func (a *Archive) Name() string { return a.name }

// view is an archive whose identity was read and fits.
type view struct {
	*Archive
	id Identity
	// anonymous: there is no archive.json, and the operator said that this is
	// a flat archive all the same.
	anonymous bool
	// watch sees every byte that is read: also those of another segment that
	// verifying this one needs.
	watch io.Writer
	// settled: nothing may be delivered that later WAL could make wrong.
	settled bool
	// listener hears of the file what whoever takes it wants to know.
	listener listener
	// before is what the marker said when the archive was opened; nil if nobody asked.
	before *marker
	// early is the file to be pushed, as it is being encoded already, or nil.
	early *share
}

// open reads the identity. Every operation begins with it: what a directory
// without one says proves nothing.
func (a *Archive) open(ctx context.Context) (view, error) {
	var id Identity
	err := a.together(
		func() (err error) { id, err = a.readIdentity(ctx); return err },
		func() error { return a.requirements(ctx) },
	)
	if isAbsent(err) {
		return a.openAnonymous(err)
	}
	if err == nil {
		err = id.fits(a.opts.Cluster)
	}
	if err == nil && a.opts.Layout != "" && a.opts.Layout != id.Layout {
		err = fmt.Errorf("%w: the configuration says layout: %s, %s says %s", ErrIdentity, a.opts.Layout, identityFile, id.Layout)
	}
	if err != nil {
		return view{}, err
	}
	return view{Archive: a, id: id, watch: io.Discard}, nil
}

func (a *Archive) readIdentity(ctx context.Context) (Identity, error) {
	raw, err := readSmall(ctx, a.store, identityFile)
	if err != nil {
		return Identity{}, err
	}
	return ParseIdentity(raw)
}

// requiresDirectory holds one empty file for each feature that an archive has
// gained since it was made, and without which it must not be touched.
const requiresDirectory = "requires"

// requirements refuses an archive that has gained a feature: this version knows
// none.
func (a *Archive) requirements(ctx context.Context) error {
	entries, err := a.store.List(ctx, requiresDirectory)
	if isAbsent(err) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return tooNew(fmt.Sprintf("%s/%s", requiresDirectory, entries[0].Name()))
}

func (a *Archive) openAnonymous(absent error) (view, error) {
	if a.opts.Layout != Flat {
		return view{}, hinted{
			fmt.Errorf("%w: %w", ErrNoIdentity, absent),
			"is the file system mounted? pitr init makes a new archive; to read a directory of plain files that another tool wrote, set layout: flat",
		}
	}
	c := a.opts.Cluster
	if c.SystemID == 0 || c.Major == 0 || c.SegmentSize == 0 {
		return view{}, hinted{
			fmt.Errorf("%w: it has no %s, and the cluster's identity is not known either", ErrNoIdentity, identityFile),
			"set pgdata to the data directory",
		}
	}
	return view{Archive: a, anonymous: true, watch: io.Discard, id: Identity{
		SystemID: c.SystemID, Major: c.Major, SegmentSize: c.SegmentSize, Layout: Flat, Codec: None,
	}}, nil
}

// Identity reads archive.json. A directory without one is ErrNoIdentity.
func (a *Archive) Identity(ctx context.Context) (Identity, error) {
	return answer(ctx, a, func(ctx context.Context) (Identity, error) {
		v, err := a.open(ctx)
		if err == nil && v.anonymous {
			err = ErrNoIdentity
		}
		return v.id, err
	})
}

// openWritable is openConfirmed for what may be changed.
func (a *Archive) openWritable(ctx context.Context) (view, error) {
	if a.opts.ReadOnly != nil {
		return view{}, a.opts.ReadOnly
	}
	v, err := a.openConfirmed(ctx)
	if err == nil && v.anonymous {
		err = hinted{
			fmt.Errorf("%w: a directory without %s is only read", ErrNoIdentity, identityFile),
			"pitr init makes an archive",
		}
	}
	return v, err
}

// answer asks an archive something within ctx, even if its disk hangs, and says
// which archive an error is about.
func answer[T any](ctx context.Context, a *Archive, ask func(context.Context) (T, error)) (T, error) {
	got := make(chan T, 1)
	err := within(ctx, func(ctx context.Context) error {
		value, err := ask(ctx)
		got <- value
		return err
	})
	if err != nil {
		var none T
		return none, a.named(err)
	}
	return <-got, nil
}

// named says which archive an error is about. Everything exported does so, and
// nothing else.
func (a *Archive) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("archive %s: %w", a.name, err)
}

// expect is what a segment of this archive's cluster must say of itself.
func (v view) expect() wal.Expect {
	return wal.Expect{SystemID: v.id.SystemID, Major: v.id.Major, Size: v.id.SegmentSize}
}

// markerFile stands in wal/ and holds the archive's id: proof that this is the
// directory that belongs to archive.json, not the empty place where another
// file system ought to be mounted.
const markerFile = "archive.id"

// confirm proves that the directory which holds the files is the archive's own.
func (v view) confirm(ctx context.Context) error {
	if v.anonymous {
		return v.confirmAnonymous(ctx)
	}
	if v.id.Layout == Flat {
		again, err := v.Archive.open(ctx)
		if err == nil && again.id.ID != v.id.ID {
			err = fmt.Errorf("%w: it was exchanged for another one", ErrIdentity)
		}
		return err
	}
	return v.check(v.readMarker(ctx))
}

// check holds the marker against the identity.
func (v view) check(found marker) error {
	const name = walDirectory + "/" + markerFile
	got := strings.TrimSpace(string(found.text))
	switch {
	case isAbsent(found.err):
		return hinted{
			fmt.Errorf("%w: %s is missing: %w", ErrNoIdentity, name, found.err),
			"is a file system mounted on " + walDirectory + "/ that is not there now?",
		}
	case found.err != nil:
		return found.err
	case got != v.id.ID:
		return fmt.Errorf("%w: %s names another archive, %q", ErrIdentity, name, got)
	}
	return nil
}

// confirmAnonymous looks for one segment of this cluster: first for the one that
// was found last.
func (v view) confirmAnonymous(ctx context.Context) error {
	if n := v.held.lastWitness(); n != (wal.Name{}) && v.headerFits(ctx, n) {
		return nil
	}
	entries, err := v.list(ctx)
	if err != nil {
		return err
	}
	const tries = 16 // a foreign or damaged file or two prove nothing yet
	for i := len(entries) - 1; i >= max(0, len(entries)-tries); i-- {
		if entries[i].Name.Kind() == wal.KindSegment && v.headerFits(ctx, entries[i].Name) {
			v.held.witnessed(entries[i].Name)
			return nil
		}
	}
	return hinted{
		fmt.Errorf("%w: no segment of system identifier %d in it", ErrNoIdentity, v.id.SystemID),
		"an empty or unmounted directory proves nothing; pitr init writes an identity",
	}
}

func (v view) headerFits(ctx context.Context, n wal.Name) bool { return v.header(ctx, n) == nil }

// encoder returns the compressor that this archive's files need, or nil.
func (v view) encoder() (*codec.Encoder, error) {
	if v.id.Codec != Zstd {
		return nil, nil
	}
	return v.compressor()
}

// errNoAnswer says that a call outlived its budget: the disk hangs, or is slow.
var errNoAnswer = errors.New("no answer in time")
