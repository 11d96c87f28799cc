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
	// Stored is its place in the store. Two entries may have one name: a
	// .partial, and another one that is stored beside it.
	Stored string
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

// Newest returns the newest segment of each timeline that the archive holds. Of a
// tree it reads the last directory of each timeline only.
func (a *Archive) Newest(ctx context.Context) (newest map[wal.TimelineID]wal.Name, err error) {
	defer func() { err = a.named(err) }()
	v, err := a.openConfirmed(ctx)
	if err != nil {
		return nil, err
	}
	last := map[string]string{} // of each timeline, by its eight digits
	if _, err := v.listWhere(ctx, func(dir string) bool { last[dir[:8]] = max(last[dir[:8]], dir); return false }); err != nil {
		return nil, err
	}
	entries, err := v.listWhere(ctx, func(dir string) bool { return last[dir[:8]] == dir })
	if err != nil {
		return nil, err
	}
	newest = map[wal.TimelineID]wal.Name{}
	for _, e := range entries { // in the order of the WAL
		if e.Name.Kind() == wal.KindSegment {
			newest[e.Name.Timeline()] = e.Name
		}
	}
	return newest, nil
}

func (v view) list(ctx context.Context) ([]Entry, error) {
	return v.listWhere(ctx, func(string) bool { return true })
}

// listFor lists what can tell whether a missing file once was, without reading
// all of a tree: the history files, and what stands at or after a segment of
// its timeline; for a history, its timeline. An archive that holds no WAL at
// all proves nothing: it may be a second one, made while the file system of
// the first was not mounted. Histories are no WAL: pitr init brings them along.
func (v view) listFor(ctx context.Context, n wal.Name) ([]Entry, error) {
	first := n.Directory()
	if n.Kind() == wal.KindHistory {
		first = fmt.Sprintf("%08X%08X", uint32(n.Timeline()), 0)
	}
	var others []string
	entries, err := v.listFrom(ctx, first, func(dir string) bool {
		if dir[:8] == first[:8] && dir >= first {
			return true
		}
		others = append(others, dir)
		return false
	})
	if err != nil {
		return nil, err
	}
	for holds := holdsWAL(entries); !holds; holds, others = v.groupHoldsWAL(ctx, others[0]), others[1:] {
		if len(others) == 0 {
			return nil, hinted{
				fmt.Errorf("%w: it holds no WAL yet, which proves nothing", ErrNoIdentity),
				"is this the right archive, and was its file system mounted when pitr init made it? SELECT pg_switch_wal() archives a first segment",
			}
		}
	}
	return entries, nil
}

func holdsWAL(entries []Entry) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool { return hasRecords(e.Name) })
}

// groupHoldsWAL looks into one directory of a tree. One that cannot be listed
// holds nothing that could prove anything.
func (v view) groupHoldsWAL(ctx context.Context, dir string) bool {
	entries, err := v.listGroup(ctx, dir)
	return err == nil && holdsWAL(entries)
}

// listFrom is listWhere, which begins with first. Far away that directory is listed
// before it is known that it is there: it nearly always is, and is the only one.
func (v view) listFrom(ctx context.Context, first string, want func(dir string) bool) ([]Entry, error) {
	if !v.isFar() || v.id.Layout != Tree {
		return v.listWhere(ctx, want)
	}
	var early, entries []Entry
	earlyErr := errNoAnswer // unless it comes to an end
	listed := make(chan struct{})
	err := v.together(
		func() error { defer close(listed); early, earlyErr = v.listGroup(ctx, first); return nil },
		func() (err error) {
			entries, err = v.listWith(ctx, want, func(ctx context.Context, dir string) ([]Entry, error) {
				if dir == first {
					if <-listed; !isAbsent(earlyErr) { // else it was made just now
						return early, earlyErr
					}
				}
				return v.listGroup(ctx, dir)
			})
			return err
		},
	)
	return entries, err
}

// listWhere lists the top directory and those below it that want takes.
func (v view) listWhere(ctx context.Context, want func(dir string) bool) ([]Entry, error) {
	return v.listWith(ctx, want, v.listGroup)
}

// listWith is listWhere with a way to list one directory of a tree.
func (v view) listWith(ctx context.Context, want func(dir string) bool, list func(context.Context, string) ([]Entry, error)) ([]Entry, error) {
	top := v.id.top()
	var found []Entry
	children, err := v.store.List(ctx, top)
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	v.alive()
	if err := v.mustBeWhole(children); err != nil {
		return nil, err
	}
	for _, c := range children {
		if !v.isGroup(c) {
			found = v.appendEntry(found, top, c)
			continue
		}
		if !want(c.Name()) {
			continue
		}
		files, err := list(ctx, c.Name())
		if err != nil {
			return nil, err
		}
		found = append(found, files...)
	}
	slices.SortFunc(found, func(a, b Entry) int { return compareNames(a.Name, b.Name) })
	return found, nil
}

// mustBeWhole looks for the archive's own file in a listing of its top
// directory. It is there, as was confirmed, so a listing without it was cut
// short: over SFTP an error of the far disk looks like its end.
func (v view) mustBeWhole(children []fs.DirEntry) error {
	own := markerFile
	if v.id.Layout == Flat {
		own = identityFile
	}
	if v.anonymous || slices.ContainsFunc(children, func(e fs.DirEntry) bool { return e.Name() == own }) {
		return nil
	}
	return fmt.Errorf("the listing of %s is not whole: %s is not in it", v.id.top(), own)
}

// listGroup lists one directory of a tree.
func (v view) listGroup(ctx context.Context, name string) ([]Entry, error) {
	dir := path.Join(v.id.top(), name)
	files, err := v.store.List(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	v.alive()
	var found []Entry
	for _, f := range files {
		found = v.appendEntry(found, dir, f)
	}
	return found, nil
}

// alive tells a watch that the archive answers, though no byte of the file has
// come yet.
func (v view) alive() { _, _ = v.watch.Write(nil) }

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

// isGroup tells whether this is a directory of a tree: 16 upper-case hexadecimal
// digits. It may be a link to a directory: somebody moved it to another disk.
func (v view) isGroup(e fs.DirEntry) bool {
	name := e.Name()
	return v.id.Layout == Tree && len(name) == 16 && strings.Trim(name, "0123456789ABCDEF") == "" && !e.Type().IsRegular()
}

func (v view) appendEntry(found []Entry, dir string, file fs.DirEntry) []Entry {
	n, ok := v.id.parse(dir, file.Name())
	if !ok || file.IsDir() {
		return found
	}
	return append(found, Entry{Name: n, Stored: path.Join(dir, file.Name()), Info: file.Info})
}

// sortByPosition orders by place in the WAL, whatever the timeline.
func sortByPosition(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(position(a.Name), position(b.Name)) })
}
