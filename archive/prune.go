package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pitr/archive/wal"
)

// tempAge is how old a temporary file must be to be removed without proof that
// its writer is dead: no push lives that long.
const tempAge = 24 * time.Hour

// quarantineDirectory holds what was set aside, beside the files.
const quarantineDirectory = "quarantine"

// Limit says up to where WAL is pruned. Exactly one field is set.
type Limit struct {
	// Before is the first segment to keep. As with pg_archivecleanup, the
	// timeline does not count: every timeline is cut at the same point.
	Before wal.Name
	// Written keeps every segment from the first on that was stored at or
	// after this time.
	Written time.Time
}

// Pruned is what Prune removed, or with DryRun would remove.
type Pruned struct {
	Files      []PrunedFile
	Bytes      int64 // as stored
	Temporary  []string
	FirstKept  wal.Name
	KeptNumber int
}

// PrunedFile is one file that goes, or has gone.
type PrunedFile struct {
	Name   wal.Name
	Stored string // its place in the store
	Bytes  int64  // as stored
}

// Plan tells what a limit would remove, the oldest WAL first: segments, partial
// segments and backup labels before it, on every timeline. History files always
// stay. A limit that would leave no segment is an error.
func (a *Archive) Plan(ctx context.Context, limit Limit) (plan Pruned, err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openWritable(ctx)
	if err != nil {
		return Pruned{}, err
	}
	entries, err := v.list(ctx)
	if err != nil {
		return Pruned{}, err
	}
	sortByPosition(entries)
	first, err := limit.firstKept(entries)
	if err != nil {
		return Pruned{}, err
	}
	return cut(entries, first)
}

// Prune removes what Plan told, then temporary files that nobody can be writing
// any more. removed is called for each file. After an error or a kill, run it
// again: what is left is still without gaps.
func (a *Archive) Prune(ctx context.Context, plan Pruned, removed func(wal.Name)) (done Pruned, err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openWritable(ctx)
	if err != nil {
		return Pruned{}, err
	}
	done = Pruned{FirstKept: plan.FirstKept, KeptNumber: plan.KeptNumber}
	for _, f := range plan.Files {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		err := v.store.Remove(ctx, f.Stored)
		if isAbsent(err) {
			continue // somebody else was here
		}
		if err != nil {
			return done, fmt.Errorf("prune: %w", err)
		}
		done.Files, done.Bytes = append(done.Files, f), done.Bytes+f.Bytes
		removed(f.Name)
	}
	cutoff := a.opts.Now().Add(-tempAge)
	for _, dir := range []string{v.id.pending(), v.id.top()} {
		swept, err := v.store.Sweep(ctx, dir, cutoff)
		done.Temporary = append(done.Temporary, swept...)
		if err != nil && !isAbsent(err) {
			return done, err
		}
	}
	return done, nil
}

// Quarantine sets a stored file aside, durably, and returns its new name in the
// store. The good copy can be pushed then.
func (a *Archive) Quarantine(ctx context.Context, name wal.Name) (moved string, err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openWritable(ctx)
	if err != nil {
		return "", err
	}
	from := v.id.path(name)
	to := v.id.aside(from, a.opts.Now())
	if err := v.store.Move(ctx, from, to); err != nil {
		if isAbsent(err) {
			return "", fmt.Errorf("%s: %w", name, ErrAbsent)
		}
		return "", err
	}
	return to, nil
}

// firstKept turns a limit into the position of the first segment to keep.
func (l Limit) firstKept(sorted []Entry) (wal.Name, error) {
	if l.Written.IsZero() {
		return l.Before.Segment(), l.known(sorted)
	}
	for _, e := range sorted {
		if e.Name.Kind() != wal.KindSegment {
			continue
		}
		info, err := e.Info()
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return wal.Name{}, err
		}
		if !info.ModTime().Before(l.Written) {
			return e.Name, nil
		}
	}
	return wal.Name{}, errNothingLeft
}

// known refuses a limit on a timeline that the archive has never seen: a slip of
// the hand there removes what nobody meant.
func (l Limit) known(entries []Entry) error {
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.Name.Timeline() == l.Before.Timeline() }) {
		return nil
	}
	return hinted{
		fmt.Errorf("%s: nothing of timeline %d is here", l.Before, l.Before.Timeline()),
		"pitr wal list shows the timelines and their segments",
	}
}

var errNothingLeft = hinted{
	errors.New("this would leave no segment at all"),
	"the newest segments are what a standby or a new base backup needs first",
}

// cut divides the entries at the first one to keep.
func cut(sorted []Entry, first wal.Name) (Pruned, error) {
	plan := Pruned{FirstKept: first}
	for _, e := range sorted {
		switch {
		case e.Name.Kind() == wal.KindHistory:
		case position(e.Name) >= position(first):
			if e.Name.Kind() == wal.KindSegment {
				plan.KeptNumber++
			}
		default:
			info, err := e.Info()
			if isAbsent(err) {
				continue
			}
			if err != nil {
				return Pruned{}, err
			}
			plan.Files = append(plan.Files, PrunedFile{e.Name, e.Stored, info.Size()})
			plan.Bytes += info.Size()
		}
	}
	if plan.KeptNumber == 0 && len(plan.Files) > 0 {
		return Pruned{}, errNothingLeft
	}
	return plan, nil
}

// position orders WAL without the timeline, as pg_archivecleanup does.
func position(n wal.Name) uint64 { return uint64(n.LogID())<<32 | uint64(n.SegID()) }
