package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

const (
	systemID = 7301234567890123456
	mb       = wal.SegmentSize(1 << 20)
)

var cluster = archive.Cluster{SystemID: systemID, Major: 15, SegmentSize: mb}

// file is a file of pg_wal.
type file struct {
	name    wal.Name
	content []byte
}

func segments(first wal.SegmentNumber, count int, seed uint64) (all []file) {
	w := archivetest.NewWAL(systemID, 15, 1, mb, first, seed)
	for range count {
		name, content := w.Next()
		all = append(all, file{name, content})
	}
	return all
}

func history(tli wal.TimelineID) file {
	return file{wal.HistoryName(tli), []byte("1\t0/1100000\tno recovery target specified\n")}
}

// site is the disk of a destination. It can be away, and it remembers the order
// in which files of PostgreSQL were published.
type site struct {
	*archivetest.Memory
	mu        sync.Mutex // guards the rest
	away      error
	published []string
}

var errAway = errors.New("connection refused")

func (s *site) setAway(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

func (s *site) order() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.published)
}

func (s *site) Open(ctx context.Context, name string) (files.Object, error) {
	s.mu.Lock()
	err := s.away
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Memory.Open(ctx, name)
}

func (s *site) Publish(ctx context.Context, from, to string) error {
	err := s.Memory.Publish(ctx, from, to)
	if _, parsed := wal.ParseName(to); err == nil && parsed == nil {
		s.mu.Lock()
		s.published = append(s.published, to)
		s.mu.Unlock()
	}
	return err
}

// newSite is a destination with a flat archive of the cluster.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{Memory: archivetest.NewMemory()}
	id := archive.Identity{
		SystemID: systemID, Major: 15, SegmentSize: mb, Layout: archive.Flat, Codec: archive.None,
		Created: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), CreatedBy: "test",
	}
	if _, err := archive.Init(t.Context(), files.NewStore(s, local.Writer()), id); err != nil {
		t.Fatal(err)
	}
	return s
}

func archiveOn(fsys files.FS) *archive.Archive {
	return archive.New("memory", files.NewStore(fsys, local.Writer()), archive.Options{Cluster: cluster, Layout: archive.Flat})
}

// shipper ships to destinations named a, b, ...
func shipper(disk ship.Disk, sites ...files.FS) *ship.Shipper {
	s := &ship.Shipper{Cluster: cluster, Disk: disk, Writer: local.Writer(), Patience: time.Minute}
	for i, fsys := range sites {
		s.Destinations = append(s.Destinations, ship.Destination{Name: string(rune('a' + i)), Archive: archiveOn(fsys)})
	}
	return s
}

func send(t testing.TB, s *ship.Shipper, f file) ([]ship.Result, error) {
	t.Helper()
	return s.Ship(t.Context(), f.name, bytes.NewReader(f.content))
}

// mustSend ships, and wants an outcome at each destination.
func mustSend(t testing.TB, s *ship.Shipper, f file, want ...ship.Outcome) []ship.Result {
	t.Helper()
	results, err := send(t, s, f)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Outcome != want[i] {
			t.Fatalf("%s at %s: got outcome %d (%v), want %d", f.name, r.Destination, r.Outcome, r.Reason, want[i])
		}
	}
	return results
}

// wantHeld checks that an archive holds a file.
func wantHeld(t testing.TB, fsys files.FS, all ...file) {
	t.Helper()
	for _, f := range all {
		var got bytes.Buffer
		err := archiveOn(fsys).Fetch(t.Context(), f.name, time.Minute, func(write func(io.Writer) error) error {
			got.Reset()
			return write(&got)
		})
		if err != nil || !bytes.Equal(got.Bytes(), f.content) {
			t.Errorf("%s: got %d bytes, error %v, want what was shipped", f.name, got.Len(), err)
		}
	}
}

// wantQueued checks what a directory of queued files holds, without dot files.
func wantQueued(t testing.TB, disk files.FS, dir string, want ...file) {
	t.Helper()
	entries, err := disk.ReadDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var got, names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			got = append(got, e.Name())
		}
	}
	for _, f := range want {
		names = append(names, f.name.String())
		if content := read(t, disk, dir+"/"+f.name.String()); !bytes.Equal(content, f.content) {
			t.Errorf("queue %s: %s has other content", dir, f.name)
		}
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("queue %s: got %q, want %q", dir, got, names)
	}
}

// wantNothingTemporary checks that a tree of queues holds no unfinished file.
func wantNothingTemporary(t testing.TB, disk files.FS, dirs ...string) {
	t.Helper()
	for _, dir := range append(dirs, ".") {
		entries, err := disk.ReadDir(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), files.TempPrefix) {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
}

func read(t testing.TB, disk files.FS, name string) []byte {
	t.Helper()
	f, err := disk.Open(t.Context(), name)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer f.Close()
	content, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// plant writes a file that nobody has queued here, as pitrtools left it.
func plant(t testing.TB, disk files.FS, name string, content []byte) {
	t.Helper()
	w, err := disk.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(content)
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

// queues is a disk with queues of these names.
func queues(t testing.TB, names ...string) *archivetest.Memory {
	t.Helper()
	disk := archivetest.NewMemory()
	for _, n := range names {
		if err := errors.Join(disk.Mkdir(t.Context(), n), disk.Sync(t.Context(), ".")); err != nil {
			t.Fatal(err)
		}
	}
	return disk
}

func hintsOf(err error) string {
	var all []string
	var walk func(error)
	walk = func(err error) {
		if h, ok := err.(interface{ Hint() string }); ok {
			all = append(all, h.Hint())
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() != nil {
				walk(e.Unwrap())
			}
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	return strings.Join(all, "\n")
}

func names(all []file) (list []string) {
	for _, f := range all {
		list = append(list, fmt.Sprint(f.name))
	}
	return list
}
