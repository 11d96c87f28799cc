package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/wal"
)

// holding is an archive with some files.
func holding(t testing.TB, all ...file) (*archive.Archive, *archivetest.Memory) {
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	push(t, a, all...)
	return a, disk
}

// What each archive said can be told one by one; what the set says as a whole
// never matches a proof that only one of them had.
func TestVerdictsAreThoseOfTheArchivesInDoubt(t *testing.T) {
	all := segments(1, 0x10, 4, 1)
	ask := all[2].name
	absent, _ := holding(t, all[:2]...)
	gap, _ := holding(t, all[0], all[1], all[3])
	missing := at(archivetest.NewMemory(), archive.Options{})
	damaged, disk := holding(t, all[:3]...)
	rewrite(t, disk, stored(forms[0], ask), func(b []byte) []byte { return b[:100] })
	for _, c := range []struct {
		what string
		set  archive.Set
		want []error
	}{
		{"one doubt", archive.Set{missing}, []error{archive.ErrNoIdentity}},
		{"two doubts", archive.Set{missing, damaged}, []error{archive.ErrNoIdentity, archive.ErrDamaged}},
		{"a doubt and proofs", archive.Set{absent, damaged, gap}, []error{archive.ErrDamaged}},
		{"two gaps", archive.Set{gap, gap}, []error{archive.ErrGap, archive.ErrGap}},
		{"a gap and a proof", archive.Set{absent, gap}, []error{archive.ErrGap}},
		{"proofs", archive.Set{absent, absent}, []error{archive.ErrAbsent}},
	} {
		_, err := c.set.Fetch(t.Context(), ask, patience, into(new(bytes.Buffer)))
		each := archive.Verdicts(err)
		if !slices.EqualFunc(each, c.want, errors.Is) {
			t.Errorf("%s: got %v, want %v", c.what, each, c.want)
		}
		for _, other := range []error{archive.ErrAbsent, archive.ErrGap, archive.ErrDamaged, archive.ErrNoIdentity} {
			if errors.Is(err, other) != slices.Contains(c.want, other) {
				t.Errorf("%s: %v matches %v: %v", c.what, err, other, errors.Is(err, other))
			}
		}
	}
	if got := archive.Verdicts(errIO); len(got) != 1 || got[0] != errIO {
		t.Errorf("got %v for any error, want itself", got)
	}
}

// The first archive has proven that it does not have the file; the time is over
// before the second one could be asked.
func TestArchiveThatWasNotAskedMakesAbsenceUnproven(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	_, disk := holding(t, all...)
	other, _ := holding(t, all...)
	ctx, cancel := context.WithCancel(t.Context())
	last := at(hooked{FS: disk, readDir: func(name string, real func() ([]fs.DirEntry, error)) ([]fs.DirEntry, error) {
		entries, err := real()
		if path.Base(name) == "quarantine" { // the last question
			cancel()
		}
		return entries, err
	}}, archive.Options{})
	_, err := archive.Set{last, other}.Fetch(ctx, wal.SegmentName(1, 0x12, mb), patience, into(new(bytes.Buffer)))
	if ctx.Err() == nil {
		t.Fatal("the end did not come")
	}
	if err == nil || errors.Is(err, archive.ErrAbsent) {
		t.Errorf("got %v, want a doubt", err)
	}
}

// full is a place that takes no byte.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errIO }

// That the file cannot be written where it was to go is not the archives' fault.
func TestAPlaceThatTakesNothingIsNothingAgainstTheArchives(t *testing.T) {
	one := segments(1, 0x10, 1, 1)[0]
	for _, f := range forms {
		var asked, reported int
		var set archive.Set
		for range 2 {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), one)
			set = append(set, at(disk, archive.Options{Report: func(error) { reported++ }}))
		}
		for what, deliver := range map[string]archive.Deliver{
			"no room":           func(write func(io.Writer) error) error { asked++; return write(full{}) },
			"no file":           func(func(io.Writer) error) error { asked++; return errIO },
			"it cannot be kept": func(write func(io.Writer) error) error { asked++; return errors.Join(write(io.Discard), errIO) },
		} {
			asked = 0
			_, err := set.Fetch(t.Context(), one.name, patience, deliver)
			if !errors.Is(err, archive.ErrPlace) || !errors.Is(err, errIO) || asked != 1 || reported != 0 {
				t.Errorf("%v, %s: got %v, %d archives asked, %d reported", f, what, err, asked, reported)
			}
			asked = 0
			if _, err = set.FetchAhead(t.Context(), one.name, patience, deliver); !errors.Is(err, archive.ErrPlace) || asked != 1 {
				t.Errorf("%v, %s, ahead: got %v, %d archives asked", f, what, err, asked)
			}
		}
	}
}
