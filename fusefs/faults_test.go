package fusefs

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/local"
	"pitr/archive/wal"
)

var errCut = errors.New("the connection was cut")

func cut(context.Context, string, string) error { return errCut }

// faulty is an archive whose file system can be made to fail, mounted.
func faulty(t *testing.T, o Options) (*pushed, *hooked, *mount) {
	t.Helper()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 4)
	h := &hooked{FS: a.fsys}
	o.Archives = archive.Set{a.through(h)}
	return a, h, mountOn(t, o)
}

func TestATransientErrorIsWaitedOut(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"open", "stat"} {
		a, h, m := faulty(t, Options{})
		failed := make(chan struct{}, 1000)
		h.set(func(_ context.Context, op, name string) error {
			if op != step {
				return nil
			}
			failed <- struct{}{}
			return errCut
		})
		go func() {
			<-failed
			<-failed
			h.set(nil)
		}()
		wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
		if log := m.log.String(); strings.Count(log, "readers wait") != 1 || strings.Count(log, "answers again") != 1 || !strings.Contains(log, errCut.Error()) {
			t.Errorf("the log does not tell it once: %s", log)
		}
	}
}

func TestAListingIsWaitedForOrFails(t *testing.T) {
	t.Parallel()
	_, h, m := faulty(t, Options{Retry: time.Second})
	h.set(func(_ context.Context, op, name string) error {
		if op == "list" && name != "wal" && name != "requires" {
			return errCut
		}
		return nil
	})
	wantFails(t, "Input/output error", "ls", m.path(""))
}

func TestOnErrorFailIsEIOAtOnce(t *testing.T) {
	t.Parallel()
	a, h, m := faulty(t, Options{OnError: Fail})
	must(t, "stat", m.path(a.names[0]))
	h.set(cut)
	wantFails(t, "Input/output error", "cat", m.path(a.names[0])) // its name is known
	wantFails(t, "Input/output error", "cat", m.path(a.names[1])) // not even that
	wantFails(t, "Input/output error", "cat", m.path("0000000100000000000000AA"))
	wantFails(t, "Input/output error", "ls", m.path(""))
	h.set(nil)
	wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
	if log := m.log.String(); !strings.Contains(log, errCut.Error()) {
		t.Errorf("no reason in the log: %s", log)
	}
}

func TestRetryEndsWithEIO(t *testing.T) {
	t.Parallel()
	a, h, m := faulty(t, Options{Retry: 700 * time.Millisecond})
	h.set(cut)
	wantFails(t, "Input/output error", "cat", m.path(a.names[0]))
}

func TestAnInterruptedReaderEndsAtOnce(t *testing.T) {
	t.Parallel()
	a, h, m := faulty(t, Options{})
	must(t, "stat", m.path(a.names[0]))
	hangs := make(chan struct{}, 100)
	h.set(func(ctx context.Context, op, name string) error {
		hangs <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	for _, args := range [][]string{{"cat", m.path(a.names[0])}, {"cat", m.path(a.names[1])}, {"ls", m.path("")}} {
		for _, signal := range []os.Signal{os.Interrupt, os.Kill} {
			cmd := childCommand(t, append([]string{"exec"}, args...)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			waitForState(t, m, cmd.Process.Pid)
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Errorf("%q does not end with %s", args, signal)
				cmd.Process.Kill()
			}
		}
	}
	h.set(nil)
}

// waitForState waits until a process sleeps in a request to the mount.
func waitForState(t *testing.T, m *mount, pid int) {
	t.Helper()
	for range 1000 {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/wchan")
		if err == nil && strings.Contains(string(b), "request_wait_answer") {
			return
		}
		b, err = os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stack")
		if err == nil && strings.Contains(string(b), "fuse") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Log("it was not seen to wait")
}

func TestAHandlerThatIsInterruptedSaysEINTR(t *testing.T) {
	t.Parallel()
	_, h, m := faulty(t, Options{})
	h.set(cut)
	cancel := make(chan struct{})
	close(cancel)
	name := wal.SegmentName(1, 1, mb)
	if _, errno := m.tree.source.stat(cancel, name); errno != syscall.EINTR {
		t.Errorf("stat: got %v, want EINTR", errno)
	}
	if _, errno := m.tree.source.content(cancel, name, sight{size: int64(mb)}); errno != syscall.EINTR {
		t.Errorf("content: got %v, want EINTR", errno)
	}
	if _, errno := m.tree.source.names(cancel); errno != syscall.EINTR {
		t.Errorf("names: got %v, want EINTR", errno)
	}
}

// flip damages a stored file on disk.
func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 4}, at); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedSegmentIsEIOWithAReason(t *testing.T) {
	t.Parallel()
	for _, f := range []form{treeZstd, treeRaw} {
		for _, inParts := range []int64{largest, int64(mb)} {
			dir := t.TempDir()
			a := newArchive(t, local.New(dir), f, 4*mb, 3)
			stored := dir + "/wal/0000000100000000/" + a.names[1]
			if f.codec == archive.Zstd {
				stored += ".zst"
			}
			info, err := os.Stat(stored)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, stored, info.Size()/2)
			m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
			m.tree.source.limit.Store(inParts)
			out, err := command(t, "cat", m.path(a.names[1]))
			got, _, _ := strings.Cut(out, "cat: ")
			if err == nil || !strings.Contains(out, "Input/output error") || !strings.HasPrefix(string(a.files[a.names[1]]), got) {
				t.Errorf("%s, %d: got %d bytes, %v", f, inParts, len(out), err)
			}
			if log := m.log.String(); !strings.Contains(log, archive.ErrDamaged.Error()) || !strings.Contains(log, a.names[1]) {
				t.Errorf("%s: no reason in the log: %s", f, log)
			}
			wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
			wantContent(t, m.path(a.names[2]), a.files[a.names[2]])
		}
	}
}

