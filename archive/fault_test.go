package archive_test

import (
	"bytes"
	"errors"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// Every operation of a fetch fails once: never absent, never wrong bytes.
func TestFaultWhileFetchingIsADoubt(t *testing.T) {
	all := segments(1, 0x10, 3, 1)
	for where, place := range places {
		for _, f := range forms {
			for _, ask := range []wal.Name{all[1].name, wal.SegmentName(1, 0x13, mb)} {
				disk := archivetest.NewMemory()
				push(t, newArchive(t, disk, f, archive.Options{}), all...)
				for i := range 2 * len(archivetest.Faults) {
					kind, warm := archivetest.Faults[i/2], i%2 > 0
					untilNoFault(t, func(n int) bool {
						faulty := archivetest.NewFaulty(disk, n, kind)
						under := &exchanged{disk}
						a := at(place(under), archive.Options{})
						if warm { // it was asked before, when all was well
							wantFile(t, a, all[0])
						}
						under.FS = faulty
						got, err := fetch(t.Context(), a, ask)
						if err == nil && !bytes.Equal(got, all[1].content) {
							t.Errorf("%s, %v, %s fails: wrong bytes", where, f, faulty.Failed())
						}
						// A flat archive has no marker, and whether one is there says nothing.
						harmless := faulty.Harmless() || f.layout == archive.Flat && faulty.Failed() == "open wal/archive.id"
						if faulty.Fired() && !harmless && errors.Is(err, archive.ErrAbsent) {
							t.Errorf("%s, %v, %s fails: %v passes for absent", where, f, faulty.Failed(), err)
						}
						return faulty.Fired()
					})
				}
			}
		}
	}
}

// A fault must not make anybody overlook a damage: whatever fails while a
// damaged archive is asked, neither wrong bytes nor absence come of it.
func TestFaultDoesNotHideDamage(t *testing.T) {
	all := segments(1, 0x10, 3, 7)
	last := all[2].name
	for what, c := range map[string]struct {
		ask    wal.Name
		damage func(t *testing.T, disk files.FS, f form)
	}{
		"flipped in the middle": {all[1].name, func(t *testing.T, d files.FS, f form) {
			rewrite(t, d, stored(f, all[1].name), func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
		}},
		"flipped in the record that crosses": {all[1].name, func(t *testing.T, d files.FS, f form) {
			rewrite(t, d, stored(f, all[1].name), func(b []byte) []byte { b[60] ^= 1; return b })
		}},
		"removed, but later WAL is there": {all[1].name, func(t *testing.T, d files.FS, f form) {
			drop(t, d, stored(f, all[1].name))
		}},
		"removed, but a history went on": {last, func(t *testing.T, d files.FS, f form) {
			drop(t, d, stored(f, last))
			push(t, at(d, archive.Options{}), history(2, "1\t0/12F0000\tx\n"))
		}},
		"set aside": {last, func(t *testing.T, d files.FS, _ form) {
			if _, err := at(d, archive.Options{}).Quarantine(t.Context(), last); err != nil {
				t.Fatal(err)
			}
		}},
		"marker gone": {wal.SegmentName(1, 0x13, mb), func(t *testing.T, d files.FS, f form) {
			if f.layout == archive.Tree {
				drop(t, d, "wal/archive.id")
			} else {
				drop(t, d, "archive.json")
			}
		}},
	} {
		for _, f := range forms {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), all...)
			c.damage(t, disk, f)
			untilNoFault(t, func(n int) bool {
				faulty := archivetest.NewFaulty(disk, n, archivetest.Refused)
				got, err := fetch(t.Context(), at(faulty, archive.Options{}), c.ask)
				if err == nil || errors.Is(err, archive.ErrAbsent) || len(got) > 0 {
					t.Errorf("%s, %v, %s fails: got %d bytes, error %v, want an error that is not absence", what, f, faulty.Failed(), len(got), err)
				}
				return faulty.Fired()
			})
		}
	}
}

// hidden tells once, or always, that a file is not there: as NFS does out of
// its cache, and as it is in the moment before somebody stores the file.
func hidden(fsys files.FS, which string, times int) files.FS {
	return hooked{FS: fsys, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
		if name == which && times != 0 {
			times--
			return nil, absence("open", name)
		}
		return real()
	}}
}

func TestListedFileIsNeverAbsent(t *testing.T) {
	all := append(segments(2, 0x10, 3, 1), history(2, "1\t0/1000000\tx\n"))
	for _, f := range forms {
		for _, one := range []file{all[1], all[2], all[3]} {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), all...)
			at1 := at(hidden(disk, stored(f, one.name), 1), archive.Options{})
			wantFile(t, at1, one)
			_, err := fetch(t.Context(), at(hidden(disk, stored(f, one.name), -1), archive.Options{}), one.name)
			if err == nil || errors.Is(err, archive.ErrAbsent) || errors.Is(err, archive.ErrGap) {
				t.Errorf("%v, %s: got %v, want a doubt", f, one.name, err)
			}
		}
	}
}

// exchanged is a disk that another one takes the place of.
type exchanged struct{ files.FS }

// What was known of an archive is a guess at where its files lie, and no more.
func TestAnArchiveThatIsExchangedIsReadAsItIsNow(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	for _, before := range forms {
		for _, after := range forms {
			disk := &exchanged{archivetest.NewMemory()}
			push(t, newArchive(t, disk, before, archive.Options{}), all...)
			a := at(afar(disk), archive.Options{})
			wantFile(t, a, all[0])
			disk.FS = archivetest.NewMemory()
			push(t, newArchive(t, disk, after, archive.Options{}), all[1])
			wantFile(t, a, all[1])
			if _, err := fetch(t.Context(), a, all[0].name); !errors.Is(err, archive.ErrAbsent) && !errors.Is(err, archive.ErrGap) {
				t.Errorf("%v, then %v: got %v", before, after, err)
			}
		}
	}
}
