package codec

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Digest says what a raw file is: its length in bytes and its SHA-256.
type Digest struct {
	Length int64
	SHA256 [sha256.Size]byte
}

// The digest frame, byte by byte, is in docs/format.md.
const (
	digestFrameSize  = 60
	digestFrameMagic = 0x184D2A5D
	digestVersion    = 1
)

var digestTag = [4]byte{'P', 'I', 'T', 'R'}

// marshal returns the digest frame.
func (d Digest) marshal() []byte {
	b := make([]byte, digestFrameSize)
	binary.LittleEndian.PutUint32(b[0:], digestFrameMagic)
	binary.LittleEndian.PutUint32(b[4:], digestFrameSize-8)
	copy(b[8:], digestTag[:])
	b[12] = digestVersion
	binary.LittleEndian.PutUint64(b[16:], uint64(d.Length))
	copy(b[24:], d.SHA256[:])
	binary.LittleEndian.PutUint32(b[56:], crc32.Checksum(b[8:56], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// parseDigest is the inverse of marshal: a frame that marshal would not have
// written is damaged.
func parseDigest(b []byte) (Digest, error) {
	var d Digest
	if len(b) != digestFrameSize {
		return d, fmt.Errorf("digest frame of %d bytes: %w", len(b), ErrDamaged)
	}
	d.Length = int64(binary.LittleEndian.Uint64(b[16:]))
	copy(d.SHA256[:], b[24:])
	if !bytes.Equal(b, d.marshal()) {
		return Digest{}, fmt.Errorf("digest frame: %w", ErrDamaged)
	}
	return d, nil
}
