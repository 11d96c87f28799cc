package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
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

// larger is an archive with one segment of 4 MB, and the stored file.
func larger(t *testing.T, seed uint64) (disk *archivetest.Memory, f file, stored string) {
	t.Helper()
	const size = 4 << 20
	name, content := archivetest.NewWAL(systemID, 15, 1, size, 1, seed).Next()
	id := identity(forms[0])
	id.SegmentSize = size
	disk = archivetest.NewMemory()
	if _, err := archive.Init(t.Context(), store(disk), id); err != nil {
		t.Fatal(err)
	}
	f = file{name, content}
	push(t, archive.New("memory", store(disk), archive.Options{}), f)
	return disk, f, "wal/0000000100000000/" + name.String() + ".zst"
}

// Two archives hold other, sound content under one name, and one frame of the first is
// damaged: a reader gets an error, never parts of both.
func TestPartsOfTwoArchivesAreNotMixed(t *testing.T) {
	var set archive.Set
	var first file
	for seed := range uint64(2) {
		disk, f, stored := larger(t, 3+seed)
		if seed == 0 {
			first = f
			rewrite(t, disk, stored, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}
		set = append(set, archive.New("memory", store(disk), archive.Options{}))
	}
	r, err := set.OpenAt(t.Context(), first.name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at := 0
	for err == nil && at < len(first.content) {
		var p archive.Part
		if p, err = r.PartAt(t.Context(), int64(at)); err == nil {
			if !bytes.Equal(p.Bytes, first.content[at:][:len(p.Bytes)]) {
				t.Fatalf("at %d: got bytes of another file", at)
			}
			at += len(p.Bytes)
		}
	}
	wantError(t, err, archive.ErrDamaged)
	if at == 0 {
		t.Error("not even the parts came that are sound")
	}
}

// stuck is a stored file that hangs while it is read, if anybody waits for that.
type stuck struct {
	files.Object
	hangs         *atomic.Bool
	reading, goOn chan struct{}
	closed        *atomic.Int64
}

func (s stuck) ReadAt(p []byte, off int64) (int, error) {
	if s.hangs.Load() {
		s.reading <- struct{}{}
		<-s.goOn
	}
	return s.Object.ReadAt(p, off)
}

func (s stuck) Close() error {
	s.closed.Add(1)
	return s.Object.Close()
}

func TestAPartThatWasLeftBehindKeepsItsFileOpenAndOpensNone(t *testing.T) {
	disk, f, _ := larger(t, 3)
	var opened, closed atomic.Int64
	var hangs atomic.Bool
	reading, goOn := make(chan struct{}, 100), make(chan struct{})
	watched := hooked{FS: disk, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
		o, err := real()
		if err != nil || !strings.HasSuffix(name, ".zst") {
			return o, err
		}
		opened.Add(1)
		return stuck{o, &hangs, reading, goOn, &closed}, nil
	}}
	r, err := archive.Set{archive.New("memory", store(watched), archive.Options{})}.OpenAt(t.Context(), f.name)
	if err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	go func() { <-reading; stop() }()
	if _, err := r.PartAt(ctx, 0); err == nil {
		t.Error("got a part of a file that hangs")
	}
	if err := r.Close(); err != nil || closed.Load() != 0 {
		t.Errorf("closed %d times while it is being read, %v", closed.Load(), err)
	}
	hangs.Store(false)
	close(goOn)
	for range 500 {
		if closed.Load() > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := r.PartAt(t.Context(), 0); err == nil || opened.Load() != 1 || closed.Load() != 1 {
		t.Errorf("opened %d times, closed %d times, error %v after it was closed", opened.Load(), closed.Load(), err)
	}
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
			if err != nil || len(got.sums) != 1 || got.sums[0] != sha256.Sum256(one.content) {
				t.Errorf("%s, %s: got %x, %v", f, one.name, got.sums, err)
			}
		}
	}
}
