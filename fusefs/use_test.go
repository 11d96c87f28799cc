package fusefs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/local"
	"pitr/archive/wal"
)

func TestNothingCanBeChanged(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	file, other := m.path(a.names[0]), m.path("0000000100000000000000AA")
	for _, args := range [][]string{
		{"rm", "-f", file}, {"touch", file}, {"touch", other}, {"mv", file, other}, {"chmod", "600", file}, {"chown", "1", file},
		{"truncate", "-s", "0", file}, {"ln", file, other}, {"ln", "-s", file, other}, {"mkdir", other}, {"rmdir", m.path("")},
		{"mknod", other, "p"}, {"dd", "if=/dev/zero", "of=" + file, "count=1"}, {"dd", "if=/dev/zero", "of=" + other, "count=1"},
		{"python3", "-c", "import os,sys; os.setxattr(sys.argv[1], 'user.x', b'1')", file},
		{"rm", "-f", filepath.Join(m.dir, ".pitr", "metrics")}, {"touch", filepath.Join(m.dir, "backup", "x")},
	} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is not there", args[0])
			continue
		}
		wantFails(t, "Read-only file system", args[0], args[1:]...)
	}
	// The kernel keeps that to itself. Nor would the server do otherwise.
	if err := syscall.Mount("", m.dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"rm", "-f", file}, {"touch", other}, {"mkdir", other}, {"mv", file, other}, {"chmod", "600", file}, {"rmdir", m.path("")}} {
		wantFails(t, "Read-only file system", args[0], args[1:]...)
	}
	wantContent(t, file, a.files[a.names[0]])
}

func TestRandomReadsOfEightProcesses(t *testing.T) {
	t.Parallel()
	plain := t.TempDir()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, 4*mb, 6)
	for name, content := range a.files {
		if err := os.WriteFile(filepath.Join(plain, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reads := "40"
	if testing.Short() {
		reads = "8" // the race detector takes its time
	}
	for _, way := range []string{"passed through", "served", "in parts"} {
		through, opened := counting(a)
		m := mountOn(t, Options{Archives: archive.Set{through}})
		m.refuse(way == "served")
		if way == "in parts" {
			m.tree.source.limit.Store(int64(mb))
		}
		var all sync.WaitGroup
		for seed := range 8 {
			all.Go(func() {
				child(t, append([]string{"random", m.path(""), plain, strconv.Itoa(seed), reads}, a.names...)...)
			})
		}
		all.Wait()
		if got := opened.Load(); way != "in parts" && got != int64(len(a.names)-1) {
			t.Errorf("%s: segments were opened %d times", way, got)
		}
		if reads := m.tree.source.health.reads.Load(); (reads == 0) != (way == "passed through") && m.passes() {
			t.Errorf("%s: %d reads", way, reads)
		}
	}
}

func TestTheSecondReadIsTheKernels(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, 4*mb, 1)
	for _, inParts := range []int64{largest, int64(mb)} {
		m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
		m.refuse(true)
		m.tree.source.limit.Store(inParts)
		wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
		first := m.tree.source.health.reads.Load()
		wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
		if again := m.tree.source.health.reads.Load() - first; again != 0 || first == 0 {
			t.Errorf("%d reads, then %d more", first, again)
		}
	}
}

func TestReadingInSequenceReadsAhead(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 8)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}, Ahead: 3})
	wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
	if got := m.tree.source.health.ahead.Load(); got != 0 {
		t.Errorf("one file is no sequence, and %d were read ahead", got)
	}
	for _, name := range a.names[1:8] {
		wantContent(t, m.path(name), a.files[name])
	}
	for range 500 {
		if m.tree.source.health.ahead.Load() >= 5 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := m.tree.source.health.ahead.Load(); got < 5 || got > 6 {
		t.Errorf("%d were read ahead, want all but the first two", got)
	}
	if got := m.tree.source.health.fetches.Load(); got != 8 {
		t.Errorf("%d fetches for 8 segments", got)
	}
	if log := m.log.String(); strings.Contains(log, "WARN") || strings.Contains(log, "ERROR") {
		t.Errorf("what is not there yet was told of: %s", log)
	}
}

