package codec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// handmade is a stored file put together by hand: what Encode writes, or the
// same with one lie in it that no bit flip makes.
type handmade struct {
	body      []byte // frames and digest frame
	table     []tableEntry
	checksums bool
}

type tableEntry struct{ compressed, decompressed, checksum uint32 }

// compressed is one frame with everything that a frame has.
func compressed(t *testing.T, raw []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true))
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(raw, nil)
}

// skippable is a frame without content, of so many bytes.
func skippable(size int) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint32(b, 0x184D2A50)
	binary.LittleEndian.PutUint32(b[4:], uint32(size-8))
	return b
}

func (h *handmade) add(stored, raw []byte) {
	h.body = append(h.body, stored...)
	h.table = append(h.table, tableEntry{uint32(len(stored)), uint32(len(raw)), uint32(xxhash.Sum64(raw))})
}

// honest is a file of these frames, with nothing wrong.
func honest(t *testing.T, frames ...[]byte) *handmade {
	h := &handmade{checksums: true}
	for _, raw := range frames {
		h.add(compressed(t, raw), raw)
	}
	whole := bytes.Join(frames, nil)
	h.add(Digest{int64(len(whole)), sha256.Sum256(whole)}.marshal(), nil)
	return h
}

// digest changes what the digest frame says.
func (h *handmade) digest(change func(*Digest)) {
	at := len(h.body) - digestFrameSize
	d, _ := parseDigest(h.body[at:])
	change(&d)
	h.body = append(h.body[:at:at], d.marshal()...)
}

func (h *handmade) bytes() []byte {
	le := binary.LittleEndian
	var entries []byte
	for _, e := range h.table {
		entries = le.AppendUint32(le.AppendUint32(entries, e.compressed), e.decompressed)
		if h.checksums {
			entries = le.AppendUint32(entries, e.checksum)
		}
	}
	b := le.AppendUint32(bytes.Clone(h.body), 0x184D2A5E)
	b = le.AppendUint32(b, uint32(len(entries)+tableFooterSize))
	b = le.AppendUint32(append(b, entries...), uint32(len(h.table)))
	flags := byte(0)
	if h.checksums {
		flags = 0x80
	}
	return le.AppendUint32(append(b, flags), footerMagic)
}

func TestHandmadeFileIsAsGoodAsAnEncodedOne(t *testing.T) {
	first, second := sample(MaxFrame), sample(1000)
	got, err := decode(honest(t, first, second).bytes())
	if err != nil || !bytes.Equal(got, append(first, second...)) {
		t.Fatalf("got %d bytes, error %v", len(got), err)
	}
}

