package archive_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/codec"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// What is stored without a digest is verified by its records alone, and the
// record that crosses into a segment begins in another file.

var raw = []form{{archive.Tree, archive.None}, {archive.Flat, archive.None}}

// crossing fails unless a record crosses into a segment, far enough for byte 60
// to be a part of it.
func crossing(t testing.TB, f file) file {
	t.Helper()
	if rest := binary.LittleEndian.Uint32(f.content[16:]); rest < 40 {
		t.Fatalf("%d bytes of a record cross into %s, want more", rest, f.name)
	}
	return f
}

// flipCrossing flips a bit in the record that crosses into a segment.
func flipCrossing(t testing.TB, disk files.FS, f form, n wal.Name) {
	t.Helper()
	rewrite(t, disk, stored(f, n), func(b []byte) []byte { b[60] ^= 1; return b })
}

func TestCrossingRecordIsVerifiedUnlessItsBeginningIsNotThere(t *testing.T) {
	all := segments(2, 0x10, 2, 7) // the first timeline has no history
	before, one := all[0], crossing(t, all[1])
	for _, f := range raw {
		for what, c := range map[string]struct {
			spoil func(disk *archivetest.Memory) files.FS
			found error // of the flipped bit
			clean error
		}{
			"it is there": {func(d *archivetest.Memory) files.FS { return d }, archive.ErrDamaged, nil},
			"it is not there": {func(d *archivetest.Memory) files.FS {
				drop(t, d, stored(f, before.name))
				return d
			}, nil, nil},
			"it is damaged": {func(d *archivetest.Memory) files.FS {
				rewrite(t, d, stored(f, before.name), func(b []byte) []byte { b[mb/2] ^= 1; return b })
				return d
			}, nil, nil},
			"it is cut": {func(d *archivetest.Memory) files.FS {
				rewrite(t, d, stored(f, before.name), func(b []byte) []byte { return b[:mb/2] })
				return d
			}, nil, nil},
			"it cannot be read": {func(d *archivetest.Memory) files.FS { return unreadable(d, stored(f, before.name)) }, errIO, errIO},
			"histories cannot be read": {func(d *archivetest.Memory) files.FS {
				return unreadable(d, stored(f, wal.HistoryName(2)))
			}, errIO, errIO},
		} {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), all...)
			seen := c.spoil(disk)
			got, err := fetch(t.Context(), at(seen, archive.Options{}), one.name)
			if !errors.Is(err, c.clean) || err == nil && !bytes.Equal(got, one.content) {
				t.Errorf("%v, %s: got %d bytes, error %v, want %v", f, what, len(got), err, c.clean)
			}
			flipCrossing(t, disk, f, one.name)
			_, err = fetch(t.Context(), at(seen, archive.Options{}), one.name)
			if !errors.Is(err, c.found) || c.found == errIO && errors.Is(err, archive.ErrDamaged) {
				t.Errorf("%v, %s, and a bit is flipped: got %v, want %v", f, what, err, c.found)
			}
		}
	}
}

// longRecord is four segments; a record begins in the first and ends in the
// third.
func longRecord() []file {
	w := archivetest.NewWAL(systemID, 15, 1, mb, 0x10, 1)
	for range 3 {
		w.Record(100)
	}
	w.Record(int(mb) * 5 / 2)
	var all []file
	for range 4 {
		name, content := w.Next()
		all = append(all, file{name, content})
	}
	return all
}

func TestRecordOverThreeSegmentsIsVerified(t *testing.T) {
	all := longRecord()
	for _, f := range raw {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, all...)
		for _, one := range all {
			wantFile(t, a, one)
		}
		for i := range 3 {
			flip := func(b []byte) []byte { b[100_007] ^= 1; return b }
			rewrite(t, disk, stored(f, all[i].name), flip)
			_, err := fetch(t.Context(), a, all[2].name)
			wantError(t, err, archive.ErrDamaged)
			wantError(t, a.Examine(t.Context(), all[2].name), archive.ErrDamaged)
			sum, err := a.Verify(t.Context(), func(archive.Finding) {}, func(int, int) {})
			if err != nil || sum.Damaged != 1 {
				t.Errorf("%v: a bit is flipped in %s: got %+v, error %v, want one damage", f, all[i].name, sum, err)
			}
			rewrite(t, disk, stored(f, all[i].name), flip)
		}
	}
}

