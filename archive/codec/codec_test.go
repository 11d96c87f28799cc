package codec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/iotest"

	"golang.org/x/sync/errgroup"
)

// sample is n bytes that compress about as well as WAL does.
func sample(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, 0, n+64)
	for len(b) < n {
		b = append(b, bytes.Repeat([]byte{byte(rng.Uint32())}, 8+int(rng.Uint32N(40)))...)
		b = append(b, fmt.Sprint(rng.Uint64())...)
	}
	return b[:n]
}

var sampleSizes = []int{0, 1, 100, frameSize - 1, frameSize, frameSize + 1, 5*frameSize + 12345}

func encode(t testing.TB, raw []byte) []byte {
	t.Helper()
	e, err := NewEncoder(1)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d, err := e.Encode(t.Context(), &out, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if d.SHA256 != sha256.Sum256(raw) || d.Length != int64(len(raw)) {
		t.Fatalf("digest %x of %d bytes, want %x of %d", d.SHA256, d.Length, sha256.Sum256(raw), len(raw))
	}
	return out.Bytes()
}

func decode(stored []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(stored), int64(len(stored)))
	if err != nil {
		return nil, err
	}
	var out, frugal bytes.Buffer
	err = r.Decode(context.Background(), &out)
	alone := r.DecodeFrugally(context.Background(), &frugal)
	if fmt.Sprint(err) != fmt.Sprint(alone) || err == nil && !bytes.Equal(out.Bytes(), frugal.Bytes()) {
		err = fmt.Errorf("one way gives %d bytes (%v), the other %d (%v)", out.Len(), err, frugal.Len(), alone)
	}
	return out.Bytes(), err
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	for _, size := range sampleSizes {
		raw := sample(size)
		got, err := decode(encode(t, raw))
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%d bytes: got %d bytes, error %v", size, len(got), err)
		}
	}
}