func TestADamagedCopyIsReplacedByThatOfAnotherArchive(t *testing.T) {
	t.Parallel()
	for _, inParts := range []int64{largest, int64(mb)} {
		dir := t.TempDir()
		a := newArchive(t, local.New(dir), treeZstd, 4*mb, 3)
		b := newArchive(t, archivetest.NewMemory(), treeZstd, 4*mb, 3)
		stored := dir + "/wal/0000000100000000/" + a.names[1] + ".zst"
		info, err := os.Stat(stored)
		if err != nil {
			t.Fatal(err)
		}
		flip(t, stored, info.Size()/2)
		m := mountOn(t, Options{Archives: archive.Set{a.Archive, b.Archive}})
		m.tree.source.limit.Store(inParts)
		wantContent(t, m.path(a.names[1]), a.files[a.names[1]])
	}
}

func TestOnlyProofIsENOENT(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		dir := t.TempDir()
		a := newArchive(t, local.New(dir), f, mb, 3)
		b := newArchive(t, archivetest.NewMemory(), f, mb, 3)
		h := &hooked{FS: b.fsys}
		m := mountOn(t, Options{Archives: archive.Set{a.Archive, b.through(h)}, OnError: Fail})
		const none = "No such file"
		wantFails(t, none, "stat", m.path("0000000100000000000000AA"))
		wantFails(t, none, "stat", m.path("00000009.history"))
		wantFails(t, none, "stat", m.path("nothing"))
		h.set(cut) // one that cannot be asked might have it
		wantFails(t, "Input/output error", "stat", m.path("0000000100000000000000AA"))
		h.set(nil)
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		wantFails(t, "Input/output error", "stat", m.path("0000000100000000000000AA"))
		if err := os.Mkdir(dir, 0o700); err != nil { // its file system is not mounted
			t.Fatal(err)
		}
		wantFails(t, "Input/output error", "stat", m.path("0000000100000000000000AA"))
		wantFails(t, "Input/output error", "ls", m.path(""))
		must(t, "stat", m.path(a.names[0])) // the other one has it
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Fatal(err)
		}
		wantFails(t, none, "stat", m.path("0000000100000000000000AA"))
	}
}

// Every operation of the store fails in turn, once. Nothing that is there may be told
// to be absent, and no other bytes may come.
func TestWhateverFailsNothingWrongIsTold(t *testing.T) {
	t.Parallel()
	for _, f := range forms {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			a := newArchive(t, archivetest.NewMemory(), f, mb, 2)
			name := parsedName(t, a.names[1])
			for _, kind := range []archivetest.Fault{archivetest.Refused, archivetest.Unconfirmed} {
				for n := 1; ; n++ {
					fsys := &swapped{archivetest.NewFaulty(a.fsys, 0, kind)}
					s := serving(t, Options{Archives: archive.Set{a.through(fsys)}, OnError: Fail})
					fsys.Faulty = archivetest.NewFaulty(a.fsys, n, kind)
					all(t, s, a, name)
					if !fsys.Fired() {
						if n < 5 {
							t.Errorf("only %d operations", n)
						}
						break
					}
					if testing.Short() && n > 10 {
						n += 4
					}
				}
			}
		})
	}
}

// swapped is a file system behind which another one can be put.
type swapped struct{ *archivetest.Faulty }

// serving is what answers a mount, without one.
func serving(t *testing.T, o Options) *tree {
	t.Helper()
	o.Cache.Dir = t.TempDir()
	s, err := newTree(t.Context(), o.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// all asks everything that can be asked of a file that is there.
func all(t *testing.T, s *tree, a *pushed, name wal.Name) {
	t.Helper()
	never := make(chan struct{})
	seen, errno := s.source.stat(never, name)
	if errno != 0 && errno != syscall.EIO || errno == 0 && seen.size != int64(mb) {
		t.Errorf("stat: %v, %d bytes", errno, seen.size)
	}
	seen.size = int64(mb)
	e, errno := s.source.content(never, name, seen)
	switch {
	case errno == 0:
		got, err := io.ReadAll(io.NewSectionReader(e.file, 0, e.size+1))
		if err != nil || string(got) != string(a.files[name.String()]) {
			t.Errorf("other bytes, %v", err)
		}
		s.source.cache.release(e)
	case errno != syscall.EIO:
		t.Errorf("content: got %v", errno)
	}
	l, errno := s.source.names(never)
	if errno != 0 && errno != syscall.EIO || errno == 0 && len(l.files) != len(a.names) {
		t.Errorf("names: got %v, %v", errno, l)
	}
	if _, errno = s.source.stat(never, wal.SegmentName(1, 77, mb)); errno != syscall.EIO && errno != syscall.ENOENT {
		t.Errorf("absent: got %v", errno)
	}
}

func parsedName(t testing.TB, s string) wal.Name {
	t.Helper()
	n, err := wal.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
