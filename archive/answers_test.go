package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// stored is where a form keeps a file.
func stored(f form, n wal.Name) string {
	switch {
	case f.layout == archive.Flat:
		return n.String()
	case f.codec == archive.None:
		return path.Join("wal", n.Directory(), n.String())
	}
	return path.Join("wal", n.Directory(), n.String()+".zst")
}

// TestAnswers is the table of "Getting a file" in docs/format.md.
func TestAnswers(t *testing.T) {
	all := segments(1, 0x10, 6, 1)
	middle, last := all[3].name, all[5].name
	flip := func(b []byte) []byte { b[len(b)/2] ^= 4; return b }
	for _, c := range []struct {
		what string
		ask  wal.Name
		do   func(t *testing.T, disk *archivetest.Memory, f form)
		want error // nil: present
	}{
		{"present", middle, func(*testing.T, *archivetest.Memory, form) {}, nil},
		{"past the end", wal.SegmentName(1, 0x16, mb), func(*testing.T, *archivetest.Memory, form) {}, archive.ErrAbsent},
		{"history that is not there", wal.HistoryName(2), func(*testing.T, *archivetest.Memory, form) {}, archive.ErrAbsent},
		{"other timeline", wal.SegmentName(2, 0x13, mb), func(*testing.T, *archivetest.Memory, form) {}, archive.ErrAbsent},
		{"removed at the end", last, func(t *testing.T, d *archivetest.Memory, f form) { drop(t, d, stored(f, last)) }, archive.ErrAbsent},
		{"removed in the middle", middle, func(t *testing.T, d *archivetest.Memory, f form) { drop(t, d, stored(f, middle)) }, archive.ErrGap},
		{"before the first", wal.SegmentName(1, 2, mb), func(*testing.T, *archivetest.Memory, form) {}, archive.ErrGap},
		{"removed at the end, but a history went on", last, func(t *testing.T, d *archivetest.Memory, f form) {
			drop(t, d, stored(f, last))
			push(t, at(d, archive.Options{}), history(2, "1\t0/15F0000\tno recovery target specified\n"))
		}, archive.ErrGap},
		{"removed at the end, where a history left", last, func(t *testing.T, d *archivetest.Memory, f form) {
			drop(t, d, stored(f, last))
			push(t, at(d, archive.Options{}), history(2, "1\t0/1500000\tno recovery target specified\n"))
		}, archive.ErrAbsent},
		{"set aside at the end", last, func(t *testing.T, d *archivetest.Memory, _ form) {
			if _, err := at(d, archive.Options{}).Quarantine(t.Context(), last); err != nil {
				t.Fatal(err)
			}
		}, archive.ErrGap},
		{"history missing, its segments are there", wal.HistoryName(2), func(t *testing.T, d *archivetest.Memory, _ form) {
			push(t, at(d, archive.Options{}), segments(2, 0x14, 1, 2)...)
		}, archive.ErrGap},
		{"history missing, a later one names it", wal.HistoryName(2), func(t *testing.T, d *archivetest.Memory, _ form) {
			push(t, at(d, archive.Options{}), history(3, "1\t0/1500000\tx\n2\t0/1600000\tx\n"))
		}, archive.ErrGap},
		{"history missing, a later one is no heir", wal.HistoryName(2), func(t *testing.T, d *archivetest.Memory, _ form) {
			push(t, at(d, archive.Options{}), history(3, "1\t0/1500000\tx\n"))
		}, archive.ErrAbsent},
		{"a feature that was added", last, func(t *testing.T, d *archivetest.Memory, _ form) {
			if err := d.Mkdir(t.Context(), "requires"); err != nil {
				t.Fatal(err)
			}
			plant(t, d, "requires/fence", nil)
		}, archive.ErrIdentity},
		{"flipped bit", middle, func(t *testing.T, d *archivetest.Memory, f form) { rewrite(t, d, stored(f, middle), flip) }, archive.ErrDamaged},
		{"truncated", middle, func(t *testing.T, d *archivetest.Memory, f form) {
			rewrite(t, d, stored(f, middle), func(b []byte) []byte { return b[:len(b)-1000] })
		}, archive.ErrDamaged},
		{"empty file", middle, func(t *testing.T, d *archivetest.Memory, f form) {
			rewrite(t, d, stored(f, middle), func([]byte) []byte { return nil })
		}, archive.ErrDamaged},
		{"zeroed", middle, func(t *testing.T, d *archivetest.Memory, f form) {
			rewrite(t, d, stored(f, middle), func(b []byte) []byte { return make([]byte, len(b)) })
		}, archive.ErrDamaged},
		{"another segment's content", middle, func(t *testing.T, d *archivetest.Memory, f form) {
			var other []byte
			rewrite(t, d, stored(f, last), func(b []byte) []byte { other = b; return b })
			rewrite(t, d, stored(f, middle), func([]byte) []byte { return other })
		}, archive.ErrDamaged},
		{"no archive.json", middle, func(t *testing.T, d *archivetest.Memory, _ form) { drop(t, d, "archive.json") }, archive.ErrNoIdentity},
		{"identity of another cluster", last, func(t *testing.T, d *archivetest.Memory, _ form) {
			rewrite(t, d, "archive.json", func(b []byte) []byte {
				return bytes.Replace(b, []byte("7301234567890123456"), []byte("7301234567890123457"), 1)
			})
		}, archive.ErrIdentity},
		{"a newer format", last, func(t *testing.T, d *archivetest.Memory, _ form) {
			rewrite(t, d, "archive.json", func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"requires": []`), []byte(`"requires": ["age"]`), 1)
			})
		}, archive.ErrIdentity},
	} {
		for _, f := range forms {
			t.Run(fmt.Sprint(c.what, "/", f), func(t *testing.T) {
				disk := archivetest.NewMemory()
				push(t, newArchive(t, disk, f, archive.Options{}), all...)
				c.do(t, disk, f)
				got, err := fetch(t.Context(), at(disk, archive.Options{}), c.ask)
				if c.want == nil {
					if err != nil || !bytes.Equal(got, all[3].content) {
						t.Errorf("got %d bytes, error %v, want the segment", len(got), err)
					}
					return
				}
				wantError(t, err, c.want)
				if c.want != archive.ErrAbsent && errors.Is(err, archive.ErrAbsent) {
					t.Errorf("%v passes for absent", err)
				}
				if len(got) > 0 {
					t.Errorf("%d bytes were delivered all the same", len(got))
				}
			})
		}
	}
}

func drop(t testing.TB, disk files.FS, name string) {
	t.Helper()
	if err := disk.Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// A second archive, made while the first one was not mounted, is empty.
func TestArchiveWithoutWALProvesNothing(t *testing.T) {
	for _, f := range forms {
		a := newArchive(t, archivetest.NewMemory(), f, archive.Options{})
		for _, n := range []wal.Name{wal.SegmentName(1, 1, mb), wal.HistoryName(2)} {
			_, err := fetch(t.Context(), a, n)
			wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
		}
	}
}

// An unmounted file system below the root leaves an empty directory.
func TestEmptyWALDirectoryProvesNothing(t *testing.T) {
	disk := archivetest.NewMemory()
	a := newArchive(t, disk, forms[0], archive.Options{})
	drop(t, disk, "wal/archive.id")
	_, err := fetch(t.Context(), a, wal.SegmentName(1, 1, mb))
	wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
	_, err = a.Push(t.Context(), segments(1, 1, 1, 1)[0].name, segments(1, 1, 1, 1)[0].source())
	wantError(t, err, archive.ErrNoIdentity)
}

func TestAnonymousFlatDirectoryIsReadOnlyWhenAskedFor(t *testing.T) {
	all := segments(1, 0x10, 3, 1)
	disk := archivetest.NewMemory()
	for _, f := range all {
		plant(t, disk, f.name.String(), f.content)
	}
	_, err := fetch(t.Context(), at(disk, archive.Options{}), all[0].name)
	wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)

	a := at(disk, archive.Options{Layout: archive.Flat})
	for _, f := range all {
		wantFile(t, a, f)
	}
	_, err = fetch(t.Context(), a, wal.SegmentName(1, 0x13, mb))
	wantError(t, err, archive.ErrAbsent)
	_, err = a.Push(t.Context(), all[0].name, all[0].source())
	wantError(t, err, archive.ErrNoIdentity)

	stranger := at(disk, archive.Options{Layout: archive.Flat, Cluster: archive.Cluster{SystemID: 1, Major: 15, SegmentSize: mb}})
	_, err = fetch(t.Context(), stranger, wal.SegmentName(1, 0x13, mb))
	wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
	_, err = fetch(t.Context(), stranger, all[0].name)
	wantError(t, err, archive.ErrDamaged)

	empty := at(archivetest.NewMemory(), archive.Options{Layout: archive.Flat})
	_, err = fetch(t.Context(), empty, all[0].name)
	wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
}

func TestGapIsTheEndOnlyWhenTheOperatorSaysSo(t *testing.T) {
	all := segments(1, 0x10, 4, 1)
	disk := archivetest.NewMemory()
	push(t, newArchive(t, disk, forms[0], archive.Options{}), all[0], all[1], all[3])
	_, err := fetch(t.Context(), at(disk, archive.Options{}), all[2].name)
	wantError(t, err, archive.ErrGap, archive.ErrAbsent)
	_, err = fetch(t.Context(), at(disk, archive.Options{GapIsEnd: true}), all[2].name)
	wantError(t, err, archive.ErrAbsent)
}

func TestOneDoubtfulArchiveMakesAbsenceUnproven(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	next := wal.SegmentName(1, 0x12, mb)
	make := func(change func(d *archivetest.Memory)) *archive.Archive {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, forms[0], archive.Options{}), all...)
		change(disk)
		return at(disk, archive.Options{})
	}
	whole := make(func(*archivetest.Memory) {})
	unmounted := make(func(d *archivetest.Memory) { drop(t, d, "archive.json") })
	gap := make(func(d *archivetest.Memory) {
		push(t, at(d, archive.Options{}), segments(1, 0x10, 4, 1)[3])
	})
	corrupt := make(func(d *archivetest.Memory) {
		rewrite(t, d, stored(forms[0], all[1].name), func(b []byte) []byte { return b[:100] })
	})
	for _, c := range []struct {
		set  archive.Set
		ask  wal.Name
		want error
	}{
		{archive.Set{whole, whole}, next, archive.ErrAbsent},
		{archive.Set{whole, unmounted}, next, archive.ErrNoIdentity},
		{archive.Set{unmounted, whole}, next, archive.ErrNoIdentity},
		{archive.Set{whole, gap}, next, archive.ErrGap},
		{archive.Set{gap, whole}, next, archive.ErrGap},
		{archive.Set{gap, unmounted}, next, archive.ErrNoIdentity},
		{archive.Set{unmounted, whole}, all[1].name, nil},
		{archive.Set{corrupt, whole}, all[1].name, nil},
		{archive.Set{corrupt, unmounted}, all[1].name, archive.ErrDamaged},
		{archive.Set{corrupt}, all[1].name, archive.ErrDamaged},
	} {
		var b bytes.Buffer
		_, err := c.set.Fetch(t.Context(), c.ask, patience, into(&b))
		if !errors.Is(err, c.want) {
			t.Errorf("got %v, want %v", err, c.want)
		}
		if c.want != archive.ErrAbsent && errors.Is(err, archive.ErrAbsent) {
			t.Errorf("%v passes for absent", err)
		}
		if c.want == nil && !bytes.Equal(b.Bytes(), all[1].content) {
			t.Error("wrong bytes")
		}
	}
	if _, err := (archive.Set{}).Fetch(t.Context(), next, patience, nil); err == nil || errors.Is(err, archive.ErrAbsent) {
		t.Errorf("no archive at all: got %v, want a doubt", err)
	}
}

// A place to put the file that is missing is not a missing file.
func TestFailureToDeliverIsNotAbsence(t *testing.T) {
	all := segments(1, 0x10, 1, 1)
	a := newArchive(t, archivetest.NewMemory(), forms[0], archive.Options{})
	push(t, a, all...)
	err := a.Fetch(t.Context(), all[0].name, patience, func(func(io.Writer) error) error { return fs.ErrNotExist })
	wantError(t, err, fs.ErrNotExist, archive.ErrAbsent)
}
