package archive_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

func TestStatTellsTheRawSizeOfWhatIsThere(t *testing.T) {
	for where, place := range places {
		for _, f := range forms {
			a := newArchive(t, place(archivetest.NewMemory()), f, archive.Options{})
			all := append(segments(1, 1, 3, 1), history(2, "1\t0/1234568\tx\n"))
			push(t, a, all...)
			for _, one := range all {
				got, err := a.Stat(t.Context(), one.name)
				if err != nil || got.Size != int64(len(one.content)) || time.Since(got.ModTime) > time.Minute {
					t.Errorf("%s, %s, %s: got %+v, %v", where, f, one.name, got, err)
				}
			}
			for _, n := range []wal.Name{wal.SegmentName(1, 9, mb), wal.HistoryName(7), wal.SegmentName(1, 0, mb), wal.SegmentName(1, 2, mb).Partial()} {
				_, err := a.Stat(t.Context(), n)
				wantError(t, err, archive.ErrAbsent, archive.ErrGap) // that it is a gap is not asked
			}
		}
	}
}

func TestStatProvesNothingWhereFetchDoesNot(t *testing.T) {
	ask := wal.SegmentName(1, 9, mb)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		empty := newArchive(t, disk, f, archive.Options{})
		_, err := empty.Stat(t.Context(), ask)
		wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
		push(t, empty, segments(1, 1, 1, 1)...)
		_, err = empty.Stat(t.Context(), ask)
		wantError(t, err, archive.ErrAbsent)
		_, err = at(archivetest.NewMemory(), archive.Options{}).Stat(t.Context(), ask)
		wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
		other := at(disk, archive.Options{Cluster: archive.Cluster{SystemID: 5}})
		_, err = other.Stat(t.Context(), ask)
		wantError(t, err, archive.ErrIdentity, archive.ErrAbsent)
	}
}

// Every operation fails in turn: what is there is never proven absent.
func TestStatInAFaultyArchiveNeverProvesWrongly(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		all := append(segments(1, 1, 2, 1), history(2, "1\t0/1234568\tx\n"))
		push(t, newArchive(t, disk, f, archive.Options{}), all...)
		for _, one := range all {
			for n := 1; ; n++ {
				faulty := archivetest.NewFaulty(disk, n, archivetest.Refused)
				got, err := at(faulty, archive.Options{}).Stat(t.Context(), one.name)
				if errors.Is(err, archive.ErrAbsent) || err == nil && got.Size != int64(len(one.content)) {
					t.Errorf("%s, %s, %s: got %+v, %v", f, one.name, faulty.Failed(), got, err)
				}
				if !faulty.Fired() {
					break
				}
			}
		}
	}
}

func TestSetAsksInOrderAndNeedsEveryProof(t *testing.T) {
	a, b := newArchive(t, archivetest.NewMemory(), forms[0], archive.Options{}), newArchive(t, archivetest.NewMemory(), forms[2], archive.Options{})
	all := segments(1, 1, 4, 1)
	push(t, a, all[:3]...)
	push(t, b, all[1:]...)
	set := archive.Set{a, b}
	for _, one := range all {
		if got, err := set.Stat(t.Context(), one.name); err != nil || got.Size != int64(mb) {
			t.Errorf("%s: got %v, %v", one.name, got, err)
		}
	}
	listed, err := set.Names(t.Context())
	if err != nil || len(listed) != 4 || !slices.IsSortedFunc(listed, func(x, y archive.Listed) int { return wal.CompareArchiving(x.Name, y.Name) }) {
		t.Errorf("names: got %v, %v", listed, err)
	}
	absent := wal.SegmentName(1, 9, mb)
	_, err = set.Stat(t.Context(), absent)
	wantError(t, err, archive.ErrAbsent)
	unreachable := at(archivetest.NewMemory(), archive.Options{})
	_, err = archive.Set{a, unreachable}.Stat(t.Context(), absent)
	wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
	if listed, err := (archive.Set{a, unreachable}).Names(t.Context()); err == nil {
		t.Errorf("a part of the names is %v", listed)
	}
}

func TestNamesOfAFarArchiveTellSizesAndTimes(t *testing.T) {
	for _, f := range forms {
		a := newArchive(t, afar(archivetest.NewMemory()), f, archive.Options{})
		push(t, a, segments(1, 1, 2, 1)...)
		listed, err := archive.Set{a}.Names(t.Context())
		if err != nil || len(listed) != 2 || listed[0].Size != int64(mb) || listed[0].ModTime.IsZero() {
			t.Errorf("%s: got %+v, %v", f, listed, err)
		}
	}
}

func TestWhatWasSetAsideIsListedAsInAFlatArchive(t *testing.T) {
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		all := segments(1, 1, 3, 1)
		push(t, a, all...)
		if none, err := (archive.Set{a}).SetAside(t.Context()); err != nil || len(none) != 0 {
			t.Errorf("%s: got %v, %v", f, none, err)
		}
		if _, err := a.Quarantine(t.Context(), all[2].name); err != nil {
			t.Fatal(err)
		}
		got, err := archive.Set{a}.SetAside(t.Context())
		if err != nil || len(got) != 1 || got[0].Name != all[2].name || got[0].Base[:25] != all[2].name.String()+"." {
			t.Errorf("%s: got %v, %v", f, got, err)
		}
	}
}

