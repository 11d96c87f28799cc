package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/local"
	"pitr/archive/wal"
)

func TestEveryFileIsThereRawUnderItsName(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, archivetest.NewMemory(), f, mb, 5)
			label := "START WAL LOCATION: 0/2000028 (file 000000010000000000000020)\nSTOP WAL LOCATION: 0/2000100 (file 000000010000000000000020)\nCHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-24 12:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\nSTOP TIME: 2026-11-24 12:00:01 UTC\nSTOP TIMELINE: 1\n"
			backup, err := wal.ParseName("000000010000000000000020.00000028.backup")
			if err != nil {
				t.Fatal(err)
			}
			a.put(t, backup, []byte(label))
			m := mountOn(t, Options{Archives: archive.Set{a.Archive}, UID: 12, GID: 34})
			listed := strings.Fields(must(t, "ls", m.path("")))
			want := append(slices.Clone(a.names), "archive.json")
			slices.Sort(want)
			if !slices.Equal(listed, want) {
				t.Errorf("ls: got %q, want %q", listed, want)
			}
			for name, content := range a.files {
				wantContent(t, m.path(name), content)
				got := must(t, "stat", "-c", "%s %u %g %a %h", m.path(name))
				if want := fmt.Sprintf("%d 12 34 640 1\n", len(content)); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestTimesAreThoseOfTheStoredFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := newArchive(t, local.New(dir), treeZstd, mb, 2)
	when := time.Date(2020, 2, 3, 4, 5, 6, 7000, time.UTC)
	stored := filepath.Join(dir, "wal", "0000000100000000", a.names[1]+".zst")
	if err := os.Chtimes(stored, when, when); err != nil {
		t.Fatal(err)
	}
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	if got := must(t, "stat", "-c", "%.6Y", m.path(a.names[1])); got != fmt.Sprintf("%d.000007\n", when.Unix()) {
		t.Errorf("got %s, want %d", got, when.Unix())
	}
}

func TestTheMountShowsWhatItIs(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Source: "file:///backup/main", Version: "1.2.3"})
	line := must(t, "grep", " "+m.dir+" ", "/proc/self/mountinfo")
	for _, want := range []string{"fuse.pitr", "file:///backup/main", "ro,nosuid,nodev", "default_permissions"} {
		if !strings.Contains(line, want) {
			t.Errorf("%s: no %s", line, want)
		}
	}
	if got := must(t, "ls", "-A", m.dir); got != ".pitr\nbackup\nwal\n" {
		t.Errorf("got %q", got)
	}
	must(t, "cat", m.path(a.names[0]))
	for file, wants := range map[string][]string{
		".pitr/identity.json": {`"version": "1.2.3"`, `"source": "file:///backup/main"`, `"layout": "tree"`, `"codec": "zstd"`},
		".pitr/health.json":   {`"healthy": true`, `"up": true`, `"fetches": 1`, a.Name()},
		".pitr/metrics":       {"pitr_mount_fetches_total 1\n", "pitr_mount_archive_up{archive="},
		"wal/archive.json":    {`"layout": "flat"`, `"codec": "none"`, `"system_identifier": "7301234567890123456"`},
	} {
		got := must(t, "cat", filepath.Join(m.dir, file))
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %s in\n%s", file, want, got)
			}
		}
	}
}

// What a mount shows is a flat archive: pitr works on it, with its whole policy.
func TestWalIsAFlatArchive(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 6)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	for name, content := range a.files {
		if got := child(t, "fetch", m.path(""), name); got != fmt.Sprintf("%x %v", content[:min(16, len(content))], nil) {
			t.Errorf("%s: got %s", name, got)
		}
	}
	for name, want := range map[string]string{
		"000000010000000000000099": "absent", "000000010000000000000000": "gap", "00000005.history": "absent",
	} {
		if got := child(t, "fetch", m.path(""), name); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
