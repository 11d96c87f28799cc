package archivetest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"pitr/archive/wal"
)

// WAL makes segments that PostgreSQL would accept: page headers, records with
// checksums, records that cross pages and segments. It stands in for a server
// where a test needs many segments; real ones are in package wal's tests.
type WAL struct {
	SystemID uint64
	Major    int
	Timeline wal.TimelineID
	Size     wal.SegmentSize
	// Prev is the record that the first one points back to; 0 if there is none.
	Prev wal.LSN

	random *rand.Rand
	number wal.SegmentNumber // of the segment that Next returns
	at     uint64            // where the next byte goes
	page   []byte            // from the start of the current page
	done   []byte            // finished pages of the current segment
	rest   uint32            // of the record being written, for the next page's header
}

const (
	blockSize         = 8192
	shortHeader       = 24
	longHeader        = 40
	recordHeader      = 24
	flagContinues     = 1
	flagLong          = 2
	longestRecordData = 30_000
)

// NewWAL begins a stream at the start of segment first.
func NewWAL(systemID uint64, major int, tli wal.TimelineID, size wal.SegmentSize, first wal.SegmentNumber, seed uint64) *WAL {
	return &WAL{
		SystemID: systemID, Major: major, Timeline: tli, Size: size,
		number: first, random: rand.New(rand.NewPCG(seed, uint64(first))), at: uint64(first) * uint64(size),
	}
}

// Next returns the name and the content of the next segment.
func (w *WAL) Next() (wal.Name, []byte) {
	w.done = slices.Grow(w.done, int(w.Size))
	for len(w.done) < int(w.Size) {
		w.record()
	}
	segment := w.done[:w.Size:w.Size]
	w.done = slices.Clone(w.done[w.Size:])
	name := wal.SegmentName(w.Timeline, w.number, w.Size)
	w.number++
	return name, segment
}

// record writes one record of random length, now and then a long one.
func (w *WAL) record() {
	length := 1 + w.random.IntN(200)
	if w.random.IntN(20) == 0 {
		length = 1 + w.random.IntN(longestRecordData)
	}
	w.Record(length)
}

// Record writes one record with so many bytes of data, which may be more than a
// segment has.
func (w *WAL) Record(length int) {
	body := []byte{254}
	body = binary.LittleEndian.AppendUint32(body, uint32(length))
	body = slices.Grow(body, length+8)
	for len(body) < 5+length {
		body = binary.LittleEndian.AppendUint64(body, w.random.Uint64()&0x0F0F0F0F0F0F0F0F)
	}
	body = body[:5+length]
	header := make([]byte, recordHeader)
	binary.LittleEndian.PutUint32(header[0:], uint32(recordHeader+len(body)))
	binary.LittleEndian.PutUint32(header[4:], 700+w.random.Uint32N(100))
	binary.LittleEndian.PutUint64(header[8:], uint64(w.Prev))
	header[17] = 10 // heap
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Update(crc32.Checksum(body, castagnoli), castagnoli, header[:20])
	binary.LittleEndian.PutUint32(header[20:], crc)

	w.align()
	if len(w.page) == 0 {
		w.pageHeader()
	}
	w.Prev = wal.LSN(w.at)
	w.write(append(header, body...))
}

func (w *WAL) align() { w.put(make([]byte, -w.at%8)) }

func (w *WAL) write(b []byte) {
	for len(b) > 0 {
		if len(w.page) == 0 {
			w.rest = uint32(len(b))
			w.pageHeader()
			w.rest = 0
		}
		n := min(len(b), blockSize-len(w.page))
		w.put(b[:n])
		b = b[n:]
	}
}

// put appends bytes that end on the current page.
func (w *WAL) put(b []byte) {
	w.page = append(w.page, b...)
	w.at += uint64(len(b))
	if len(w.page) == blockSize {
		w.done = append(w.done, w.page...)
		w.page = w.page[:0]
	}
}

func (w *WAL) pageHeader() {
	magic, _ := wal.MagicOf(w.Major)
	flags, length := uint16(0), shortHeader
	if w.at%uint64(w.Size) == 0 {
		flags, length = flagLong, longHeader
	}
	if w.rest > 0 {
		flags |= flagContinues
	}
	h := make([]byte, longHeader)
	binary.LittleEndian.PutUint16(h[0:], magic)
	binary.LittleEndian.PutUint16(h[2:], flags)
	binary.LittleEndian.PutUint32(h[4:], uint32(w.Timeline))
	binary.LittleEndian.PutUint64(h[8:], w.at)
	binary.LittleEndian.PutUint32(h[16:], w.rest)
	binary.LittleEndian.PutUint64(h[24:], w.SystemID)
	binary.LittleEndian.PutUint32(h[32:], uint32(w.Size))
	binary.LittleEndian.PutUint32(h[36:], blockSize)
	w.page = append(w.page, h[:length]...)
	w.at += uint64(length)
}

// Boundary is where a record begins in the second half of a segment that a WAL has
// made: WAL that ends there is unfinished, and not damaged.
func Boundary(t testing.TB, name wal.Name, content []byte) wal.LSN {
	t.Helper()
	size := wal.SegmentSize(len(content))
	start, err := name.Start(size)
	if err != nil {
		t.Fatal(err)
	}
	found := wal.LSN(0)
	_, err = wal.WalkSegment(bytes.NewReader(content), name.Segment(), size, wal.WalkerOptions{OnRecord: func(r wal.Record) {
		if found == 0 && r.LSN > start+wal.LSN(size/2) {
			found = r.LSN
		}
	}})
	if err != nil || found == 0 {
		t.Fatalf("no record in the second half of %s: %v", name, err)
	}
	return found
}
