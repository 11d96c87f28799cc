package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/local"
)

// benchSegments is enough for reading ahead to matter.
const benchSegments = 16

// BenchmarkRead times cat of segments of 16 MB, one process for each: as local files,
// and through a mount, the first and the second time.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	a := newArchive(b, local.New(dir), treeZstd, 16<<20, benchSegments)
	plain := b.TempDir()
	for name, content := range a.files {
		if err := os.WriteFile(filepath.Join(plain, name), content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	names := slices.DeleteFunc(slices.Clone(a.names), func(n string) bool { return len(n) != 24 })
	a.files = nil
	b.Run("local", func(b *testing.B) {
		for b.Loop() {
			catEach(b, plain, names)
		}
	})
	for _, way := range []struct {
		name  string
		ahead int
		pass  bool
	}{{"passthrough", 4, true}, {"passthrough-noahead", -1, true}, {"splice", 4, false}, {"splice-noahead", -1, false}} {
		b.Run(way.name+"-cold", func(b *testing.B) { benchMount(b, a.Archive, names, way.ahead, way.pass, 0) })
		b.Run(way.name+"-second", func(b *testing.B) { benchMount(b, a.Archive, names, way.ahead, way.pass, 1) })
	}
}

func benchMount(b *testing.B, a *archive.Archive, names []string, ahead int, pass bool, before int) {
	b.StopTimer()
	var total time.Duration
	for range b.N {
		m := mountOn(b, Options{Archives: archive.Set{a}, Ahead: ahead})
		m.refuse(!pass)
		for range before {
			catEach(b, m.path(""), names)
		}
		begin := time.Now()
		b.StartTimer()
		catEach(b, m.path(""), names)
		b.StopTimer()
		total += time.Since(begin)
		m.end(b)()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(total.Milliseconds())/float64(b.N*len(names)), "ms/segment")
}

func catEach(b *testing.B, dir string, names []string) {
	b.SetBytes(int64(len(names)) * 16 << 20)
	for _, name := range names {
		if out, err := command(b, "dd", "status=none", "bs=128k", "of=/dev/null", fmt.Sprintf("if=%s/%s", dir, name)); err != nil {
			b.Fatal(out, err)
		}
	}
}
