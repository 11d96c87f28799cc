package wal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"testing"
)

// FuzzWalk puts the fuzzer's bytes after some pages of real WAL, as they are and
// once more with checksums made right, with zeros after them, and walks that in
// one piece and in small ones. What comes out must not depend on the pieces.
func FuzzWalk(f *testing.F) {
	for _, major := range realMajors() {
		first := realPair(f, major)[0].bytes
		f.Add(first[:usualBlock], uint8(0), uint16(7777))
		f.Add(first[3*usualBlock:5*usualBlock], uint8(3), uint16(1))
	}
	pair := realPair(f, 15)
	tail := walk(f, pair[0], WalkerOptions{}).Tail
	zeros := make([]byte, realSize)
	f.Fuzz(func(t *testing.T, b []byte, page uint8, piece uint16) {
		b = b[:min(len(b), 4*usualBlock)]
		at := int(page) % 16 * usualBlock
		for i, s := range pair {
			for _, b := range [][]byte{b, sealed(bytes.Clone(b), usualBlock)} {
				parts := [][]byte{s.bytes[:at], b, zeros[at+len(b):]}
				opts := WalkerOptions{Tail: []*Tail{nil, tail}[i]}
				want := walkParts(s.name, opts, parts, int(realSize))
				if got := walkParts(s.name, opts, parts, 64+int(piece)); !reflect.DeepEqual(got, want) {
					t.Errorf("in pieces: got %+v, want %+v", got, want)
				}
			}
		}
	})
}

// walkParts writes what makes up a segment in pieces of at most that length.
func walkParts(name Name, opts WalkerOptions, parts [][]byte, piece int) Walk {
	w := NewWalker(name, realSize, opts)
	for _, rest := range parts {
		for len(rest) > 0 {
			n := min(len(rest), piece)
			w.Write(rest[:n])
			rest = rest[n:]
		}
	}
	return w.Finish()
}

// sealed makes the checksums of the records right that lie within a page, so
// that the fuzzer gets past them.
func sealed(b []byte, block int) []byte {
	for page := 0; page+block <= len(b); page += block {
		h := readPageHeader(b[page : page+block])
		off := (h.length() + int(min(h.RemainingLen, uint32(block))) + 7) &^ 7
		for off < block {
			p := b[page+off : page+block]
			total := int(binary.LittleEndian.Uint32(p))
			if total < recordHeaderLen || total > len(p) {
				break
			}
			crc := checksum(crc32.Checksum(p[recordHeaderLen:total], castagnoli), (*[recordHeaderLen]byte)(p))
			binary.LittleEndian.PutUint32(p[20:], crc)
			off += (total + 7) &^ 7
		}
	}
	return b
}