func TestToolsWorkOnIt(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 4)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	to := t.TempDir()
	must(t, "sh", "-c", `tar -C "$1" -cf - wal | tar -C "$2" -xf -`, "sh", m.dir, to)
	for name, content := range a.files {
		got, err := os.ReadFile(filepath.Join(to, "wal", name))
		if err != nil || string(got) != string(content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		must(t, "cmp", m.path(name), filepath.Join(to, "wal", name))
	}
	if got := strings.Fields(must(t, "find", m.path(""), "-type", "f", "-size", "1024k", "-name", "0*")); len(got) != 4 {
		t.Errorf("find: got %q", got)
	}
	if _, err := exec.LookPath("rsync"); err == nil {
		if got := must(t, "rsync", "-a", "--itemize-changes", m.path("")+"/", filepath.Join(to, "wal")+"/"); strings.Contains(got, ">f") {
			t.Errorf("rsync: got %q after tar", got)
		}
	}
	must(t, "du", "-s", m.dir)
	must(t, "df", m.dir)
	must(t, "sh", "-c", `python3 -c "import mmap,sys; f=open(sys.argv[1],'rb'); print(len(mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)[:]))" "$1" || command -v python3 | grep -v .`, "sh", m.path(a.names[0]))
}

func TestUnmountOfABusyMountIsEBUSY(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 1)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	cmd := exec.Command("sh", "-c", `exec 3< "$1"; echo open; cat`, "sh", m.path(a.names[0]))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(stdout).ReadString('\n')
	if err := m.Unmount(); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("got %v", err)
	}
	wantContent(t, m.path(a.names[0]), a.files[a.names[0]])
	stdin.Close()
	cmd.Wait()
}

// daemon starts a mount in another process.
func daemon(t *testing.T, args ...string) (cmd *exec.Cmd, stdin io.Closer, lines *bufio.Reader) {
	t.Helper()
	needsFUSE(t)
	cmd = childCommand(t, append([]string{"daemon"}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines = bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); line != "mounted\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	return cmd, in, lines
}

func TestADeadServerIsENOTCONN(t *testing.T) {
	t.Parallel()
	dir, mnt := t.TempDir(), t.TempDir()
	a := newArchive(t, local.New(dir), treeZstd, mb, 2)
	cmd, _, _ := daemon(t, dir, mnt, t.TempDir(), "")
	defer command(t, "umount", "-l", mnt)
	must(t, "cat", filepath.Join(mnt, "wal", a.names[0]))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	wantFails(t, "not connected", "cat", filepath.Join(mnt, "wal", a.names[1]))
	wantFails(t, "not connected", "ls", mnt)
}

func TestAnotherMountNamespaceDoesNotHoldItsEndUp(t *testing.T) {
	t.Parallel()
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 1)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	other := exec.Command("unshare", "-m", "sh", "-c", `echo here; read x; cat "$1"`, "sh", m.path(a.names[0]))
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); line != "here\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	if err := m.Unmount(); err != nil {
		t.Error(err)
	}
	m.Wait()
	fmt.Fprintln(stdin)
	if got, err := io.ReadAll(lines); err != nil || string(got) != string(a.files[a.names[0]]) {
		t.Errorf("the other one got %d bytes, %v", len(got), err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}

// aFullDirectory is a flat archive with very many names, all of one file.
func aFullDirectory(t *testing.T, many int) string {
	t.Helper()
	dir := smallDisk(t, "500m")
	w := archivetest.NewWAL(systemID, 15, 1, mb, wal.SegmentNumber(many), 7)
	name, content := w.Next()
	if err := os.WriteFile(filepath.Join(dir, name.String()), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range wal.SegmentNumber(many) { // a link costs no disk
		err := os.Symlink(name.String(), filepath.Join(dir, wal.SegmentName(1, n, mb).String()))
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAHundredThousandSegments(t *testing.T) {
	many := 100_000
	if testing.Short() {
		many = 10_000 // the race detector takes its time, and memory
	}
	begin := time.Now()
	lap := func(what string) {
		t.Logf("%s: %s", what, time.Since(begin).Round(time.Millisecond))
		begin = time.Now()
	}
	dir, mnt := aFullDirectory(t, many), t.TempDir()
	lap("made")
	cmd, stdin, lines := daemon(t, dir, mnt, t.TempDir(), "flat")
	defer command(t, "umount", "-l", mnt)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got := len(strings.Fields(must(t, "ls", "-f", filepath.Join(mnt, "wal")))); got != many+3 {
				t.Errorf("%d names were listed", got)
			}
		})
	}
	last := filepath.Join(mnt, "wal", wal.SegmentName(1, wal.SegmentNumber(many), mb).String())
	slowest := time.Duration(0)
	for range 20 {
		begin := time.Now()
		must(t, "stat", last)
		slowest = max(slowest, time.Since(begin))
		wantFails(t, "No such file", "stat", filepath.Join(mnt, "wal", "0000000300000000000000AA"))
	}
	all.Wait()
	lap("listed by 8")
	for range 8 {
		all.Go(func() { must(t, "cat", last) })
	}
	all.Wait()
	if got := strings.Count(must(t, "ls", "-l", filepath.Join(mnt, "wal")), "1048576"); got != many+1 {
		t.Errorf("%d segments have their size", got)
	}
	lap("ls -l")
	stdin.Close()
	line, err := lines.ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 2 {
		t.Fatalf("got %q, %v", line, err)
	}
	kilobytes, err := strconv.Atoi(fields[1])
	t.Logf("%d kB at most; the slowest stat took %s", kilobytes, slowest)
	if err != nil || kilobytes > 128<<10 && !testing.Short() {
		t.Errorf("it took %s of memory", line)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Eight readers at once, each at a segment of its own and then at those of the others,
// none of which the kernel reads by itself.
func TestMemoryOfEightReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector takes more memory than what is measured; make unit runs this without it")
	}
	for _, size := range []wal.SegmentSize{16 << 20, 128 << 20} { // whole, and in parts
		dir, mnt := t.TempDir(), t.TempDir()
		a := newArchive(t, local.New(dir), treeZstd, size, int(256<<20/size))
		a.files = nil
		cmd, stdin, lines := daemon(t, dir, mnt, t.TempDir(), "", "served")
		defer command(t, "umount", "-l", mnt)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 4 {
					must(t, "dd", "bs=1M", "of=/dev/null", "if="+filepath.Join(mnt, "wal", a.names[(i+j)%(len(a.names)-1)]))
				}
			})
		}
		all.Wait()
		stdin.Close()
		line, err := lines.ReadString('\n')
		var kilobytes int
		if _, scanErr := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err != nil || scanErr != nil || kilobytes > 128<<10 {
			t.Errorf("%d: got %q, %v", size, line, err)
		}
		t.Logf("segments of %d MB: %d kB at most", size>>20, kilobytes)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	needsFUSE(t)
	a := newArchive(t, archivetest.NewMemory(), treeZstd, 2*mb, 4)
	held := false // by another mount namespace of this machine: then it cannot end
	use := func() {
		m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
		for _, limit := range []int64{largest, int64(mb)} {
			m.tree.source.limit.Store(limit)
			for _, name := range a.names {
				wantContent(t, m.path(name), a.files[name])
			}
		}
		must(t, "ls", "-lR", m.dir)
		m.end(t)()
		if mounts := must(t, "cat", "/proc/self/mountinfo"); strings.Contains(mounts, m.dir) {
			t.Errorf("%s is still mounted", m.dir)
		}
		select {
		case <-m.served:
		default:
			held = true
		}
	}
	use() // what is made once
	before, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 5 {
		use()
	}
	if held {
		t.Log("another mount namespace has a copy of the mount: what is left behind is not counted")
		return
	}
	if after := descriptors(t); len(after) > len(before) {
		t.Errorf("descriptors: %q, before %q", after, before)
	}
	for range 100 {
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	var stacks strings.Builder
	b := make([]byte, 1<<20)
	stacks.Write(b[:runtime.Stack(b, true)])
	t.Errorf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), goroutines, stacks.String())
}

