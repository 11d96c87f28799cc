package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/codec"
	"pitr/archive/wal"
)

// unfinished is a segment whose WAL was written up to a record in its middle,
// and where that is. What follows is zeros, as on a primary.
func unfinished(t testing.TB, f file) (file, wal.LSN) {
	t.Helper()
	end := archivetest.Boundary(t, f.name, f.content)
	cut := file{f.name, slices.Clone(f.content)}
	clear(cut.content[end%wal.LSN(mb):])
	return cut, end
}

// recycled is a segment whose WAL was streamed up to a record in its middle: what
// the file held before is not cleared, and looks like damage.
func recycled(t testing.TB, f file) (file, wal.LSN) {
	t.Helper()
	end := archivetest.Boundary(t, f.name, f.content)
	cut := file{f.name, slices.Clone(f.content)}
	for i := int(end % wal.LSN(mb)); i < len(cut.content); i++ {
		cut.content[i] = byte(i*7) | 1
	}
	return cut, end
}

// asPartial is a file under the name that an unfinished segment gets.
func asPartial(f file) file { return file{f.name.Partial(), f.content} }

// leaving is the history of a timeline that left another one at a point.
func leaving(tli, parent wal.TimelineID, at wal.LSN) file {
	return history(tli, fmt.Sprintf("%d\t%s\tno recovery target specified\n", parent, at))
}

// A standby that follows a promotion archives the last segment of the old
// timeline under its full name. That name belongs to the finished one.
func TestUnfinishedSegmentIsStoredAsPartial(t *testing.T) {
	whole := segments(1, 0x11, 1, 1)[0]
	cut, _ := unfinished(t, whole)
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		for _, found := range []bool{false, true} {
			done, err := a.Push(t.Context(), cut.name, cut.source())
			if err != nil || done.As != cut.name.Partial() || done.Found != found || done.Walk.Status != wal.Ended {
				t.Errorf("%v: got %+v, error %v, want a partial, found before: %v", f, done, err, found)
			}
		}
		wantStored(t, a, cut.name.Partial())
		wantFile(t, a, asPartial(cut))
		push(t, a, whole)
		wantFile(t, a, whole)
		wantFile(t, a, asPartial(cut))
	}
}

// The finished segment is there already: the unfinished one is no conflict, and
// stops nobody.
func TestUnfinishedSegmentIsStoredAsPartialBesideTheFinishedOne(t *testing.T) {
	whole := segments(1, 0x11, 1, 1)[0]
	cut, end := unfinished(t, whole)
	streamed, _ := recycled(t, whole)
	for _, f := range forms {
		for _, one := range []file{cut, streamed} {
			a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
			push(t, a, whole, leaving(2, 1, end))
			done, err := a.Push(t.Context(), one.name, one.source())
			if err != nil || done.As != one.name.Partial() {
				t.Errorf("%v: got %+v, error %v, want a partial", f, done, err)
			}
			wantFile(t, a, whole)
			wantFile(t, a, asPartial(one))
		}
	}
}

// The finished segment stands there damaged: the unfinished one is no conflict
// with it either.
func TestUnfinishedSegmentIsStoredThoughTheFinishedOneIsDamaged(t *testing.T) {
	whole := segments(1, 0x11, 1, 1)[0]
	cut, _ := unfinished(t, whole)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, whole)
		rewrite(t, disk, stored(f, whole.name), func(b []byte) []byte { return b[:len(b)/2] })
		push(t, a, cut)
		wantFile(t, a, asPartial(cut))
	}
}

func TestUnfinishedSegmentsThatDifferAreStoredBesideEachOther(t *testing.T) {
	one, _ := unfinished(t, segments(1, 0x11, 1, 1)[0])
	other, _ := unfinished(t, segments(1, 0x11, 1, 2)[0])
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		for range 2 {
			push(t, a, one, other)
		}
		wantFile(t, a, asPartial(one))
		besidePath(t, disk, f, one.name.Partial())
		wantStored(t, a, one.name.Partial(), one.name.Partial())
	}
}

// Records that stop being sound are the end of WAL only where a history says
// that the timeline was left exactly there. Anywhere else it is damage, and is
// stored as the segment that PostgreSQL says it is.
func TestDamageIsTheEndOfWALOnlyAtASwitchPoint(t *testing.T) {
	streamed, end := recycled(t, segments(2, 0x11, 1, 1)[0])
	for what, c := range map[string]struct {
		history file
		partial bool
	}{
		"left there":                         {leaving(3, 2, end), true},
		"left there, by a grandchild":        {history(4, fmt.Sprintf("2\t%s\tx\n3\t0/5000000\tx\n", end)), true},
		"left a bit later":                   {leaving(3, 2, end+8), false},
		"left a bit earlier":                 {leaving(3, 2, end-8), false},
		"another timeline left there":        {leaving(3, 1, end), false},
		"the timeline itself begins there":   {leaving(2, 1, end), false},
		"a line that has nothing to do here": {history(9, "7\t0/5000000\tx\n"), false},
	} {
		for _, f := range forms {
			a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
			push(t, a, c.history)
			want := streamed.name
			if c.partial {
				want = want.Partial()
			}
			done, err := a.Push(t.Context(), streamed.name, streamed.source())
			if err != nil || done.As != want || done.Walk.Status != wal.Damaged {
				t.Errorf("%v, %s: got %+v, error %v, want it as %s", f, what, done, err, want)
			}
			wantStored(t, a, c.history.name, want)
		}
	}
}

