package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"pitr/archive/wal"
)

// looked is how many segments at either end of a directory adopt looks at.
const looked = 8

// adopt accepts a directory that holds raw WAL of this cluster, as pitrtools,
// OmniPITR and cp leave it, or returns otherwise. One segment whose header fits
// is proof that the directory is the cluster's, one of another cluster that it
// is not, or not only: ErrIdentity. What is cut short or otherwise damaged
// proves neither, and other names are nobody's business here.
func adopt(ctx context.Context, store Store, id Identity, otherwise error) error {
	v := view{Archive: New("", store, Options{}), id: id, anonymous: true, watch: io.Discard}
	entries, err := v.list(ctx)
	if err != nil {
		return err
	}
	segments := slices.DeleteFunc(entries, func(e Entry) bool { return e.Name.Kind() != wal.KindSegment })
	if len(segments) > 2*looked {
		segments = slices.Delete(segments, looked, len(segments)-looked)
	}
	fits := false
	for _, e := range segments {
		switch err := v.header(ctx, e.Name); {
		case err == nil:
			fits = true
		case errors.Is(err, wal.ErrForeign):
			return hinted{
				fmt.Errorf("%w: %w", ErrIdentity, err),
				"WAL of two clusters, or from before pg_upgrade, needs two directories",
			}
		case errors.Is(err, errUnread):
			return err
		}
	}
	if !fits {
		return otherwise
	}
	return nil
}

// errUnread says that a file could not be looked at, which says nothing of it.
var errUnread = errors.New("not readable")

// header holds the beginning of a stored raw segment against the cluster.
func (v view) header(ctx context.Context, n wal.Name) error {
	f, err := v.store.Open(ctx, v.id.path(n))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", n, errUnread, err)
	}
	defer f.Close()
	head := make([]byte, wal.HeaderLen)
	m, err := f.ReadAt(head, 0)
	if m < len(head) && f.Size() >= int64(len(head)) {
		return fmt.Errorf("%s: %w: %w", n, errUnread, err)
	}
	return wal.CheckSegment(n, head[:m], f.Size(), v.expect())
}
