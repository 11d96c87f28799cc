package codec

import (
	"fmt"
	"io"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// framesAtOnce is how many single frames are decoded at the same time.
const framesAtOnce = 4

// newDecoder returns a decoder of whole frames. Goroutines may share it, and wait
// for each other then.
func newDecoder(concurrency int) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(concurrency), zstd.WithDecoderMaxMemory(MaxFrame), zstd.WithDecoderLowmem(true))
}

// Frame is the part of the raw file that is verified, and read, at a time.
type Frame struct {
	Offset int64 // in the raw file
	Length int
	entry  seekable.FrameOffsetEntry
}

// FrameAt returns the frame that holds the raw byte at off; false if there is
// none.
func (r *Reader) FrameAt(off int64) (Frame, bool) {
	if off < 0 {
		return Frame{}, false
	}
	entry, ok := r.table.EntryByDecompressedOffset(uint64(off))
	return Frame{int64(entry.DecompressedOffset), int(entry.DecompressedSize), entry}, ok
}

// ReadFrame returns the raw content of a frame, in buf if that is large enough.
// It is what the seek table has the checksum of, or the error is ErrDamaged. The
// digest of the whole file is not looked at: it says nothing of a part.
func (r *Reader) ReadFrame(f Frame, buf []byte) ([]byte, error) {
	z, err := r.decoder()
	if err != nil {
		return nil, err
	}
	stored, err := r.readFrame(f.entry, nil)
	if err != nil {
		return nil, err
	}
	return decodeFrame(z, f.entry, stored, buf)
}

// ReadAt reads raw bytes, frame by frame, each verified before a byte of it is
// returned. It is an io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	var raw []byte
	for n < len(p) {
		f, ok := r.FrameAt(off + int64(n))
		if !ok {
			return n, io.EOF
		}
		if raw, err = r.ReadFrame(f, raw); err != nil {
			return n, err
		}
		n += copy(p[n:], raw[off+int64(n)-f.Offset:])
	}
	return n, nil
}

// decodeFrame decodes one frame and holds it against the seek table.
func decodeFrame(z *zstd.Decoder, entry seekable.FrameOffsetEntry, stored, buf []byte) ([]byte, error) {
	raw, err := z.DecodeAll(stored, buf[:0])
	if err != nil || len(raw) != int(entry.DecompressedSize) || uint32(xxhash.Sum64(raw)) != entry.Checksum {
		return nil, fmt.Errorf("the frame at byte %d: %w", entry.CompressedOffset, ErrDamaged)
	}
	return raw, nil
}