// descriptors are the open ones, but for pipes that go-fuse keeps for later.
func descriptors(t *testing.T) (open []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && !strings.HasPrefix(target, "pipe:") {
			open = append(open, target)
		}
	}
	slices.Sort(open)
	return open
}

func TestCloseEndsWhoWaits(t *testing.T) {
	t.Parallel()
	a, h, m := faulty(t, Options{})
	must(t, "stat", m.path(a.names[0]))
	h.set(func(ctx context.Context, op, name string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	done := make(chan error, 1)
	go func() {
		_, err := command(t, "cat", m.path(a.names[0]))
		done <- err
	}()
	for m.tree.source.health.fetches.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a reader got a file that never came")
	}
}

// posix are go-fuse's own tests that make no file. The others are of no use on a
// tree that cannot be changed: TestNothingCanBeChanged has their calls.
var posix = []string{"ReadDirConsistency"}

const posixVariable = "PITR_FUSEFS_POSIX"

func TestPosix(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv(posixVariable); dir != "" {
		for _, name := range posix {
			posixtest.All[name](t, dir)
		}
		return
	}
	a := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 40)
	m := mountOn(t, Options{Archives: archive.Set{a.Archive}})
	for _, dir := range []string{m.dir, m.path(""), filepath.Join(m.dir, ".pitr")} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPosix$", "-test.count=1")
		cmd.Env = append(os.Environ(), posixVariable+"="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
	if got := child(t, "seek", m.path("")); got != fmt.Sprint(len(a.names)+3) {
		t.Errorf("got %s names, want %d", got, len(a.names)+3)
	}
	for whence, want := range map[string]string{"hole": fmt.Sprint(int64(mb)), "data": "1000"} {
		if got := child(t, "lseek", m.path(a.names[0]), whence); got != want {
			t.Errorf("%s: got %s, want %s", whence, got, want)
		}
	}
}
