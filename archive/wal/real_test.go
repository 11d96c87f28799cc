package wal

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// segment is a real segment of testdata (see testdata/README).
type segment struct {
	name  Name
	bytes []byte
}

const realSize SegmentSize = 1 << 20

// realMajors are the versions of which testdata has two segments: one whose
// last record crosses into the other, which ends with a switch.
func realMajors() []int { return []int{13, 14, 15, 16, 17, 18} }

func realPair(t testing.TB, major int) []segment {
	return realDir(t, fmt.Sprintf("pg%d", major))
}

func realDir(t testing.TB, dir string) []segment {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no segments in testdata/%s: %v", dir, err)
	}
	slices.Sort(files)
	var found []segment
	for _, f := range files {
		n, err := ParseName(strings.TrimSuffix(filepath.Base(f), ".gz"))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, segment{n, gunzip(t, f)})
	}
	return found
}

func gunzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func walk(t testing.TB, s segment, opts WalkerOptions) Walk {
	t.Helper()
	w, err := WalkSegment(bytes.NewReader(s.bytes), s.name, realSize, opts)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// edited returns a copy of the segment with some bytes replaced.
func (s segment) edited(at int, b ...byte) segment {
	s.bytes = slices.Clone(s.bytes)
	copy(s.bytes[at:], b)
	return s
}
