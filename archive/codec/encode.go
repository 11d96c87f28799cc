package codec

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// Encoder compresses files. Between calls it holds nothing but memory to use
// again. Goroutines may share it: then atOnce of them get on, and share its
// inFlight compressors.
type Encoder struct {
	zstd  *zstd.Encoder
	slots chan struct{} // one is filled by each file being encoded

	mu     sync.Mutex // guards frames
	frames []*frame   // that nobody uses
}

// NewEncoder returns an encoder for a Zstandard level from 1 (fast) to 19
// (small). Levels are those of the zstd command, mapped to the nearest of the
// library's four.
func NewEncoder(level int) (*Encoder, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)),
		zstd.WithEncoderConcurrency(inFlight),
		zstd.WithWindowSize(frameSize),
		zstd.WithEncoderCRC(true),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd level %d: %w", level, err)
	}
	return &Encoder{zstd: z, slots: make(chan struct{}, atOnce)}, nil
}

// frame is one piece of a file on its way through the encoder.
type frame struct {
	raw  []byte // aliases a buffer of frameSize
	out  []byte
	done chan struct{}
}

// Encode reads src to its end and writes its stored form to dst. It returns the
// digest of what it read. After an error dst holds rubbish. When ctx ends,
// Encode ends with its cause as soon as a read or write under way returns.
func (e *Encoder) Encode(ctx context.Context, dst io.Writer, src io.Reader) (Digest, error) {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return Digest{}, context.Cause(ctx)
	}
	if len(e.slots) > 1 {
		return e.encodeAlone(ctx, dst, src)
	}
	table, err := newTableWriter(dst)
	if err != nil {
		return Digest{}, err
	}
	sum := digester{hash: sha256.New()}
	ordered := make(chan *frame, inFlight-1)
	free := make(chan *frame, inFlight+1)
	for range inFlight + 1 {
		f := e.frame()
		defer e.putBack(f) // when nobody uses it any more: Wait is behind us
		free <- f
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ordered)
		return e.split(gctx, g, io.TeeReader(src, &sum), free, ordered)
	})
	g.Go(func() error { return table.writeFrames(gctx, ordered, free) })
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return Digest{}, context.Cause(ctx)
		}
		return Digest{}, err
	}
	return sum.digest(), table.finish(sum.digest())
}

// encodeAlone is Encode in one goroutine, for when other files keep the other
// processors busy: a frame is read, digested and compressed while the cache has it.
func (e *Encoder) encodeAlone(ctx context.Context, dst io.Writer, src io.Reader) (Digest, error) {
	f := e.frame()
	defer e.putBack(f)
	sum := digester{hash: sha256.New()}
	src = io.TeeReader(src, &sum)
	table, err := newTableWriter(dst)
	if err != nil {
		return Digest{}, err
	}
	for {
		if ctx.Err() != nil {
			return Digest{}, context.Cause(ctx)
		}
		n, err := io.ReadFull(src, f.raw[:frameSize])
		over := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !over {
			return Digest{}, err
		}
		if n > 0 {
			f.raw = f.raw[:n]
			f.out = e.zstd.EncodeAll(f.raw, f.out[:0])
			if err := table.write(f); err != nil {
				return Digest{}, err
			}
		}
		if over {
			return sum.digest(), table.finish(sum.digest())
		}
	}
}

// frame is one to fill. They are kept, and not left to the garbage collector: memory
// that the system has to give anew costs more than what is done with it.
func (e *Encoder) frame() *frame {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.frames); n > 0 {
		f := e.frames[n-1]
		e.frames = e.frames[:n-1]
		return f
	}
	return &frame{raw: make([]byte, frameSize), out: make([]byte, 0, frameSize+frameSize/8)}
}

func (e *Encoder) putBack(f *frame) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frames = append(e.frames, f)
}

// split cuts src into frames and starts the compression of each in g; ordered
// gets them in the order of the file.
func (e *Encoder) split(ctx context.Context, g *errgroup.Group, src io.Reader, free <-chan *frame, ordered chan<- *frame) error {
	for {
		var f *frame
		select {
		case f = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := io.ReadFull(src, f.raw[:frameSize])
		f.raw = f.raw[:n]
		if n > 0 {
			f.done = make(chan struct{})
			g.Go(func() error {
				f.out = e.zstd.EncodeAll(f.raw, f.out[:0])
				close(f.done)
				return nil
			})
			select {
			case ordered <- f:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// tableWriter writes frames and, last, the table that lists them.
type tableWriter struct {
	dst     io.Writer
	current *frame
	table   *seekable.Encoder
}

// EncodeAll hands the frame that is already compressed to the seek table's
// encoder, which would otherwise compress one frame at a time.
func (t *tableWriter) EncodeAll(_, _ []byte) []byte { return t.current.out }

func newTableWriter(dst io.Writer) (*tableWriter, error) {
	t := &tableWriter{dst: dst}
	var err error
	t.table, err = seekable.NewEncoder(t)
	return t, err
}

// write writes a frame that is compressed.
func (t *tableWriter) write(f *frame) error {
	t.current = f
	out, err := t.table.Encode(f.raw)
	if err == nil {
		_, err = t.dst.Write(out)
	}
	return err
}

func (t *tableWriter) writeFrames(ctx context.Context, ordered <-chan *frame, free chan<- *frame) error {
	for f := range ordered {
		<-f.done
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.write(f); err != nil {
			return err
		}
		free <- f
	}
	return nil
}

// finish writes the digest frame and the seek table that lists it too.
func (t *tableWriter) finish(d Digest) error {
	digest := d.marshal()
	if _, err := t.dst.Write(digest); err != nil {
		return err
	}
	table, err := t.table.EndStream()
	if err != nil {
		return err
	}
	_, err = t.dst.Write(appendTableEntry(table, uint32(len(digest))))
	return err
}

// Parts of a seek table: see docs/format.md.
const (
	tableHeaderSize = 8
	tableEntrySize  = 12
	tableFooterSize = 9

	// checksumOfNothing is the low half of XXH64 of no bytes.
	checksumOfNothing = 0x51D8E999
)

// appendTableEntry adds one frame without content to a seek table: the library
// that writes the table lists only frames that it compressed.
func appendTableEntry(table []byte, compressedSize uint32) []byte {
	body, footer := table[:len(table)-tableFooterSize], table[len(table)-tableFooterSize:]
	out := append([]byte(nil), body...)
	out = binary.LittleEndian.AppendUint32(out, compressedSize)
	out = binary.LittleEndian.AppendUint32(out, 0)
	out = binary.LittleEndian.AppendUint32(out, checksumOfNothing)
	out = append(out, footer...)
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-tableHeaderSize))
	count := out[len(out)-tableFooterSize:]
	binary.LittleEndian.PutUint32(count, binary.LittleEndian.Uint32(count)+1)
	return out
}

// digester sums what passes through it.
type digester struct {
	hash   hash.Hash
	length int64
}

func (d *digester) Write(p []byte) (int, error) {
	d.length += int64(len(p))
	return d.hash.Write(p)
}

func (d *digester) digest() Digest {
	sum := Digest{Length: d.length}
	d.hash.Sum(sum.SHA256[:0])
	return sum
}

// DigestOf reads src to its end and returns its digest.
func DigestOf(src io.Reader) (Digest, error) {
	sum := digester{hash: sha256.New()}
	_, err := io.Copy(&sum, src)
	return sum.digest(), err
}
