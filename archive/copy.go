package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// copyBuffer is how many bytes move at a time where nothing is compressed.
const copyBuffer = 256 << 10

// Copy writes all of a source to w. One that ends early is an error, not a shorter
// file. When ctx ends, its cause.
func Copy(ctx context.Context, w io.Writer, src Source) error { return copyRaw(ctx, w, whole(src)) }

// copyRaw copies src to w until its end or that of ctx.
func copyRaw(ctx context.Context, w io.Writer, src io.Reader) error {
	buf := make([]byte, copyBuffer)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// exactly reads the first size bytes; that fewer come is an error, never an end.
func exactly(r io.ReaderAt, size int64) io.Reader {
	return &exactReader{io.NewSectionReader(r, 0, size), size}
}

type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		return n, fmt.Errorf("it ended %d bytes too early", e.left)
	}
	return n, err
}
