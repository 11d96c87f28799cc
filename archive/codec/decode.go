package codec

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// tailSize is what one read takes from the end of a file: enough for the seek
// table and the digest frame of a segment of 1 GiB.
const tailSize = 16 << 10

// Reader reads one stored file. Goroutines may share it.
type Reader struct {
	src    io.ReaderAt
	table  *seekable.SeekTable
	digest Digest
	// decoder is for single frames.
	decoder func() (*zstd.Decoder, error)
}

// NewReader reads the tail of a stored file of size bytes. It reports
// ErrDamaged if this is not a file that Encode finished, or if its size is not
// the one that its table gives. It does not close src.
func NewReader(src io.ReaderAt, size int64) (*Reader, error) {
	tail, err := readTail(src, size, min(size, tailSize))
	if err != nil {
		return nil, err
	}
	if err := checkFooter(tail); err != nil {
		return nil, err
	}
	if need := tableSize(tail) + digestFrameSize; need > int64(len(tail)) {
		if need > size {
			return nil, fmt.Errorf("seek table larger than the file: %w", ErrDamaged)
		}
		if tail, err = readTail(src, size, need); err != nil {
			return nil, err
		}
	}
	return parseTail(src, tail, size)
}

func readTail(src io.ReaderAt, size, n int64) ([]byte, error) {
	if size < tableHeaderSize+tableFooterSize {
		return nil, fmt.Errorf("%d bytes are too few: %w", size, ErrDamaged)
	}
	tail := make([]byte, n)
	if m, err := src.ReadAt(tail, size-n); m < len(tail) {
		return nil, shortRead(err)
	}
	return tail, nil
}

// shortRead names a read that ended before the size that was promised.
func shortRead(err error) error {
	if err == io.EOF {
		return fmt.Errorf("shorter than its size says: %w", ErrDamaged)
	}
	return err
}

// mostFrames bounds a seek table before memory is taken for it: 64 times what
// the largest segment has.
const mostFrames = 1 << 16

// footerMagic ends a seek table.
const footerMagic = 0x8F92EAB1

// checkFooter refuses what is no seek table before its numbers are believed.
func checkFooter(tail []byte) error {
	footer := tail[len(tail)-tableFooterSize:]
	if binary.LittleEndian.Uint32(footer[5:]) != footerMagic {
		return fmt.Errorf("it does not end with a seek table: %w", ErrDamaged)
	}
	if n := binary.LittleEndian.Uint32(footer); n > mostFrames {
		return fmt.Errorf("a seek table of %d frames: %w", n, ErrDamaged)
	}
	return nil
}

// tableSize tells the size of the seek table, in bytes, from the footer.
func tableSize(tail []byte) int64 {
	entries := binary.LittleEndian.Uint32(tail[len(tail)-tableFooterSize:])
	return tableHeaderSize + tableEntrySize*int64(entries) + tableFooterSize
}

