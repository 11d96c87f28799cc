package wal

import (
	"encoding/binary"
	"testing"
)

// filled makes a full segment of equally long records, none of which crosses
// from one page into the next.
func filled(name Name, size SegmentSize, block, record int) segment {
	b := make([]byte, size)
	start, _ := name.Start(size)
	le := binary.LittleEndian
	for page := 0; page < len(b); page += block {
		le.PutUint16(b[page:], 0xD118)
		le.PutUint32(b[page+4:], 1)
		le.PutUint64(b[page+8:], uint64(start)+uint64(page))
	}
	le.PutUint16(b[2:], flagLong)
	le.PutUint64(b[24:], 1)
	le.PutUint32(b[32:], uint32(size))
	le.PutUint32(b[36:], uint32(block))
	prev := uint64(0)
	for page := 0; page < len(b); page += block {
		off := readPageHeader(b[page:]).length()
		for off < block {
			n := record
			if left := block - off; left < 2*record {
				n = left
			}
			le.PutUint32(b[page+off:], uint32(n))
			le.PutUint64(b[page+off+8:], prev)
			prev = uint64(start) + uint64(page+off)
			off += n
		}
	}
	return segment{name, sealed(b, block)}
}

func BenchmarkWalk16MiB(b *testing.B) {
	s := filled(SegmentName(1, 5, DefaultSegmentSize), DefaultSegmentSize, usualBlock, 64)
	var total int
	count := WalkerOptions{OnRecord: func(Record) { total++ }}
	for name, opts := range map[string]WalkerOptions{"64-byte records": {}, "64-byte records, callback": count} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(s.bytes)))
			b.ReportAllocs()
			for b.Loop() {
				w := NewWalker(s.name, DefaultSegmentSize, opts)
				w.Write(s.bytes)
				if got := w.Finish(); got.Status != Complete || got.Records < 200_000 {
					b.Fatalf("got %+v", got)
				}
			}
		})
	}
}
