package prefetch

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
)

// Whatever fails, and whenever: what is handed out is whole, what is there is never
// absent, and when the fault is over everything can be had.
func TestEveryFaultIsADoubtAndNoMore(t *testing.T) {
	one, two, history := fork(t)
	asked := slices.Concat([]file{history}, one[:2], two)
	disk := archivetest.NewMemory()
	initialise(t, disk)
	push(t, archiveOn(disk), slices.Concat(one, two, []file{history})...)
	for _, kind := range []archivetest.Fault{archivetest.Refused, archivetest.Unconfirmed} {
		step := 1
		if testing.Short() {
			step = 17
		}
		n := 1
		for fired := true; fired; n += step {
			faulty := archivetest.NewFaulty(disk, n, kind)
			r := newReader(t, archiveOn(faulty))
			for _, f := range asked {
				got, err := get(t, r, f.name)
				if errors.Is(err, archive.ErrAbsent) || err == nil && !bytes.Equal(got, f.content) {
					t.Fatalf("%s, fault %d (%s): got %d bytes, error %v", f.name, n, faulty.Failed(), len(got), err)
				}
				if err != nil {
					want(t, r, f)
				}
			}
			r.Close()
			fired = faulty.Fired()
		}
		if n < 20 {
			t.Errorf("only %d faults were tried", n)
		}
	}
}

// A full disk, or no descriptors: nothing is kept, and the error is that of the disk.
func TestWithoutAPlaceThereIsADoubt(t *testing.T) {
	all := segments(1, 0x10, 8)
	a, _ := holding(t, all...)
	r := newReader(t, a)
	full := errors.New("no space left on device")
	place, none := r.Place, func() (*os.File, error) { return nil, full }
	want(t, r, all[:2]...)
	settled(t, r)
	r.mu.Lock()
	r.Place = none
	r.mu.Unlock()
	want(t, r, all[2:6]...) // those are here
	settled(t, r)
	if _, err := get(t, r, all[6].name); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	settled(t, r)
	r.Place = place
	want(t, r, all[6:]...)
}

// What is damaged in the archive is never handed out, asked for or not.
func TestDamageIsFoundAhead(t *testing.T) {
	all := segments(1, 0x10, 4)
	a, disk := holding(t, all...)
	object, err := disk.Memory.Open(t.Context(), "wal/"+all[2].name.Directory()+"/"+all[2].name.String()+".zst")
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, object.Size())
	if _, err := object.ReadAt(raw, 0); err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 0x10
	rewrite(t, disk, "wal/"+all[2].name.Directory()+"/"+all[2].name.String()+".zst", raw)
	r := newReader(t, a)
	want(t, r, all[:2]...)
	settled(t, r)
	if _, err := get(t, r, all[2].name); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("got %v, want %v", err, archive.ErrDamaged)
	}
	want(t, r, all[3])
}

// rewrite puts other content under a stored name, as a failing disk does.
func rewrite(t testing.TB, disk *counting, name string, content []byte) {
	t.Helper()
	if err := disk.Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	f, err := disk.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}
