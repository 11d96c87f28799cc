package ship

import (
	"slices"
	"testing"

	"pitr/archive/wal"
)

func TestLongQueueTakesLittleMemory(t *testing.T) {
	const size = wal.DefaultSegmentSize
	var q line
	for i := range 10_000 {
		q.add(wal.SegmentName(1, wal.SegmentNumber(1+(i*7919)%10_000), size), int64(size))
		if len(q.next) > 2*batch {
			t.Fatalf("got %d names at once", len(q.next))
		}
	}
	q.add(wal.HistoryName(2), 100)
	q.cut()
	want := []wal.Name{wal.HistoryName(2)}
	for i := range batch - 1 {
		want = append(want, wal.SegmentName(1, wal.SegmentNumber(1+i), size))
	}
	if !slices.Equal(q.next, want) || q.files != 10_001 || q.bytes != 10_000*int64(size)+100 {
		t.Errorf("got %d names of %d files, %d bytes, from %s", len(q.next), q.files, q.bytes, q.next[0])
	}
}

// A count that was taken while something came does not count.
func TestCountIsNotTakenFromALookThatWasOvertaken(t *testing.T) {
	s := &Shipper{}
	d := s.desk("a")
	before := d.changes()
	d.add(10)
	d.counted(0, before)
	if sum, known := d.bytes(); known {
		t.Errorf("got %d", sum)
	}
	d.counted(10, d.changes())
	d.add(-4)
	if sum, known := s.desk("a").bytes(); !known || sum != 6 {
		t.Errorf("got %d, %t, want 6", sum, known)
	}
}
