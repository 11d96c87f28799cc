package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"pitr/archive/wal"
)

// With returns the same archive with other options.
func (a *Archive) With(change func(*Options)) *Archive {
	o := a.opts
	change(&o)
	return New(a.name, a.store, o)
}

// report tells whoever wants to know how a question to the archive ended.
func (a *Archive) report(err error) {
	if a.opts.Report != nil {
		a.opts.Report(err)
	}
}

// ClusterOf tells whose archive this is: its identity says so, or the options, or,
// of a flat one without both, the headers of its segments, if those that are looked
// at agree. ErrIdentity if they do not; ErrNoIdentity if there is none.
func (a *Archive) ClusterOf(ctx context.Context) (Cluster, error) {
	return answer(ctx, a, a.cluster)
}

func (a *Archive) cluster(ctx context.Context) (Cluster, error) {
	id, err := a.readIdentity(ctx)
	if isAbsent(err) && a.opts.Layout == Flat {
		return a.clusterOfSegments(ctx, err)
	}
	if isAbsent(err) {
		_, err = a.openAnonymous(err) // in its words
	}
	return Cluster{id.SystemID, id.Major, id.SegmentSize}, err
}

// clusterOfSegments asks segments from both ends of a directory. What cannot be a
// segment says nothing: a copy that broke off, a file of zeros.
func (a *Archive) clusterOfSegments(ctx context.Context, absent error) (Cluster, error) {
	c := a.opts.Cluster
	if c.SystemID != 0 && c.Major != 0 && c.SegmentSize != 0 {
		return c, nil
	}
	v := view{Archive: a, anonymous: true, id: Identity{Layout: Flat, Codec: None}, watch: io.Discard}
	entries, err := v.list(ctx)
	if err != nil {
		return Cluster{}, err
	}
	found := Cluster{}
	for _, n := range atBothEnds(entries) {
		one, err := v.clusterIn(ctx, n)
		switch {
		case errors.Is(err, errUnread):
			return Cluster{}, err
		case err != nil:
			continue
		case found != Cluster{} && found != one:
			return Cluster{}, hinted{
				fmt.Errorf("%w: it holds segments of system identifier %d and of %d", ErrIdentity, found.SystemID, one.SystemID),
				"WAL of two clusters, or from before pg_upgrade, needs two directories; or set pgdata to the data directory of the one that is meant",
			}
		}
		found = one
	}
	if found == (Cluster{}) {
		return Cluster{}, hinted{
			fmt.Errorf("%w: no segment in it that would tell whose it is: %w", ErrNoIdentity, absent),
			"is the file system mounted? pgdata can say whose archive it is",
		}
	}
	return found, Identity{SystemID: found.SystemID, Major: found.Major, SegmentSize: found.SegmentSize}.fits(c)
}

// atBothEnds picks the first and the last segments of a listing.
func atBothEnds(entries []Entry) []wal.Name {
	var names []wal.Name
	for _, e := range entries {
		if e.Name.Kind() == wal.KindSegment {
			names = append(names, e.Name)
		}
	}
	if len(names) > 2*looked {
		names = append(names[:looked:looked], names[len(names)-looked:]...)
	}
	return names
}

// clusterIn reads the cluster from the header of a raw segment.
func (v view) clusterIn(ctx context.Context, n wal.Name) (Cluster, error) {
	f, err := v.store.Open(ctx, v.id.path(n))
	if err != nil {
		return Cluster{}, fmt.Errorf("%s: %w: %w", n, errUnread, err)
	}
	defer f.Close()
	head := make([]byte, wal.HeaderLen)
	m, err := f.ReadAt(head, 0)
	if m < len(head) && f.Size() >= int64(len(head)) {
		return Cluster{}, fmt.Errorf("%s: %w: %w", n, errUnread, err)
	}
	if err := wal.CheckSegment(n, head[:m], f.Size(), wal.Expect{}); err != nil {
		return Cluster{}, err
	}
	h, err := wal.ParsePageHeader(head)
	major, _ := wal.MajorOf(h.Magic)
	return Cluster{h.SystemID, major, h.SegmentSize}, err
}

// Digested is a writer that Fetch tells the SHA-256 of what it wrote.
type Digested interface {
	io.Writer
	Digested(sum [sha256.Size]byte)
}

// Provisional is a writer that Fetch tells if what it wrote is good only for as long
// as nothing more is archived: then it must not be kept for later. It is told before
// Fetch says that the file is verified. FetchAhead calls that ErrUnsettled.
type Provisional interface {
	io.Writer
	Provisional(reason string)
}

// listener is who takes a file. He is told nothing of another one that must be read to
// verify it.
type listener struct {
	file wal.Name
	w    io.Writer
}

// wantsDigest tells whether the digest of a file is of use.
func (l listener) wantsDigest(n wal.Name) bool {
	_, ok := l.w.(Digested)
	return ok && n == l.file
}

func (l listener) digested(n wal.Name, sum [sha256.Size]byte) {
	if l.wantsDigest(n) {
		l.w.(Digested).Digested(sum)
	}
}

// provisional notes that a file is good for now only; it is an error where nobody has
// asked for it yet.
func (v view) provisional(reason string) error {
	if v.settled {
		return fmt.Errorf("%w: %s", ErrUnsettled, reason)
	}
	if p, ok := v.listener.w.(Provisional); ok {
		p.Provisional(reason)
	}
	return nil
}
