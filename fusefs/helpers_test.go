package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

const (
	systemID = 7301234567890123456
	mb       = wal.SegmentSize(1 << 20)
)

// form is one stored form of an archive.
type form struct {
	layout archive.Layout
	codec  archive.Codec
}

func (f form) String() string { return string(f.layout) + "-" + string(f.codec) }

var (
	treeZstd = form{archive.Tree, archive.Zstd}
	treeRaw  = form{archive.Tree, archive.None}
	flatRaw  = form{archive.Flat, archive.None}
	forms    = []form{treeZstd, treeRaw, flatRaw}
)

func store(fsys files.FS) *files.Store { return files.NewStore(fsys, local.Writer()) }

// pushed is an archive and what was pushed into it.
type pushed struct {
	*archive.Archive
	fsys  files.FS
	names []string
	files map[string][]byte
}

// newArchive makes an archive of count segments, with a history and a .partial.
func newArchive(t testing.TB, fsys files.FS, f form, size wal.SegmentSize, count int) *pushed {
	t.Helper()
	id := archive.Identity{
		SystemID: systemID, Major: 15, SegmentSize: size, Layout: f.layout, Codec: f.codec,
		Created: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), CreatedBy: "test",
	}
	if _, err := archive.Init(t.Context(), store(fsys), id); err != nil {
		t.Fatal(err)
	}
	p := &pushed{Archive: archive.New("memory://"+t.Name(), store(fsys), archive.Options{}), fsys: fsys, files: map[string][]byte{}}
	w := archivetest.NewWAL(systemID, 15, 1, size, 1, 7)
	for range count {
		p.push(t, w)
	}
	p.put(t, wal.HistoryName(2), []byte(fmt.Sprintf("1\t%s\tno recovery target specified\n", wal.LSN(uint64(count+1)*uint64(size)))))
	return p
}

func (p *pushed) push(t testing.TB, w *archivetest.WAL) wal.Name {
	t.Helper()
	name, content := w.Next()
	p.put(t, name, content)
	return name
}

func (p *pushed) put(t testing.TB, name wal.Name, content []byte) {
	t.Helper()
	if _, err := p.Push(t.Context(), name, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	p.names = append(p.names, name.String())
	p.files[name.String()] = content
}

// through is the same archive through another file system.
func (p *pushed) through(fsys files.FS) *archive.Archive {
	return archive.New(p.Name(), store(fsys), archive.Options{})
}

// logged keeps what was logged.
type logged struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// mount is a mount under test.
type mount struct {
	*Server
	dir string
	log *logged
}

// passes tells whether the kernel reads files of the cache by itself.
func (m *mount) passes() bool {
	p := &m.tree.passing
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.refused
}

// refuse lets the kernel ask for every byte, from here on.
func (m *mount) refuse(yes bool) {
	p := &m.tree.passing
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = p.refused || yes
}

func (m *mount) path(name string) string { return filepath.Join(m.dir, "wal", name) }

// needsFUSE skips where nothing can be mounted.
func needsFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("this test mounts a file system, and needs /dev/fuse: ", err)
	}
	f.Close()
	if os.Geteuid() != 0 {
		t.Skip("this test mounts a file system, and needs root")
	}
}

// mountOn mounts archives until the test ends.
func mountOn(t testing.TB, o Options) *mount {
	t.Helper()
	needsFUSE(t)
	m := &mount{dir: t.TempDir(), log: &logged{}}
	if o.Cache.Dir == "" {
		o.Cache.Dir = t.TempDir()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := Mount(t.Context(), m.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	m.Server = s
	t.Cleanup(m.end(t))
	return m
}

// end unmounts and closes, once.
func (m *mount) end(t testing.TB) func() {
	return sync.OnceFunc(func() {
		err := m.Unmount()
		// The kernel lets go of what a process had open a moment after its end.
		for until := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(until); err = m.Unmount() {
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			t.Error(err)
			syscall.Unmount(m.dir, syscall.MNT_DETACH)
		}
		ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
		defer stop()
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(m.log.String())
		}
	})
}

// command runs a program on a mount: another process, as go-fuse wants it.
func command(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return string(out), err
}

func must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// wantFails wants a program to fail, and to say so.
func wantFails(t testing.TB, says, name string, args ...string) {
	t.Helper()
	out, err := command(t, name, args...)
	if err == nil || !strings.Contains(out, says) {
		t.Errorf("%s %s: got %v, %q, want %q", name, strings.Join(args, " "), err, out, says)
	}
}

// wantContent reads a file by cat.
func wantContent(t testing.TB, path string, want []byte) {
	t.Helper()
	if got := must(t, "cat", path); got != string(want) {
		t.Errorf("%s: got %d bytes, want the %d that were pushed", path, len(got), len(want))
	}
}

// hooked is a file system whose reading is done otherwise, as long as the hook says
// so.
type hooked struct {
	files.FS
	mu   sync.Mutex // guards hook
	hook func(ctx context.Context, op, name string) error
}

func (h *hooked) set(hook func(ctx context.Context, op, name string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook = hook
}

func (h *hooked) ask(ctx context.Context, op, name string) error {
	h.mu.Lock()
	hook := h.hook
	h.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(ctx, op, name)
}

func (h *hooked) Open(ctx context.Context, name string) (files.Object, error) {
	if err := h.ask(ctx, "open", name); err != nil {
		return nil, err
	}
	return h.FS.Open(ctx, name)
}

func (h *hooked) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	if err := h.ask(ctx, "stat", name); err != nil {
		return nil, err
	}
	return h.FS.Stat(ctx, name)
}

func (h *hooked) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	if err := h.ask(ctx, "list", name); err != nil {
		return nil, err
	}
	return h.FS.ReadDir(ctx, name)
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for range 1000 {
		if what() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not come about")
}