// fork is a timeline 1 of two segments, and the first two of timeline 2, which
// left it in the segment after. A record crosses from the one into the other.
func fork(t testing.TB) (parent, child []file, history file) {
	t.Helper()
	w := archivetest.NewWAL(systemID, 15, 1, mb, 0x16, 7)
	next := func() file {
		name, content := w.Next()
		return file{name, content}
	}
	parent = []file{next(), next()}
	w.Timeline = 2
	child = []file{crossing(t, next()), crossing(t, next())}
	return parent, child, leaving(2, 1, 0x1800000+0x4000)
}

func TestRecordThatCrossesAForkIsVerified(t *testing.T) {
	parent, child, history := fork(t)
	for _, f := range raw {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, parent...)
		push(t, a, history)
		push(t, a, child...)
		for _, one := range child {
			wantFile(t, a, one)
		}
		flipCrossing(t, disk, f, child[0].name)
		_, err := fetch(t.Context(), a, child[0].name)
		wantError(t, err, archive.ErrDamaged)
	}
}

// Damage of PostgreSQL's own is stored as it is. Only the records tell of it, and
// the last segment that was looked at is not always the one before.
func TestVerifyFindsDamageInARecordThatCrossesAFork(t *testing.T) {
	parent, child, history := fork(t)
	w := archivetest.NewWAL(systemID, 15, 1, mb, 0x16, 7)
	var lived file // what the parent wrote where the child had left
	for range 3 {
		lived.name, lived.content = w.Next()
	}
	a := newArchive(t, archivetest.NewMemory(), forms[0], archive.Options{})
	damaged := file{child[0].name, slices.Clone(child[0].content)}
	damaged.content[60] ^= 1
	push(t, a, parent...)
	push(t, a, lived, history, damaged)
	var found []archive.Finding
	_, err := a.Verify(t.Context(), func(f archive.Finding) { found = append(found, f) }, func(int, int) {})
	if err != nil || len(found) != 1 || found[0].Name != damaged.name || !errors.Is(found[0].Err, archive.ErrDamaged) {
		t.Errorf("got %v, error %v, want damage in %s", found, err, damaged.name)
	}
	wantError(t, a.Examine(t.Context(), damaged.name), archive.ErrDamaged)
}

// The parent lived on after its child had left: its segments there are of
// another life, and prove nothing about the child's.
func TestParentThatWasLeftBeforeVouchesForNothing(t *testing.T) {
	_, child, history := fork(t)
	for _, f := range raw {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, segments(1, 0x16, 4, 3)...)
		push(t, a, history, child[1])
		wantFile(t, a, child[1])
	}
}

// A disk may hold less than a directory says.
func TestStoredFileThatEndsEarlyIsNotHandedOver(t *testing.T) {
	for _, f := range forms {
		for _, one := range everyKind(t) {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, one)
			got, err := fetch(t.Context(), at(cutShort(disk, stored(f, one.name)), archive.Options{}), one.name)
			if err == nil || errors.Is(err, archive.ErrAbsent) || len(got) > 0 {
				t.Errorf("%v, %s: got %d bytes, error %v, want an error", f, one.name, len(got), err)
			}
		}
	}
}