func TestStockZstdRestoresStoredForm(t *testing.T) {
	for _, size := range sampleSizes {
		raw := sample(size)
		file := filepath.Join(t.TempDir(), "f.zst")
		if err := os.WriteFile(file, encode(t, raw), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := exec.Command("zstd", "-dc", file).Output()
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%d bytes: zstd gave %d bytes, error %v", size, len(got), err)
		}
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	raw := sample(frameSize + 300)
	stored := encode(t, raw)
	rng := rand.New(rand.NewPCG(3, 4))
	offsets := rng.Perm(len(stored) - 400)[:400]
	for i := range 400 { // all of the tail
		offsets = append(offsets, len(stored)-400+i)
	}
	for _, off := range offsets {
		bit := byte(1) << rng.IntN(8)
		stored[off] ^= bit
		got, err := decode(stored)
		if err == nil && !bytes.Equal(got, raw) {
			t.Errorf("bit %#x of byte %d of %d: wrong bytes, no error", bit, off, len(stored))
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: got %v, want ErrDamaged", off, err)
		}
		stored[off] ^= bit
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	stored := encode(t, sample(frameSize+300))
	for n := 0; n < len(stored); n += 1 + n/50 {
		if _, err := decode(stored[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("first %d of %d bytes: got %v, want ErrDamaged", n, len(stored), err)
		}
	}
}

func TestTrailingBytesAreFound(t *testing.T) {
	stored := encode(t, sample(1000))
	if _, err := decode(append([]byte{0}, stored...)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte in front: got %v, want ErrDamaged", err)
	}
}

func TestEncodeReportsErrorsOfBothSides(t *testing.T) {
	e, _ := NewEncoder(1)
	broken := errors.New("broken")
	src := io.MultiReader(bytes.NewReader(sample(3*frameSize)), iotest.ErrReader(broken))
	if _, err := e.Encode(t.Context(), io.Discard, src); !errors.Is(err, broken) {
		t.Errorf("source: got %v, want %v", err, broken)
	}
	for limit := range 5 {
		dst := &failingWriter{left: limit}
		if _, err := e.Encode(t.Context(), dst, bytes.NewReader(sample(3*frameSize))); !errors.Is(err, errWriter) {
			t.Errorf("write %d: got %v, want %v", limit, err, errWriter)
		}
	}
}

var errWriter = errors.New("no room")

type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left == 0 {
		return 0, errWriter
	}
	w.left--
	return len(p), nil
}

// brokenDisk fails every read of the file's first half.
type brokenDisk struct {
	*bytes.Reader
	err error
}

func (b brokenDisk) ReadAt(p []byte, off int64) (int, error) {
	if off < b.Size()/2 {
		return 0, b.err
	}
	return b.Reader.ReadAt(p, off)
}

func TestReadErrorIsNotDamage(t *testing.T) {
	stored := encode(t, sample(5*frameSize))
	disk := brokenDisk{bytes.NewReader(stored), errors.New("input/output error")}
	r, err := NewReader(disk, int64(len(stored)))
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		err = r.Decode(t.Context(), io.Discard)
		if !errors.Is(err, disk.err) || errors.Is(err, ErrDamaged) {
			t.Fatalf("got %v, want %v alone", err, disk.err)
		}
	}
	if err := r.DecodeFrugally(t.Context(), io.Discard); !errors.Is(err, disk.err) || errors.Is(err, ErrDamaged) {
		t.Errorf("frugally: got %v, want %v alone", err, disk.err)
	}
	if err := r.Decode(t.Context(), &failingWriter{}); err == nil {
		t.Error("a failing destination went unnoticed")
	}
}

func TestCancelledCallsReportTheCause(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	e, _ := NewEncoder(1)
	if _, err := e.Encode(ctx, io.Discard, bytes.NewReader(sample(9*frameSize))); !errors.Is(err, cause) {
		t.Errorf("encode: got %v, want %v", err, cause)
	}
	stored := encode(t, sample(9*frameSize))
	r, _ := NewReader(bytes.NewReader(stored), int64(len(stored)))
	if err := r.Decode(ctx, io.Discard); !errors.Is(err, cause) {
		t.Errorf("decode: got %v, want %v", err, cause)
	}
	if err := r.DecodeFrugally(ctx, io.Discard); !errors.Is(err, cause) {
		t.Errorf("decode frugally: got %v, want %v", err, cause)
	}
}

func FuzzSeekTable(f *testing.F) {
	f.Add(encode(f, sample(0)))
	f.Add(encode(f, sample(100)))
	f.Add(encode(f, sample(frameSize+300)))
	f.Fuzz(func(t *testing.T, stored []byte) {
		got, err := decode(stored)
		if err == nil {
			again, err := decode(encode(t, got))
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("decoded %d bytes that do not survive another turn: %v", len(got), err)
			}
		} else if !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want ErrDamaged", err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	raw := sample(16 << 20)
	e, _ := NewEncoder(1)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := e.Encode(b.Context(), io.Discard, bytes.NewReader(raw)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := sample(16 << 20)
	stored := encode(b, raw)
	r, _ := NewReader(bytes.NewReader(stored), int64(len(stored)))
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if err := r.Decode(b.Context(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// However many files share an encoder, each comes out as if it were alone.
func TestFilesThatShareAnEncoderAreEncodedAlike(t *testing.T) {
	e, err := NewEncoder(1)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 3*frameSize+17)
	for i := range content {
		content[i] = byte(i >> 7 * i)
	}
	var alone bytes.Buffer
	if _, err := e.Encode(t.Context(), &alone, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	var all errgroup.Group
	for range 4 * atOnce {
		all.Go(func() error {
			var b bytes.Buffer
			d, err := e.Encode(t.Context(), &b, bytes.NewReader(content))
			if err == nil && (!bytes.Equal(b.Bytes(), alone.Bytes()) || d.Length != int64(len(content))) {
				err = errors.New("it came out otherwise")
			}
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	// A source that fails, and one whose reader has gone.
	release := make(chan struct{})
	go func() { e.slots <- struct{}{}; close(release) }()
	<-release
	broken := errors.New("broken")
	if _, err := e.Encode(t.Context(), io.Discard, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	if _, err := e.Encode(ctx, io.Discard, bytes.NewReader(content)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}