// Whether the timeline was left there cannot be told while a history cannot be
// read. One that is damaged never will be.
func TestUnreadableHistoryKeepsADoubtfulSegmentOut(t *testing.T) {
	streamed, end := recycled(t, segments(1, 0x11, 1, 1)[0])
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), leaving(2, 1, end))
		name := stored(f, wal.HistoryName(2))
		_, err := at(unreadable(disk, name), archive.Options{}).Push(t.Context(), streamed.name, streamed.source())
		wantError(t, err, errIO)
		wantStored(t, at(disk, archive.Options{}), wal.HistoryName(2))
		rewrite(t, disk, name, func(b []byte) []byte { return b[:4] })
		push(t, at(disk, archive.Options{}), streamed)
		wantStored(t, at(disk, archive.Options{}), wal.HistoryName(2), streamed.name)

		other, _ := recycled(t, segments(1, 0x11, 1, 2)[0]) // nor whether it is a conflict with what is there
		_, err = at(unreadable(disk, name), archive.Options{}).Push(t.Context(), other.name, other.source())
		wantError(t, err, errIO, archive.ErrConflict)
	}
}

// storeAs plants a file in the form in which an archive has it, whatever a push
// would say of it.
func storeAs(t testing.TB, disk *archivetest.Memory, f form, one file) {
	t.Helper()
	content := one.content
	if f.codec == archive.Zstd {
		e, err := codec.NewEncoder(1)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := e.Encode(t.Context(), &b, bytes.NewReader(one.content)); err != nil {
			t.Fatal(err)
		}
		content = b.Bytes()
	}
	name := stored(f, one.name)
	if _, err := disk.Stat(t.Context(), name); err == nil {
		drop(t, disk, name)
	}
	plant(t, disk, name, content)
}

// A segment that stands there with records that stop inside ends a recovery
// without a word. With a digest it is what was pushed: it is handed over if
// nothing later is known, or the operator gives up what is. Without one, it is
// what a lost tail looks like.
func TestStoredSegmentThatStopsInsideIsHandedOverOnlyAsTheEnd(t *testing.T) {
	all := segments(1, 0x10, 4, 1)
	cut, end := unfinished(t, all[1])
	for what, c := range map[string]struct {
		later []file
		known bool
	}{
		"nothing later":                    {nil, false},
		"its own partial":                  {[]file{asPartial(cut)}, false},
		"a later segment":                  {[]file{all[3]}, true},
		"a later partial":                  {[]file{asPartial(all[2])}, true},
		"a timeline left later":            {[]file{leaving(2, 1, end+1<<21)}, true},
		"a timeline left before it begins": {[]file{leaving(2, 1, 0x1080000)}, false},
	} {
		for _, f := range forms {
			for _, gapIsEnd := range []bool{false, true} {
				disk := archivetest.NewMemory()
				push(t, newArchive(t, disk, f, archive.Options{}), append([]file{all[0]}, c.later...)...)
				storeAs(t, disk, f, cut)
				got, err := fetch(t.Context(), at(disk, archive.Options{GapIsEnd: gapIsEnd}), cut.name)
				want := !c.known && gapIsEnd
				if f.codec == archive.Zstd {
					want = !c.known || gapIsEnd
				}
				if handed := err == nil && bytes.Equal(got, cut.content); handed != want || err != nil && !errors.Is(err, archive.ErrDamaged) {
					t.Errorf("%s, %v, restore_gap: end %v: got %d bytes, error %v, want it handed over: %v", what, f, gapIsEnd, len(got), err, want)
				}
				if err != nil && hintOf(err) == "" && (f.codec == archive.Zstd || !c.known) {
					t.Errorf("%s, %v: %v has no HINT", what, f, err)
				}
			}
		}
	}
}

// Whether anything later is known must be asked.
func TestSegmentThatStopsInsideIsADoubtWhileTheArchiveCannotBeListed(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	cut, _ := unfinished(t, all[1])
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), all[0], leaving(2, 1, 0x1080000))
		storeAs(t, disk, f, cut)
		broken := at(unreadable(disk, stored(f, wal.HistoryName(2))), archive.Options{GapIsEnd: true})
		got, err := fetch(t.Context(), broken, cut.name)
		wantError(t, err, errIO, archive.ErrDamaged, archive.ErrAbsent)
		if len(got) > 0 {
			t.Errorf("%v: %d bytes were handed over", f, len(got))
		}
	}
}

// A .partial ends inside by nature. Without a digest, damage in it is damage,
// unless a history says that the WAL ended there.
func TestPartialIsHandedOverAsItIs(t *testing.T) {
	whole := segments(1, 0x11, 1, 1)[0]
	cut, _ := unfinished(t, whole)
	streamed, end := recycled(t, whole)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), segments(1, 0x10, 1, 1)[0], asPartial(cut))
		wantFile(t, at(disk, archive.Options{}), asPartial(cut))
		storeAs(t, disk, f, asPartial(streamed))
		_, err := fetch(t.Context(), at(disk, archive.Options{}), streamed.name.Partial())
		if f.codec == archive.Zstd {
			wantFile(t, at(disk, archive.Options{}), asPartial(streamed))
			continue
		}
		wantError(t, err, archive.ErrDamaged)
		push(t, at(disk, archive.Options{}), leaving(2, 1, end+8))
		_, err = fetch(t.Context(), at(disk, archive.Options{}), streamed.name.Partial())
		wantError(t, err, archive.ErrDamaged)
		push(t, at(disk, archive.Options{}), leaving(3, 1, end)) // it was no damage
		wantFile(t, at(disk, archive.Options{}), asPartial(streamed))
	}
}