// Each of these files is whole and sound in every respect but one. The ones
// that cost memory or a full disk must be found before a byte is decoded.
func TestEveryLieIsFound(t *testing.T) {
	raw := sample(1000)
	for what, c := range map[string]struct {
		lie   func() *handmade
		early bool
	}{
		"digest of other content": {func() *handmade {
			h := honest(t, raw)
			h.digest(func(d *Digest) { d.SHA256[5] ^= 1 })
			return h
		}, false},
		"digest of a longer file": {func() *handmade {
			h := honest(t, raw)
			h.digest(func(d *Digest) { d.Length++ })
			return h
		}, true},
		"digest of a huge file": {func() *handmade {
			h := honest(t, raw)
			h.digest(func(d *Digest) { d.Length = -1 })
			return h
		}, true},
		"checksum of another frame": {func() *handmade {
			h := honest(t, raw)
			h.table[0].checksum ^= 1
			return h
		}, false},
		"length of another frame": {func() *handmade {
			h := honest(t, raw)
			h.table[0].decompressed--
			h.digest(func(d *Digest) { d.Length-- })
			return h
		}, false},
		"lengths of two frames that make up for each other": {func() *handmade {
			h := honest(t, raw, raw)
			h.table[0].decompressed--
			h.table[1].decompressed++
			return h
		}, false},
		"a digest frame of a later version":    {func() *handmade { return withDigestByte(t, raw, 12) }, true},
		"a digest frame with something else":   {func() *handmade { return withDigestByte(t, raw, 13) }, true},
		"a digest frame with a wrong checksum": {func() *handmade { return withDigestByte(t, raw, 56) }, true},
		"another skippable frame in its place": {func() *handmade { return withDigestByte(t, raw, 0) }, true},
		"no checksums": {func() *handmade {
			h := honest(t, raw)
			h.checksums = false
			return h
		}, true},
		"a frame too large":        {func() *handmade { return honest(t, make([]byte, MaxFrame+1)) }, true},
		"a frame stored too large": {func() *handmade { return padded(t, raw, 2*MaxFrame) }, true},
		"something that is not listed": {func() *handmade {
			h := honest(t, raw)
			at := len(h.body) - digestFrameSize
			h.body = append(append(bytes.Clone(h.body[:at]), skippable(12)...), h.body[at:]...)
			return h
		}, true},
		"less than is listed": {func() *handmade {
			h := honest(t, raw)
			h.table[0].compressed++
			return h
		}, true},
		"the digest frame is not listed": {func() *handmade {
			h := honest(t, raw)
			h.table = h.table[:1]
			return h
		}, true},
		"the digest frame is not listed last": {func() *handmade {
			h := honest(t, raw, raw)
			h.table[1], h.table[2] = h.table[2], h.table[1]
			return h
		}, true},
		"the digest frame has content": {func() *handmade {
			h := honest(t, raw)
			h.table[1].decompressed = 1
			h.digest(func(d *Digest) { d.Length++ })
			return h
		}, true},
		"the digest frame has another size": {func() *handmade {
			h := honest(t, raw)
			h.table[1].compressed++
			return h
		}, true},
		"the digest frame has a checksum": {func() *handmade {
			h := honest(t, raw)
			h.table[1].checksum ^= 1
			return h
		}, true},
		"nothing is listed": {func() *handmade { return &handmade{checksums: true, body: honest(t, raw).body} }, true},
	} {
		stored := c.lie().bytes()
		r, err := NewReader(bytes.NewReader(stored), int64(len(stored)))
		if err == nil && !c.early {
			err = r.Decode(context.Background(), new(bytes.Buffer))
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", what, err)
		}
	}
}

// withDigestByte is a file in whose digest frame one byte differs.
func withDigestByte(t *testing.T, raw []byte, at int) *handmade {
	h := honest(t, raw)
	h.body[len(h.body)-digestFrameSize+at]++
	return h
}

// padded is a file whose first frame has a lot of nothing behind it.
func padded(t *testing.T, raw []byte, padding int) *handmade {
	h := &handmade{checksums: true}
	h.add(append(compressed(t, raw), skippable(padding)...), raw)
	h.add(Digest{int64(len(raw)), sha256.Sum256(raw)}.marshal(), nil)
	return h
}

// sparse is a large file of zeros that ends in a footer.
type sparse struct {
	size    int64
	footer  []byte
	largest *int
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	*s.largest = max(*s.largest, len(p))
	clear(p)
	if start := s.size - int64(len(s.footer)); off+int64(len(p)) > start {
		copy(p[start-off:], s.footer)
	}
	return len(p), nil
}

// A table is believed in only so far as a segment can have frames: its number
// decides how much memory is taken.
func TestAbsurdSeekTableTakesNoMemory(t *testing.T) {
	for _, frames := range []uint32{mostFrames + 1, 10_000_000, 100_000_000, 1<<32 - 1} {
		var largest int
		footer := binary.LittleEndian.AppendUint32(nil, frames)
		footer = binary.LittleEndian.AppendUint32(append(footer, 0x80), footerMagic)
		file := sparse{1 << 40, footer, &largest}
		if _, err := NewReader(file, file.size); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d frames: got %v, want ErrDamaged", frames, err)
		}
		if largest > tailSize {
			t.Errorf("%d frames: %d bytes were read at once, want at most %d", frames, largest, tailSize)
		}
	}
}

func TestTableLargerThanTheFileIsFound(t *testing.T) {
	stored := honest(t, sample(1000)).bytes()
	binary.LittleEndian.PutUint32(stored[len(stored)-tableFooterSize:], mostFrames)
	if _, err := decode(stored); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

// The largest segment has a thousand frames; a reader takes many more.
func TestLargeSeekTableIsRead(t *testing.T) {
	var frames [][]byte
	for i := range 3000 {
		frames = append(frames, []byte{byte(i)})
	}
	got, err := decode(honest(t, frames...).bytes())
	if err != nil || !bytes.Equal(got, bytes.Join(frames, nil)) {
		t.Errorf("got %d bytes, error %v, want %d", len(got), err, len(frames))
	}
}
