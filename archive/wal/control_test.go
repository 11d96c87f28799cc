package wal

import (
	"errors"
	"fmt"
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

// What pg_controldata of 15, and pg_control_recovery of 18, say of these.
func TestParseControlOfStandbys(t *testing.T) {
	for major, want := range map[int]Control{
		13: {Checkpoint: 0x6E60B8, Redo: 0x6E6080, MinRecovery: 0x6F69D0},
		15: {Checkpoint: 0x6262A0, Redo: 0x626268, MinRecovery: 0x636BB8},
		18: {Checkpoint: 0x8738F8, Redo: 0x8738A0, MinRecovery: 0x884228},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("standby%d", major), "pg_control"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseControl(b)
		got := Control{Checkpoint: c.Checkpoint, Redo: c.Redo, MinRecovery: c.MinRecovery}
		if err != nil || got != want || c.Timeline != 1 || c.MinRecoveryTimeline != 1 || c.State != InArchiveRecovery {
			t.Errorf("%d: got %+v, %v, want %+v in archive recovery on timeline 1", major, c, err, want)
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
