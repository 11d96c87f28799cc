package codec

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"
)

func reader(t testing.TB, stored []byte) *Reader {
	t.Helper()
	r, err := NewReader(bytes.NewReader(stored), int64(len(stored)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReadAtReadsWhatWasEncoded(t *testing.T) {
	for _, size := range sampleSizes {
		raw := sample(size)
		section := io.NewSectionReader(reader(t, encode(t, raw)), 0, int64(size)+10)
		got, err := io.ReadAll(bufio.NewReaderSize(section, 3*frameSize/2))
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%d bytes: got %d bytes, error %v", size, len(got), err)
		}
	}
	if _, err := reader(t, encode(t, nil)).ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("there is something before the beginning")
	}
}

func TestRandomReadsAtTheSameTime(t *testing.T) {
	raw := sample(5*frameSize + 12345)
	r := reader(t, encode(t, raw))
	var g errgroup.Group
	for seed := range 8 {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			for range 20 {
				off := random.IntN(len(raw))
				p := make([]byte, random.IntN(min(2*frameSize, len(raw)-off)+1))
				if n, err := r.ReadAt(p, int64(off)); err != nil || !bytes.Equal(p[:n], raw[off:off+len(p)]) {
					return errors.Join(errors.New("other bytes"), err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// Nothing is known of the rest of the file, but the part that is returned is
// what was stored.
func TestReadAtOfAnyDamagedFileReturnsNoOtherBytes(t *testing.T) {
	raw := sample(3*frameSize + 100)
	stored := encode(t, raw)
	random := rand.New(rand.NewPCG(7, 7))
	damaged := 0
	for range 150 {
		at := random.IntN(len(stored))
		broken := bytes.Clone(stored)
		broken[at] ^= 1 << random.IntN(8)
		r, err := NewReader(bytes.NewReader(broken), int64(len(broken)))
		for off := int64(0); err == nil && off < int64(len(raw)); off += frameSize {
			p := make([]byte, 4096)
			var n int
			n, err = r.ReadAt(p, off)
			if want := raw[off:min(int(off)+len(p), len(raw))]; n > 0 && !bytes.Equal(p[:n], want[:n]) {
				t.Fatalf("bit at byte %d: other bytes at %d", at, off)
			}
			if n == len(raw)-int(off) {
				err = nil // the end
			}
		}
		if errors.Is(err, ErrDamaged) {
			damaged++
		} else if err != nil {
			t.Fatalf("bit at byte %d: got %v, want ErrDamaged", at, err)
		}
	}
	if damaged < 100 {
		t.Errorf("only %d of 150 were found", damaged)
	}
}
