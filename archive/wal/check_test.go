package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// expected is what testdata's pg_control says of the cluster.
func expected(t testing.TB, major int) Expect {
	t.Helper()
	c, err := ReadControl(realCluster(t, major))
	if err != nil {
		t.Fatal(err)
	}
	return Expect{SystemID: c.SystemID, Major: c.Major, Size: c.SegmentSize}
}

func TestCheckSegmentAcceptsRealSegments(t *testing.T) {
	for _, major := range realMajors() {
		want := expected(t, major)
		for _, s := range realPair(t, major) {
			for _, e := range []Expect{want, {}} {
				if err := CheckSegment(s.name, s.bytes[:HeaderLen], int64(len(s.bytes)), e); err != nil {
					t.Errorf("%d: %v", major, err)
				}
			}
		}
	}
}

func TestCheckSegmentTellsWhatIsWrong(t *testing.T) {
	const major = 15
	want := expected(t, major)
	s := realPair(t, major)[0]
	size := int64(len(s.bytes))
	name := func(text string) Name {
		n, err := ParseName(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	header := func(at int, b ...byte) []byte { return s.edited(at, b...).bytes[:HeaderLen] }
	other := Expect{SystemID: want.SystemID + 1, Major: want.Major, Size: want.Size}
	for what, c := range map[string]struct {
		name   Name
		first  []byte
		size   int64
		want   Expect
		is     error
		saying string
	}{
		"a short file":           {s.name, header(0), size - 1, want, ErrTruncated, "1048575"},
		"a long file":            {s.name, header(0), size + 1, want, ErrTruncated, "1048577"},
		"an empty file":          {s.name, nil, 0, Expect{}, ErrTruncated, "got 0"},
		"half a header":          {s.name, header(0)[:20], size, want, ErrTruncated, "got 20"},
		"another cluster":        {s.name, header(0), size, other, ErrForeign, "system identifier"},
		"another version":        {s.name, header(0), size, Expect{Major: 18, Size: want.Size}, ErrHeader, "PostgreSQL 15"},
		"an unknown version":     {s.name, header(0), size, Expect{Major: 12}, ErrHeader, "12"},
		"zeros":                  {s.name, make([]byte, HeaderLen), size, want, ErrHeader, "zeros"},
		"garbage":                {s.name, header(0, 1, 2), size, want, ErrHeader, "magic"},
		"nothing to continue":    {s.name, header(2, flagLong|flagContinues), size, want, ErrHeader, "do not go with 0 bytes"},
		"a rest without a flag":  {s.name, header(16, 7), size, want, ErrHeader, "do not go with 7 bytes"},
		"an unknown flag":        {s.name, header(3, 0x80), size, want, ErrHeader, "flags"},
		"timeline 0":             {s.name, header(4, 0), size, want, ErrHeader, "timeline 0"},
		"a later timeline":       {s.name, header(4, 2), size, want, ErrHeader, "timeline 2"},
		"a short header":         {s.name, s.bytes[usualBlock:], size, want, ErrHeader, "not the first"},
		"no segment size":        {s.name, header(32, 1), size, want, ErrHeader, "power of two"},
		"no block size":          {s.name, header(36, 1), size, want, ErrHeader, "block size"},
		"another segment size":   {s.name, header(34, 0x20), size, want, ErrHeader, "2097152"},
		"misnamed":               {name("000000010000000000000005"), header(0), size, want, ErrHeader, s.name.String()},
		"misnamed elsewhere":     {name("000000010000000100000007"), header(0), size, want, ErrHeader, s.name.String()},
		"digits of small ones":   {name("000000010000000000001007"), header(0), size, want, ErrName, "00000FFF"},
		"size of another header": {s.name, header(0), 2 * size, Expect{}, ErrTruncated, "header says"},
		"a history":              {HistoryName(2), header(0), size, want, ErrName, "history"},
	} {
		err := CheckSegment(c.name, c.first, c.size, c.want)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.saying) {
			t.Errorf("%s: got %v, want %v that says %q", what, err, c.is, c.saying)
		}
	}
}

func TestCheckSegmentAcceptsAnAncestorsPage(t *testing.T) {
	s := realPair(t, 15)[0]
	child := SegmentName(3, realSize.SegmentOf(walkStart(s)), realSize)
	if err := CheckSegment(child, s.bytes, int64(len(s.bytes)), expected(t, 15)); err != nil {
		t.Error(err)
	}
}

func TestMagicOfAndBack(t *testing.T) {
	for _, major := range realMajors() {
		magic, ok := MagicOf(major)
		if back, known := MajorOf(magic); !ok || !known || back != major {
			t.Errorf("%d: magic %04X, back %d", major, magic, back)
		}
		if got := binary.LittleEndian.Uint16(realPair(t, major)[0].bytes); got != magic {
			t.Errorf("%d: the server writes %04X, want %04X", major, got, magic)
		}
	}
	for _, major := range []int{0, -1, 12, 19} {
		if magic, ok := MagicOf(major); ok {
			t.Errorf("%d: got %04X, want none", major, magic)
		}
	}
}

func FuzzPageHeader(f *testing.F) {
	for _, major := range realMajors() {
		for _, s := range realPair(f, major) {
			f.Add(s.bytes[:HeaderLen])
			f.Add(s.bytes[usualBlock : usualBlock+HeaderLen])
		}
	}
	name := SegmentName(1, 7, realSize)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParsePageHeader(b)
		if err == nil && (h.Timeline == 0 || h.Long && h.SegmentSize.Valid() != nil) {
			t.Errorf("accepted %+v", h)
		}
		if err != nil && !errors.Is(err, ErrHeader) && !errors.Is(err, ErrTruncated) {
			t.Error(err)
		}
		if err := CheckSegment(name, b, int64(realSize), Expect{Size: realSize}); err == nil && h.PageAddr != 7<<20 {
			t.Errorf("accepted %+v as %s", h, name)
		}
	})
}

