package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

func TestPushRefusesWhatItsNameDoesNotSay(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	stranger := archivetest.NewWAL(1, 15, 1, mb, 0x10, 1)
	_, foreign := stranger.Next()
	older := archivetest.NewWAL(systemID, 14, 1, mb, 0x10, 1)
	_, other := older.Next()
	label, _ := wal.ParseName("000000010000000000000010.00000028.backup")
	for _, c := range []struct {
		what string
		file file
	}{
		{"foreign", file{all[0].name, foreign}},
		{"of another major version", file{all[0].name, other}},
		{"misnamed", file{all[1].name, all[0].content}},
		{"short", file{all[0].name, all[0].content[:100_000]}},
		{"long", file{all[0].name, append(slices.Clone(all[0].content), 0)}},
		{"zeroed", file{all[0].name, make([]byte, mb)}},
		{"empty", file{all[0].name, nil}},
		{"history that is none", history(2, "what is this\n")},
		{"empty history", history(2, "")},
		{"label that is none", file{label, []byte("nonsense")}},
	} {
		for _, f := range forms {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			_, err := a.Push(t.Context(), c.file.name, c.file.source())
			if !errors.Is(err, archive.ErrForeign) {
				t.Errorf("%s, %v: got %v, want ErrForeign", c.what, f, err)
			}
			if entries, err := a.List(t.Context()); len(entries) != 0 || err != nil {
				t.Errorf("%s, %v: %d files were stored, error %v", c.what, f, len(entries), err)
			}
		}
	}
}

func TestPushOfEveryKindReadsBack(t *testing.T) {
	label, _ := wal.ParseName("000000010000000000000010.00000028.backup")
	partial, _ := wal.ParseName("000000010000000000000012.partial")
	all := segments(1, 0x10, 3, 1)
	all[2].name = partial
	all = append(all, history(2, "1\t0/1234568\tno recovery target specified\n"),
		file{label, []byte("START WAL LOCATION: 0/1000028 (file 000000010000000000000010)\nCHECKPOINT LOCATION: 0/1000060\n")})
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		for range 2 {
			push(t, a, all...)
		}
		for _, one := range all {
			wantFile(t, a, one)
		}
		if sum, err := a.Verify(t.Context(), report(t), func(int, int) {}); err != nil || sum.Files != len(all) {
			t.Errorf("%v: verified %+v, error %v", f, sum, err)
		}
	}
}

func report(t *testing.T) func(archive.Finding) {
	return func(f archive.Finding) { t.Errorf("%s: %v", f.Name, f.Err) }
}

func TestConflictChangesNothing(t *testing.T) {
	ours, theirs := segments(2, 0x11, 1, 1)[0], segments(2, 0x11, 1, 2)[0]
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, ours)
		_, err := a.Push(t.Context(), theirs.name, theirs.source())
		wantError(t, err, archive.ErrConflict, archive.ErrDamaged)
		wantFile(t, a, ours)
	}
}

// Two standbys promoted in one segment, one after the other: neither may be
// stopped by a file that nobody asks for, and both files are kept.
func TestConflictingPartialIsStoredBesideTheOther(t *testing.T) {
	name, _ := wal.ParseName("000000010000000000000011.partial")
	ours, theirs := segments(1, 0x11, 1, 1)[0], segments(1, 0x11, 1, 2)[0]
	ours.name, theirs.name = name, name
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		for range 2 {
			push(t, a, ours, theirs)
		}
		wantFile(t, a, ours)
		entries, err := disk.ReadDir(t.Context(), path.Dir(stored(f, name)))
		beside := 0
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), name.String()+".") && e.Name() != path.Base(stored(f, name)) {
				beside++
			}
		}
		if err != nil || beside != 1 {
			t.Errorf("%v: %d files beside, error %v, want 1", f, beside, err)
		}
	}
}

