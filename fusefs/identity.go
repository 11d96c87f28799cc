package fusefs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"pitr/archive"
)

const (
	// askingTime is how long the archives have to tell whose they are, when they are
	// mounted, and lateTime how long when the first of them has told it.
	askingTime = 30 * time.Second
	lateTime   = 3 * time.Second
)

// Known is what archives said of themselves when they were asked.
type Known struct {
	cluster    archive.Cluster
	identities []archive.Identity // by archive; zero for one that has none, or did not answer
	// key is what the cache calls these archives.
	key string
}

// SegmentSize is that of their segments, in bytes.
func (k *Known) SegmentSize() int64 { return int64(k.cluster.SegmentSize) }

// Ask asks archives whose they are, all at the same time. One answer at least is
// needed, and two that differ are one too many. Those that do not answer are told of
// in the log. When ctx ends, its cause is the error.
func Ask(ctx context.Context, set archive.Set, log *slog.Logger) (*Known, error) {
	k := &Known{identities: make([]archive.Identity, len(set))}
	var doubts []error
	for i, r := range askAll(ctx, set) {
		switch {
		case errors.Is(r.err, archive.ErrIdentity):
			return nil, r.err
		case r.err != nil:
			doubts = append(doubts, r.err)
			continue
		case k.key != "" && r.cluster != k.cluster:
			return nil, fmt.Errorf("%w: %s belongs to system identifier %d, the one before it to %d", archive.ErrIdentity, set[i].Name(), r.cluster.SystemID, k.cluster.SystemID)
		}
		k.identities[i] = r.id
		if k.key == "" {
			k.cluster, k.key = r.cluster, keyOf(set[i], r.cluster, r.id)
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case len(doubts) == len(set):
		return nil, errors.Join(append(doubts, errors.New("no archive could be asked"))...)
	}
	for _, err := range doubts {
		log.Warn("mounted without an answer of this archive", "error", err)
	}
	return k, nil
}

// reply is what one archive said.
type reply struct {
	cluster archive.Cluster
	id      archive.Identity
	err     error
}

// askAll asks all archives at once. When one has answered, the others have a moment
// left: a host that is away must not hold up what another one can serve.
func askAll(ctx context.Context, set archive.Set) []reply {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	within := func(d time.Duration) *time.Timer {
		return time.AfterFunc(d, func() { end(fmt.Errorf("no answer within %s", d)) })
	}
	timer := within(askingTime)
	defer func() { timer.Stop() }()
	replies := make([]reply, len(set))
	first := sync.OnceFunc(func() { timer.Stop(); timer = within(lateTime) })
	var all sync.WaitGroup
	for i, a := range set {
		all.Go(func() {
			replies[i] = ask(ctx, a)
			switch err := replies[i].err; {
			case err == nil:
				first()
			case ctx.Err() != nil:
				replies[i].err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
		})
	}
	all.Wait()
	return replies
}

func ask(ctx context.Context, a *archive.Archive) (r reply) {
	if r.cluster, r.err = a.ClusterOf(ctx); r.err != nil {
		return r
	}
	r.id, r.err = a.With(func(o *archive.Options) { o.Cluster = r.cluster }).Identity(ctx)
	if errors.Is(r.err, archive.ErrNoIdentity) {
		return reply{cluster: r.cluster}
	}
	return r
}

// keyOf names the directory of an archive in the cache: its id, or, of one without,
// what its place and its cluster come to.
func keyOf(a *archive.Archive, c archive.Cluster, id archive.Identity) string {
	if id.ID != "" {
		return id.ID
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", a.Name(), c.SystemID, c.Major, c.SegmentSize))
	return fmt.Sprintf("%x", sum[:keyLength/2])
}

// shownArchive is one in .pitr/identity.json.
type shownArchive struct {
	Name     string            `json:"name"`
	Identity *archive.Identity `json:"identity"`
}

// shown is .pitr/identity.json.
func (k *Known) shown(o Options) []byte {
	var all []shownArchive
	for i, a := range o.Archives {
		one := shownArchive{Name: a.Name()}
		if k.identities[i].ID != "" {
			one.Identity = &k.identities[i]
		}
		all = append(all, one)
	}
	return asJSON(map[string]any{
		"source": o.Source, "version": o.Version, "pid": os.Getpid(), "archives": all,
		"system_identifier": fmt.Sprint(k.cluster.SystemID), "postgres_major": k.cluster.Major, "segment_size": k.cluster.SegmentSize,
	})
}

// archive is wal/archive.json: the identity of the first archive that has one, as
// that of a flat archive of raw files, which wal/ is; nil if none has.
func (k *Known) archive() []byte {
	for _, id := range k.identities {
		if id.ID != "" {
			id.Layout, id.Codec = archive.Flat, archive.None
			return asJSON(id)
		}
	}
	return nil
}
