package archive

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"pitr/archive/wal"
)

// Listed is one name in a listing.
type Listed struct {
	Name wal.Name
	// Found is known where the listing itself told it: of segments on another
	// host. Elsewhere it is zero; Stat tells it.
	Found
}

// Names lists what any of the archives has, each name once, by timeline and then by
// name. It is whole, or an error: every archive has to answer.
func (s Set) Names(ctx context.Context) ([]Listed, error) {
	var all []Listed
	for _, a := range s {
		listed, err := answer(ctx, a, a.names)
		a.report(err)
		if err != nil {
			return nil, err
		}
		all = append(all, listed...)
	}
	// Stable: of two copies, that of the archive which is asked first.
	slices.SortStableFunc(all, func(x, y Listed) int { return compareNames(x.Name, y.Name) })
	return slices.CompactFunc(all, func(x, y Listed) bool { return x.Name == y.Name }), nil
}

func (a *Archive) names(ctx context.Context) ([]Listed, error) {
	v, err := a.openConfirmed(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := v.list(ctx)
	if err != nil {
		return nil, err
	}
	listed := make([]Listed, 0, len(entries))
	for _, e := range entries {
		if e.Stored != v.id.path(e.Name) {
			continue // a .partial beside another one
		}
		listed = append(listed, Listed{e.Name, v.told(e)})
		e.Info = nil // what the store keeps for it can go
	}
	return listed, nil
}

// told is what is known of a listed file without asking for it.
func (v view) told(e Entry) Found {
	if !v.isFar() || v.id.Codec == Zstd && !hasRecords(e.Name) {
		return Found{}
	}
	info, err := e.Info()
	if err != nil || !info.Mode().IsRegular() {
		return Found{}
	}
	found := Found{Size: info.Size(), ModTime: info.ModTime(), Stored: info.Size(), Archive: v.name}
	if v.id.Codec == Zstd {
		found.Size = int64(v.id.SegmentSize)
	}
	return found
}

// Aside is a file that was set aside.
type Aside struct {
	Name wal.Name
	// Base is its name in quarantine/ of a flat archive.
	Base string
	Time time.Time
}

// SetAside lists what lies in quarantine in any of the archives. Every archive has
// to answer.
func (s Set) SetAside(ctx context.Context) ([]Aside, error) {
	var all []Aside
	for _, a := range s {
		found, err := answer(ctx, a, a.setAsides)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func (a *Archive) setAsides(ctx context.Context) ([]Aside, error) {
	v, err := a.openConfirmed(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := v.store.List(ctx, path.Join(v.id.top(), quarantineDirectory))
	if err != nil && !isAbsent(err) {
		return nil, err
	}
	var all []Aside
	for _, e := range entries {
		stored, ok := cutAside(e.Name())
		if !ok {
			continue
		}
		raw := stored[:len(stored)-min(len(stored), len(v.id.Codec.suffix()))]
		n, err := wal.ParseName(raw)
		if err != nil || path.Base(v.id.path(n)) != stored {
			continue
		}
		when, _ := time.Parse(asideTime, e.Name()[len(stored)+1:][:len(asideTime)])
		all = append(all, Aside{n, fmt.Sprintf("%s%s", n, e.Name()[len(stored):]), when})
	}
	return all, nil
}
