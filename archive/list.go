package archive

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"pitr/archive/wal"
)

// cutoffNone sweeps only what is proven dead.
var cutoffNone time.Time

// Entry is one file of PostgreSQL in an archive.
type Entry struct {
	Name wal.Name
	// Info describes the stored form: its size and when it was written.
	Info func() (fs.FileInfo, error)
}

// List returns what the archive holds, ordered by timeline and then by name;
// history files of a timeline come first. Names that are not PostgreSQL's are
// passed over.
func (a *Archive) List(ctx context.Context) (entries []Entry, err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openConfirmed(ctx)
	if err != nil {
		return nil, err
	}
	return v.list(ctx)
}

func (v view) list(ctx context.Context) ([]Entry, error) {
	return v.listWhere(ctx, func(string) bool { return true })
}

// listFor lists what can tell whether a missing file once was, without reading
// all of a tree: the history files, and what stands at or after a segment of
// its timeline; for a history, its timeline. An archive that holds no WAL at
// all proves nothing: it may be a second one, made while the file system of
// the first was not mounted.
func (v view) listFor(ctx context.Context, n wal.Name) ([]Entry, error) {
	first := n.Directory()
	if n.Kind() == wal.KindHistory {
		first = fmt.Sprintf("%08X%08X", uint32(n.Timeline()), 0)
	}
	holds := false
	entries, err := v.listWhere(ctx, func(dir string) bool {
		holds = true
		return dir[:8] == first[:8] && dir >= first
	})
	if err == nil && !holds && len(entries) == 0 {
		err = hinted{
			fmt.Errorf("%w: it holds no WAL yet, which proves nothing", ErrNoIdentity),
			"is this the right archive, and was its file system mounted when pitr init made it? SELECT pg_switch_wal() archives a first segment",
		}
	}
	return entries, err
}

// listWhere lists the top directory and those below it that want takes.
func (v view) listWhere(ctx context.Context, want func(dir string) bool) ([]Entry, error) {
	top := v.id.top()
	var found []Entry
	children, err := v.store.List(ctx, top)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	for _, c := range children {
		if !c.IsDir() {
			found = v.appendEntry(found, top, c)
			continue
		}
		if v.id.Layout == Flat || !isGroup(c.Name()) || !want(c.Name()) {
			continue
		}
		files, err := v.store.List(ctx, path.Join(top, c.Name()))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", c.Name(), err)
		}
		for _, f := range files {
			found = v.appendEntry(found, path.Join(top, c.Name()), f)
		}
	}
	slices.SortFunc(found, func(a, b Entry) int { return compareNames(a.Name, b.Name) })
	return found, nil
}

// compareNames orders by timeline, histories first, then by name, which is the
// order of the WAL.
func compareNames(a, b wal.Name) int {
	return cmp.Or(
		cmp.Compare(a.Timeline(), b.Timeline()),
		cmp.Compare(kindOrder(a), kindOrder(b)),
		strings.Compare(a.String(), b.String()),
	)
}

func kindOrder(n wal.Name) int {
	if n.Kind() == wal.KindHistory {
		return 0
	}
	return 1
}

// isGroup tells whether a directory is one of a tree's: 16 upper-case
// hexadecimal digits.
func isGroup(name string) bool {
	return len(name) == 16 && strings.Trim(name, "0123456789ABCDEF") == ""
}

func (v view) appendEntry(found []Entry, dir string, file fs.DirEntry) []Entry {
	n, ok := v.id.parse(dir, file.Name())
	if !ok || file.IsDir() {
		return found
	}
	return append(found, Entry{Name: n, Info: file.Info})
}

// sortByPosition orders by place in the WAL, whatever the timeline.
func sortByPosition(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(position(a.Name), position(b.Name)) })
}
