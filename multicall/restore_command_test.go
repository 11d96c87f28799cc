package multicall

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pitr/archive/archivetest"
	"pitr/archive/wal"
)

// What pg_wal has counts only if PostgreSQL would take it, all of it.
func TestCopyInPgWALMustBeWholeSoundAndOfThisCluster(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join("..", "archive", "wal", "testdata", "pg15")
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "global"), 0o700), os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700),
		copyFile(filepath.Join(real, "PG_VERSION"), filepath.Join(dir, "PG_VERSION")),
		copyFile(filepath.Join(real, "pg_control"), filepath.Join(dir, "global", "pg_control")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	control, err := wal.ReadControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	segment := func(id uint64, major int, tli wal.TimelineID, size wal.SegmentSize) []byte {
		_, b := archivetest.NewWAL(id, major, tli, size, 9, 1).Next()
		return b
	}
	id, size := control.SystemID, control.SegmentSize
	good := segment(id, 15, 1, size)
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 1
	ended := append(append([]byte(nil), good[:len(good)/2]...), make([]byte, len(good)/2)...)
	for name, c := range map[string]struct {
		content []byte
		is      error // nil for a sound one; errUnsound for what its records say
	}{
		"whole and sound":          {good, nil},
		"of another cluster":       {segment(id+1, 15, 1, size), wal.ErrForeign},
		"of another major version": {segment(id, 16, 1, size), wal.ErrHeader},
		"of a later timeline":      {segment(id, 15, 2, size), wal.ErrHeader},
		"of another segment size":  {segment(id, 15, 1, 2*size), wal.ErrTruncated},
		"short":                    {good[:len(good)/2], wal.ErrTruncated},
		"empty":                    {nil, errUnsound},
		"with a flipped bit":       {flipped, errUnsound},
		"not finished":             {ended, errUnsound},
	} {
		n := wal.SegmentName(1, 9, size)
		if err := os.WriteFile(filepath.Join(dir, "pg_wal", n.String()), c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		err := soundIn(dir, n)
		if c.is == nil && err != nil || c.is != nil && err == nil || c.is != errUnsound && !errors.Is(err, c.is) {
			t.Errorf("%s: got %v, want %v", name, err, c.is)
		}
	}
}

var errUnsound = errors.New("its records are not sound")