// The remedy that the HINT names works: what is damaged is set aside, and the
// next push stores the good copy.
func TestDamagedCopyIsAConflictUntilItIsQuarantined(t *testing.T) {
	all := segments(1, 0x11, 2, 1)
	for _, f := range forms {
		for what, change := range map[string]func([]byte) []byte{
			"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
			"empty":   func([]byte) []byte { return nil },
		} {
			disk := archivetest.NewMemory()
			a := newArchive(t, disk, f, archive.Options{})
			push(t, a, all...)
			rewrite(t, disk, stored(f, all[0].name), change)
			_, err := a.Push(t.Context(), all[0].name, all[0].source())
			wantError(t, err, archive.ErrConflict)
			if !strings.Contains(hintOf(err), "pitr wal quarantine "+all[0].name.String()) {
				t.Errorf("%v, %s: %v has HINT %q", f, what, err, hintOf(err))
			}
			to, err := a.Quarantine(t.Context(), all[0].name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := disk.Stat(t.Context(), to); err != nil {
				t.Errorf("%v, %s: it was to be set aside, and is gone: %v", f, what, err)
			}
			push(t, a, all[0])
			wantFile(t, a, all[0])
		}
	}
}

func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// A bit anywhere in a raw segment is either found or has no meaning. The part
// of a record that crosses into the segment counts: the segment before it
// vouches for its checksum.
func TestFlippedBitInARawSegmentIsFound(t *testing.T) {
	all := segments(1, 0x10, 3, 7)
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[2], archive.Options{})
	push(t, a, all...)
	name := stored(forms[2], all[1].name)
	random := rand.New(rand.NewPCG(5, 6))
	missed := 0
	for try := range 200 {
		at, bit := random.IntN(int(mb)), byte(1)<<random.IntN(8)
		if try < 60 {
			at = 40 + try // the record that crosses
		}
		rewrite(t, disk, name, func(b []byte) []byte { b[at] ^= bit; return b })
		got, err := fetch(t.Context(), a, all[1].name)
		switch {
		case err == nil && !bytes.Equal(got, all[1].content):
			missed++
			t.Logf("bit %#x of byte %d was not found", bit, at)
		case err != nil && !errors.Is(err, archive.ErrDamaged):
			t.Errorf("byte %d: got %v, want ErrDamaged", at, err)
		}
		rewrite(t, disk, name, func(b []byte) []byte { b[at] ^= bit; return b })
	}
	// Padding between records and four bytes of a page header mean nothing.
	if missed > 8 {
		t.Errorf("%d of 200 flipped bits were not found", missed)
	}
}

func TestVerifyFindsDamageAndGaps(t *testing.T) {
	all := segments(1, 0x10, 6, 1)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		a := newArchive(t, disk, f, archive.Options{})
		push(t, a, all...)
		rewrite(t, disk, stored(f, all[2].name), func(b []byte) []byte { b[len(b)/3] ^= 64; return b })
		drop(t, disk, stored(f, all[4].name))
		var found []archive.Finding
		sum, err := a.Verify(t.Context(), func(x archive.Finding) { found = append(found, x) }, func(int, int) {})
		if err != nil || sum.Damaged != 1 || sum.Missing != 1 || len(found) != 2 {
			t.Fatalf("%v: got %+v, findings %v, error %v", f, sum, found, err)
		}
		if found[0].Name != all[2].name || !errors.Is(found[0].Err, archive.ErrDamaged) {
			t.Errorf("%v: got %v, want damage of %s", f, found[0], all[2].name)
		}
		if found[1].Name != all[4].name || !errors.Is(found[1].Err, archive.ErrGap) {
			t.Errorf("%v: got %v, want a gap at %s", f, found[1], all[4].name)
		}
	}
}

// replacing is a file system that publishes over what is there.
type replacing struct{ files.FS }

func (r replacing) Publish(ctx context.Context, from, to string) error {
	if err := r.Remove(ctx, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.FS.Publish(ctx, from, to)
}

func TestProbeFindsAStoreThatReplaces(t *testing.T) {
	for _, f := range forms {
		disk := archivetest.NewMemory()
		if _, err := newArchive(t, disk, f, archive.Options{}).Probe(t.Context()); err != nil {
			t.Errorf("%v: %v", f, err)
		}
		if _, err := at(replacing{disk}, archive.Options{}).Probe(t.Context()); err == nil {
			t.Errorf("%v: a store that replaces passed", f)
		}
	}
}
