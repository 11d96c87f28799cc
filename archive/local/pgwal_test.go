package local

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pitr/archive/wal"
)

func TestMarksTellWhatWaitsAndWhatIsDone(t *testing.T) {
	dir := t.TempDir()
	w := PGWAL{Dir: dir}
	if err := w.Marks(t.Context(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without archive_status: got %v", err)
	}
	status := filepath.Join(dir, "archive_status")
	if err := os.Mkdir(status, 0o700); err != nil {
		t.Fatal(err)
	}
	const size = wal.SegmentSize(1 << 20)
	const count = 3 * statusBatch
	since := time.Unix(1_700_000_000, 0)
	for n := range wal.SegmentNumber(count) {
		name := filepath.Join(status, wal.SegmentName(1, n, size).String()+map[bool]string{true: ".ready", false: ".done"}[n%3 == 0])
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, since, since); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"000000010000000000000001", "x.ready", "00000002.history.ready", "000000010000000000000001.ready.done"} {
		if err := os.WriteFile(filepath.Join(status, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen, done := 0, 0
	err := w.Marks(t.Context(), func(m Mark) {
		seen++
		if m.Done {
			done++
		}
		if m.Name.Kind() == wal.KindSegment && m.At.Equal(since) == m.Done {
			t.Errorf("%s, done %t: since %s", m.Name, m.Done, m.At)
		}
	})
	if seen != count+1 || done != 2*count/3 || err != nil {
		t.Errorf("got %d marks, %d done, %v", seen, done, err)
	}
}