const label = `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
STOP WAL LOCATION: 0/2000138 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-24 12:00:00 UTC
LABEL: nightly
START TIMELINE: 1
STOP TIME: 2026-11-24 12:01:00 UTC
STOP TIMELINE: 1
`

func TestCheckBackupLabel(t *testing.T) {
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"000000010000000000000002.00000028.backup", label, true},
		{"000000010000000000000002.00000028.backup", strings.ReplaceAll(label, "\n", "\r\n"), true},
		{"000000010000000000000003.00000028.backup", label, false},
		{"000000020000000000000002.00000028.backup", label, false},
		{"000000010000000000000002.00000060.backup", label, false},
		{"000000010000000000000002.00000028.backup", "", false},
		{"000000010000000000000002.00000028.backup", string(make([]byte, 300)), false},
		{"000000010000000000000002.00000028.backup", "START WAL LOCATION: 0/2000028", false},
		{"000000010000000000000002.00000028.backup", "START WAL LOCATION: x (file 000000010000000000000002)", false},
		{"000000010000000000000002.00000028.backup", "START WAL LOCATION: 1/2000028 (file 000000010000000000000002)", false},
		{"000000010000000000000002", label, false},
	} {
		n, err := ParseName(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckBackupLabel(n, []byte(c.text)); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrLabel) {
			t.Errorf("%s with %.60q: got %v, want ok %v", c.name, c.text, err, c.ok)
		}
	}
}

// realCluster makes a data directory of testdata's pg_control.
func realCluster(t testing.TB, major int) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "global"), 0o700); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join("testdata", fmt.Sprintf("pg%d", major))
	copyFile(t, filepath.Join(from, "PG_VERSION"), filepath.Join(dir, "PG_VERSION"))
	copyFile(t, filepath.Join(from, "pg_control"), filepath.Join(dir, "global", "pg_control"))
	return dir
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