func parseTail(src io.ReaderAt, tail []byte, size int64) (*Reader, error) {
	split := int64(len(tail)) - tableSize(tail)
	if split < digestFrameSize {
		return nil, fmt.Errorf("no room for the digest frame: %w", ErrDamaged)
	}
	table, err := seekable.NewSeekTable(tail[split:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	digest, err := parseDigest(tail[split-digestFrameSize : split])
	if err != nil {
		return nil, err
	}
	r := &Reader{src: src, table: table, digest: digest}
	r.decoder = sync.OnceValues(func() (*zstd.Decoder, error) { return newDecoder(framesAtOnce) })
	return r, r.check(size - tableSize(tail))
}

// check holds the table against the file: it ends with the digest frame, covers
// the file exactly, and no frame is larger than it may be.
func (r *Reader) check(tableStart int64) error {
	last, ok := r.table.EntryByID(r.table.NumFrames() - 1)
	if !ok || last.DecompressedSize != 0 || last.CompressedSize != digestFrameSize || last.Checksum != checksumOfNothing {
		return fmt.Errorf("the digest frame is not listed last: %w", ErrDamaged)
	}
	if end := last.CompressedOffset + digestFrameSize; end != uint64(tableStart) {
		return fmt.Errorf("frames of %d bytes where the table says %d: %w", tableStart, end, ErrDamaged)
	}
	if !r.table.HasChecksums() {
		return fmt.Errorf("the seek table has no checksums: %w", ErrDamaged)
	}
	if r.table.Size() != uint64(r.digest.Length) {
		return fmt.Errorf("frames hold %d bytes where the digest says %d: %w", r.table.Size(), r.digest.Length, ErrDamaged)
	}
	for id := range r.table.NumFrames() {
		if e, _ := r.table.EntryByID(id); e.DecompressedSize > MaxFrame || e.CompressedSize > 2*MaxFrame {
			return fmt.Errorf("frame %d holds %d bytes: %w", id, e.DecompressedSize, ErrDamaged)
		}
	}
	return nil
}

// Digest returns what the tail says the raw file is. Only Decode proves it.
func (r *Reader) Digest() Digest { return r.digest }

// decoded is one frame on its way out of the decoder.
type decoded struct{ raw []byte }

// Decode writes the raw file to dst. A nil error says that what was written has
// the stored digest; after any other, what was written is to be thrown away.
func (r *Reader) Decode(ctx context.Context, dst io.Writer) error {
	frames := make(chan decoded, inFlight-1)
	free := make(chan decoded, inFlight+1)
	for range inFlight {
		free <- decoded{}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := r.decodeFrames(func(f decoded) (decoded, error) {
			select {
			case frames <- f:
			case <-gctx.Done():
				return decoded{}, gctx.Err()
			}
			select {
			case f = <-free:
				return f, nil
			case <-gctx.Done():
				return decoded{}, gctx.Err()
			}
		})
		if err != nil {
			return err
		}
		// Only now: an early end must be told as what it was, not as a
		// digest that differs.
		close(frames)
		return nil
	})
	g.Go(func() error { return r.write(gctx, dst, frames, free) })
	err := g.Wait()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// DecodeFrugally is Decode in one goroutine: it takes longer, and less of the
// processors' time and of memory.
func (r *Reader) DecodeFrugally(ctx context.Context, dst io.Writer) error {
	sum := digester{hash: sha256.New()}
	err := r.decodeFrames(func(f decoded) (decoded, error) {
		if ctx.Err() != nil {
			return f, context.Cause(ctx)
		}
		_, err := io.MultiWriter(&sum, dst).Write(f.raw)
		return f, err
	})
	if err != nil {
		return err
	}
	return r.compare(sum.digest())
}

// decodeFrames decodes one frame after the other. pass takes it, and returns one
// whose memory is free.
func (r *Reader) decodeFrames(pass func(decoded) (decoded, error)) error {
	z, err := newDecoder(1)
	if err != nil {
		return err
	}
	defer z.Close()
	var stored []byte
	var f decoded
	for id := range r.table.NumFrames() {
		entry, _ := r.table.EntryByID(id)
		if stored, err = r.readFrame(entry, stored); err != nil {
			return err
		}
		if f.raw, err = decodeFrame(z, entry, stored, f.raw); err != nil {
			return err
		}
		if f, err = pass(f); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) readFrame(entry seekable.FrameOffsetEntry, buf []byte) ([]byte, error) {
	if cap(buf) < int(entry.CompressedSize) {
		buf = make([]byte, entry.CompressedSize)
	}
	buf = buf[:entry.CompressedSize]
	if n, err := r.src.ReadAt(buf, int64(entry.CompressedOffset)); n < len(buf) {
		return nil, shortRead(err)
	}
	return buf, nil
}

func (r *Reader) write(ctx context.Context, dst io.Writer, frames <-chan decoded, free chan<- decoded) error {
	sum := digester{hash: sha256.New()}
	for {
		select {
		case f, more := <-frames:
			if !more {
				return r.compare(sum.digest())
			}
			if err := writeBoth(dst, &sum, f.raw); err != nil {
				return err
			}
			free <- f
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writeBoth writes to dst and to the digest, at the same time: each takes about as
// long as the other.
func writeBoth(dst io.Writer, sum *digester, raw []byte) error {
	var summed sync.WaitGroup
	summed.Go(func() { _, _ = sum.Write(raw) }) // a hash takes everything
	_, err := dst.Write(raw)
	summed.Wait()
	return err
}

func (r *Reader) compare(got Digest) error {
	if got != r.digest {
		return fmt.Errorf("SHA-256 is %x where %x was stored: %w", got.SHA256, r.digest.SHA256, ErrDamaged)
	}
	return nil
}
