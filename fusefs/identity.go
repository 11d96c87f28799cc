package fusefs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"

	"pitr/archive"
)

// askingTime is how long an archive has to tell whose it is, when it is mounted.
const askingTime = 30 * time.Second

// known is what the archives said of themselves.
type known struct {
	cluster    archive.Cluster
	identities []archive.Identity // by archive; zero for one that has none, or did not answer
	// key is what the cache calls these archives.
	key string
}

// whose asks the archives whose they are. One answer at least is needed, and two
// that differ are one too many. Those that do not answer are told of in the log.
func whose(ctx context.Context, o Options) (known, error) {
	k := known{identities: make([]archive.Identity, len(o.Archives))}
	var doubts []error
	for i, a := range o.Archives {
		c, id, err := ask(ctx, a)
		switch {
		case errors.Is(err, archive.ErrIdentity):
			return known{}, err
		case err != nil:
			doubts = append(doubts, err)
			continue
		case k.key != "" && c != k.cluster:
			return known{}, fmt.Errorf("%w: %s belongs to system identifier %d, the one before it to %d", archive.ErrIdentity, a.Name(), c.SystemID, k.cluster.SystemID)
		}
		k.identities[i] = id
		if k.key == "" {
			k.cluster, k.key = c, keyOf(a, c, id)
		}
	}
	if len(doubts) == len(o.Archives) {
		return known{}, errors.Join(append(doubts, errors.New("no archive could be asked"))...)
	}
	for _, err := range doubts {
		o.Log.Warn("mounted without an answer of this archive", "error", err)
	}
	return k, nil
}

func ask(ctx context.Context, a *archive.Archive) (archive.Cluster, archive.Identity, error) {
	ctx, stop := context.WithTimeout(ctx, askingTime)
	defer stop()
	c, err := a.ClusterOf(ctx)
	if err != nil {
		return c, archive.Identity{}, err
	}
	id, err := a.With(func(o *archive.Options) { o.Cluster = c }).Identity(ctx)
	if errors.Is(err, archive.ErrNoIdentity) {
		return c, archive.Identity{}, nil
	}
	return c, id, err
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
func (k known) shown(o Options) []byte {
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
func (k known) archive() []byte {
	for _, id := range k.identities {
		if id.ID != "" {
			id.Layout, id.Codec = archive.Flat, archive.None
			return asJSON(id)
		}
	}
	return nil
}