// Histories and labels have no records: what they say is looked at.
func TestStoredHistoriesAndLabelsAreChecked(t *testing.T) {
	long := "1\t0/1100000\tx\n" + strings.Repeat("# padding padding padding padding\n", 1<<15)
	for _, f := range forms {
		for what, one := range map[string]file{
			"history that is none":      history(2, "what is this\n"),
			"history of a child":        history(2, "1\t0/1100000\tx\n3\t0/1200000\tx\n"),
			"empty history":             history(2, ""),
			"huge history":              history(2, long[:1<<20]+"\n999\tno history at all\n"),
			"huge history, well-formed": history(2, long),
			"label of another segment": {label(t, 0).name, []byte(
				"START WAL LOCATION: 0/1100028 (file 000000010000000000000011)\n")},
			"huge label": label(t, 1<<20),
		} {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, segments(1, 0x10, 1, 1)...)
			storeAs(t, disk, f, one)
			got, err := fetch(t.Context(), a, one.name)
			if !errors.Is(err, archive.ErrDamaged) || len(got) > 0 {
				t.Errorf("%v, %s: got %d bytes, error %v, want ErrDamaged", f, what, len(got), err)
			}
		}
	}
}

// written counts what was written until then.
type written int64

func (w *written) Write(p []byte) (int, error) { *w += written(len(p)); return len(p), nil }

// A full pg_wal stops a server: what cannot be a segment is refused before a
// byte of it is written there.
func TestOversizedFileIsRefusedBeforeAByteIsWritten(t *testing.T) {
	name := wal.SegmentName(1, 0x11, mb)
	large := make([]byte, 64*mb)
	copy(large, segments(1, 0x11, 1, 1)[0].content)
	for _, f := range forms {
		for _, n := range []wal.Name{name, name.Partial(), wal.HistoryName(2)} {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, segments(1, 0x10, 1, 1)...)
			storeAs(t, disk, f, file{n, large})
			var out written
			err := a.Fetch(t.Context(), n, patience, func(write func(io.Writer) error) error { return write(&out) })
			wantError(t, err, archive.ErrDamaged)
			if out != 0 {
				t.Errorf("%v, %s: %d bytes were written", f, n, out)
			}
		}
	}
}

// Less than the size of a segment is no segment either, though its digest fits.
func TestUndersizedFileIsRefused(t *testing.T) {
	one := segments(1, 0x11, 1, 1)[0]
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, segments(1, 0x10, 1, 1)...)
		storeAs(t, disk, f, file{one.name, one.content[:mb/2]})
		_, err := fetch(t.Context(), a, one.name)
		wantError(t, err, archive.ErrDamaged)
		if errors.Is(err, codec.ErrDamaged) {
			t.Errorf("%v: %v blames the stored form", f, err)
		}
	}
}

// warned hears that what it takes is good for now only.
type warned struct {
	bytes.Buffer
	reasons []string
}

func (w *warned) Provisional(reason string) { w.reasons = append(w.reasons, reason) }

// What later WAL, or the segment before, could prove wrong is told of, so that nobody
// keeps it. Verified below or not: FetchAhead takes nobody's word for that.
func TestFetchTellsWhatIsGoodForNowOnly(t *testing.T) {
	all := segments(1, 0x10, 3, 7)
	one := crossing(t, all[1])
	ends, _ := unfinished(t, all[2])
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), all[1], all[2])
		isRaw := f.codec == archive.None
		check := func(name wal.Name, provisional bool) {
			t.Helper()
			var got warned
			a := at(disk, archive.Options{GapIsEnd: true})
			err := a.Fetch(t.Context(), name, patience, func(write func(io.Writer) error) error { return write(&got) })
			if err != nil || (len(got.reasons) > 0) != provisional {
				t.Errorf("%v, %s: told %q, error %v, want it told: %v", f, name, got.reasons, err, provisional)
			}
			_, err = archive.Set{at(disk, archive.Options{Verified: true})}.FetchAhead(t.Context(), name, patience, into(new(bytes.Buffer)))
			if errors.Is(err, archive.ErrUnsettled) != provisional {
				t.Errorf("%v, %s, ahead: got %v, want it not settled: %v", f, name, err, provisional)
			}
		}
		check(one.name, isRaw)
		check(all[2].name, false)
		push(t, at(disk, archive.Options{}), all[0])
		check(one.name, false)
		drop(t, disk, stored(f, ends.name))
		storeAs(t, disk, f, ends)
		check(ends.name, true)
	}
}