func TestPartsOfASegmentAreVerified(t *testing.T) {
	const size = 4 << 20
	name, content := archivetest.NewWAL(systemID, 15, 1, size, 1, 3).Next()
	id := identity(forms[0])
	id.SegmentSize = size
	disk := archivetest.NewMemory()
	if _, err := archive.Init(t.Context(), store(disk), id); err != nil {
		t.Fatal(err)
	}
	a := archive.New("memory", store(disk), archive.Options{})
	push(t, a, file{name, content})
	r, err := archive.Set{a}.OpenAt(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 300_000 {
		p, err := r.PartAt(t.Context(), off)
		if err != nil || p.Offset != r.Begin(off) || p.Offset > off || !bytes.Equal(p.Bytes, content[p.Offset:][:len(p.Bytes)]) {
			t.Errorf("at %d: got %d bytes at %d, %v", off, len(p.Bytes), p.Offset, err)
		}
	}
	if _, err := r.PartAt(t.Context(), size); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	_, err = archive.Set{a}.OpenAt(t.Context(), wal.SegmentName(1, 7, size))
	wantError(t, err, archive.ErrAbsent)
	raw := newArchive(t, archivetest.NewMemory(), forms[1], archive.Options{})
	push(t, raw, segments(1, 1, 1, 1)...)
	_, err = archive.Set{raw}.OpenAt(t.Context(), wal.SegmentName(1, 1, mb))
	wantError(t, err, errors.ErrUnsupported)
}

func TestClusterOfAFlatDirectoryIsThatOfItsSegments(t *testing.T) {
	dir := t.TempDir()
	flat := func(o archive.Options) *archive.Archive {
		o.Layout = archive.Flat
		return archive.New("flat", files.NewStore(local.New(dir), local.Writer()), o)
	}
	want := archive.Cluster{SystemID: systemID, Major: 15, SegmentSize: mb}
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := flat(archive.Options{}).ClusterOf(t.Context())
	wantError(t, err, archive.ErrNoIdentity)
	for _, s := range segments(1, 1, 30, 1) {
		write(s.name.String(), s.content)
	}
	write("000000010000000000000000", make([]byte, mb)) // these say nothing
	write("000000010000000000000099", segments(1, 0x99, 1, 1)[0].content[:1000])
	got, err := flat(archive.Options{}).ClusterOf(t.Context())
	if err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = flat(archive.Options{Cluster: archive.Cluster{SystemID: 5}}).ClusterOf(t.Context())
	wantError(t, err, archive.ErrIdentity)
	pinned := flat(archive.Options{}).With(func(o *archive.Options) { o.Cluster = got })
	_, err = pinned.Stat(t.Context(), wal.SegmentName(1, 0x77, mb))
	wantError(t, err, archive.ErrAbsent)
	if found, err := pinned.Stat(t.Context(), wal.SegmentName(1, 1, mb)); err != nil || found.Size != int64(mb) {
		t.Errorf("got %v, %v", found, err)
	}
	name, foreign := archivetest.NewWAL(5, 15, 1, mb, 0x50, 1).Next()
	write(name.String(), foreign)
	_, err = flat(archive.Options{}).ClusterOf(t.Context())
	wantError(t, err, archive.ErrIdentity)
	noIdentity := archive.New("tree", files.NewStore(local.New(t.TempDir()), local.Writer()), archive.Options{})
	_, err = noIdentity.ClusterOf(t.Context())
	wantError(t, err, archive.ErrNoIdentity)
}

// A segment in a raw archive whose first record does not fit the segment before it is
// damaged, unless the store has seen to it.
func TestVerifiedStoreNeedsNoLookAtTheSegmentBefore(t *testing.T) {
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[2], archive.Options{})
	all := segments(1, 1, 3, 1)
	push(t, a, all...)
	opened := map[string]int{}
	watched := hooked{FS: disk, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
		opened[name]++
		return real()
	}}
	wantFile(t, at(watched, archive.Options{}), all[1])
	if opened[all[0].name.String()] != 1 {
		t.Errorf("the segment before was opened %d times", opened[all[0].name.String()])
	}
	clear(opened)
	wantFile(t, at(watched, archive.Options{Verified: true}), all[1])
	if opened[all[0].name.String()] != 0 {
		t.Error("the segment before was opened")
	}
}

// Whoever has verified a file below may take other things for the end than we do.
func TestVerifiedStoreDoesNotMakeDamageGood(t *testing.T) {
	all := segments(1, 1, 2, 1)
	torn, _ := recycled(t, all[1])
	for _, gapIsEnd := range []bool{false, true} {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, forms[2], archive.Options{}), all...)
		rewrite(t, disk, stored(forms[2], torn.name), func([]byte) []byte { return torn.content })
		_, err := fetch(t.Context(), at(disk, archive.Options{Verified: true, GapIsEnd: gapIsEnd}), torn.name)
		wantError(t, err, archive.ErrDamaged)
	}
}

// digests hears what Fetch tells.
type digests struct {
	bytes.Buffer
	sums [][32]byte
}

func (d *digests) Digested(sum [32]byte) { d.sums = append(d.sums, sum) }

func TestFetchTellsTheDigestOfTheFileAndOfNoOther(t *testing.T) {
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		all := append(segments(1, 1, 3, 1), history(2, "1\t0/0234568\tx\n"))
		push(t, a, all...)
		for _, one := range all {
			var got digests
			err := a.Fetch(t.Context(), one.name, patience, func(write func(io.Writer) error) error { return write(&got) })
			want := 0
			if f.codec == archive.Zstd {
				want = 1
			}
			if err != nil || len(got.sums) != want || want == 1 && got.sums[0] != sha256.Sum256(one.content) {
				t.Errorf("%s, %s: got %x, %v", f, one.name, got.sums, err)
			}
		}
	}
}
