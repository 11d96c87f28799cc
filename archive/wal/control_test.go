package wal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReadControlOfRealClusters(t *testing.T) {
	catalogs := map[int]uint32{13: 202007201, 14: 202107181, 15: 202209061, 16: 202307071, 17: 202406281, 18: 202506291}
	for _, major := range realMajors() {
		c, err := ReadControl(realCluster(t, major))
		if err != nil {
			t.Errorf("%d: %v", major, err)
			continue
		}
		h, err := ParsePageHeader(realPair(t, major)[0].bytes)
		if err != nil {
			t.Fatal(err)
		}
		if c.Major != major || c.CatalogVersion != catalogs[major] || c.SystemID != h.SystemID || c.SegmentSize != realSize ||
			c.BlockSize != usualBlock || c.State != ShutDown || c.Timeline != 1 || c.Checkpoint != c.Redo || c.Redo%LSN(realSize) != HeaderLen {
			t.Errorf("%d: got %+v", major, c)
		}
	}
}

func TestReadControlRefusesWhatCannotBeReliedOn(t *testing.T) {
	const major = 16
	for name, c := range map[string]struct {
		file    string
		content func([]byte) []byte
	}{
		"a flipped bit":   {"global/pg_control", func(b []byte) []byte { b[100] ^= 4; return b }},
		"another CRC":     {"global/pg_control", func(b []byte) []byte { b[288]++; return b }},
		"cut short":       {"global/pg_control", func(b []byte) []byte { return b[:290] }},
		"empty":           {"global/pg_control", func(b []byte) []byte { return nil }},
		"zeros":           {"global/pg_control", func(b []byte) []byte { return make([]byte, 8192) }},
		"PG_VERSION of 8": {"PG_VERSION", func([]byte) []byte { return []byte("8.4\n") }},
		"other major":     {"PG_VERSION", func([]byte) []byte { return []byte("17\n") }},
		"no PG_VERSION":   {"PG_VERSION", func([]byte) []byte { return nil }},
	} {
		dir := realCluster(t, major)
		path := filepath.Join(dir, c.file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, c.content(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadControl(dir); !errors.Is(err, ErrControl) || got != (Control{}) {
			t.Errorf("%s: got %+v, %v, want ErrControl", name, got, err)
		}
	}
	if _, err := ReadControl(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: got %v, want fs.ErrNotExist", err)
	}
}

func FuzzControl(f *testing.F) {
	for _, major := range realMajors() {
		b, err := os.ReadFile(filepath.Join(realCluster(f, major), "global", "pg_control"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseControl(b)
		if err != nil && !errors.Is(err, ErrControl) {
			t.Error(err)
		}
		if err == nil && c.SegmentSize.Valid() != nil {
			t.Errorf("accepted %+v", c)
		}
	})
}
