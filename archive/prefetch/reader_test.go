package prefetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

var cluster = archive.Cluster{SystemID: systemID, Major: 15, SegmentSize: mb}

// file is a file of pg_wal.
type file struct {
	name    wal.Name
	content []byte
}

func segments(tli wal.TimelineID, first wal.SegmentNumber, count int) (all []file) {
	w := archivetest.NewWAL(systemID, 15, tli, mb, first, uint64(tli))
	for range count {
		name, content := w.Next()
		all = append(all, file{name, content})
	}
	return all
}

// counting is a disk that counts what is opened, and can be away.
type counting struct {
	*archivetest.Memory
	mu     sync.Mutex // guards the rest
	opened map[string]int
	away   error
}

func (w *counting) Open(ctx context.Context, name string) (files.Object, error) {
	w.mu.Lock()
	if n, parsed := wal.ParseName(strings.TrimSuffix(filepath.Base(name), ".zst")); parsed == nil {
		w.opened[n.String()]++
	}
	err := w.away
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return w.Memory.Open(ctx, name)
}

func (w *counting) setAway(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = err
}

func (w *counting) times(n wal.Name) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened[n.String()]
}

func newCounting() *counting {
	return &counting{Memory: archivetest.NewMemory(), opened: map[string]int{}}
}

func archiveOn(fsys files.FS) *archive.Archive {
	return archive.New("memory", files.NewStore(fsys, local.Writer()), archive.Options{Cluster: cluster})
}

func initialise(t testing.TB, fsys files.FS) {
	t.Helper()
	id := archive.Identity{SystemID: systemID, Major: 15, SegmentSize: mb, Layout: archive.Tree, Codec: archive.Zstd, CreatedBy: "test", Created: time.Unix(1, 0)}
	if _, err := archive.Init(t.Context(), files.NewStore(fsys, local.Writer()), id); err != nil {
		t.Fatal(err)
	}
}

func push(t testing.TB, a *archive.Archive, all ...file) {
	t.Helper()
	for _, f := range all {
		if _, err := a.Push(t.Context(), f.name, bytes.NewReader(f.content)); err != nil {
			t.Fatal(err)
		}
	}
}

// holding is an archive with these files, and its disk.
func holding(t testing.TB, all ...file) (*archive.Archive, *counting) {
	t.Helper()
	disk := newCounting()
	initialise(t, disk)
	a := archiveOn(disk)
	push(t, a, all...)
	disk.opened = map[string]int{}
	return a, disk
}

// newReader is a Reader with much room.
func newReader(t testing.TB, from ...*archive.Archive) *Reader {
	t.Helper()
	dir := t.TempDir()
	r := &Reader{
		Connect: func() Source { return Source{from, func() {}} }, Size: mb, Log: slog.New(slog.DiscardHandler),
		Place: func() (*os.File, error) { return local.Unnamed(dir) },
		Room:  func(int) int { return math.MaxInt },
	}
	t.Cleanup(r.Close)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, error %v", left, err)
		}
	})
	return r
}

// get reads a file whole.
func get(t testing.TB, r *Reader, name wal.Name) ([]byte, error) {
	t.Helper()
	f, _, err := r.Get(t.Context(), name, time.Minute)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
	if err != nil {
		t.Fatal(err)
	}
	return b, nil
}

func want(t testing.TB, r *Reader, all ...file) {
	t.Helper()
	for _, f := range all {
		if got, err := get(t, r, f.name); err != nil || !bytes.Equal(got, f.content) {
			t.Fatalf("%s: got %d bytes, error %v, want its %d", f.name, len(got), err, len(f.content))
		}
	}
}

// settled waits until nothing is under way, and returns what is ready.
func settled(t testing.TB, r *Reader) (names []string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		idle := r.underWay() == 0
		if idle {
			for n := range r.held {
				names = append(names, n.String())
			}
		}
		r.mu.Unlock()
		if idle {
			slices.Sort(names)
			return names
		}
		if time.Now().After(end) {
			t.Fatal("it does not come to rest")
		}
	}
}

func namesOf(all ...file) (names []string) {
	for _, f := range all {
		names = append(names, f.name.String())
	}
	return names
}

func TestWhatFollowsIsReadyAndFetchedOnce(t *testing.T) {
	all := segments(1, 0x10, 12)
	a, disk := holding(t, all...)
	r := newReader(t, a)
	asked := all[:1]
	want(t, r, asked...)
	for _, n := range []int{2, 4, 8} {
		if got := settled(t, r); !slices.Equal(got, namesOf(all[len(asked):len(asked)+n]...)) {
			t.Errorf("after %d: got %q", len(asked), got)
		}
		asked = all[:len(asked)+1]
		want(t, r, asked[len(asked)-1])
	}
	want(t, r, all[len(asked):]...)
	for _, f := range all {
		if n := disk.times(f.name); n != 1 {
			t.Errorf("%s was opened %d times", f.name, n)
		}
	}
	if held, taken := r.Held(); held != 0 || taken != len(all)-1 {
		t.Errorf("held %d, taken %d", held, taken)
	}
	want(t, r, all[11], all[11]) // as at promotion
}

func TestOnlyAQuestionProvesThatNothingFollows(t *testing.T) {
	all := segments(1, 0x10, 4)
	a, _ := holding(t, all[:2]...)
	r := newReader(t, a)
	want(t, r, all[:2]...)
	settled(t, r)
	if _, err := get(t, r, all[2].name); !errors.Is(err, archive.ErrAbsent) {
		t.Fatalf("got %v, want %v", err, archive.ErrAbsent)
	}
	settled(t, r)
	push(t, a, all[2:]...)
	want(t, r, all[2:]...)
}

func TestAGapAndADoubtAreThoseOfTheQuestion(t *testing.T) {
	all := segments(1, 0x10, 6)
	a, disk := holding(t, all[0], all[1], all[3])
	r := newReader(t, a)
	want(t, r, all[:2]...)
	settled(t, r)
	if _, err := get(t, r, all[2].name); !errors.Is(err, archive.ErrGap) {
		t.Errorf("got %v, want %v", err, archive.ErrGap)
	}
	settled(t, r)
	errAway := errors.New("connection refused")
	disk.setAway(errAway)
	if _, err := get(t, r, all[2].name); !errors.Is(err, errAway) || errors.Is(err, archive.ErrAbsent) {
		t.Errorf("got %v, want %v", err, errAway)
	}
	if _, err := get(t, r, wal.HistoryName(2)); !errors.Is(err, errAway) || errors.Is(err, archive.ErrAbsent) {
		t.Errorf("a history: got %v, want %v", err, errAway)
	}
	settled(t, r)
	disk.setAway(nil)
	push(t, a, all[2])
	want(t, r, all[2:4]...)
}

// A segment whose WAL stops inside it is right for as long as nothing follows. What
// was right a moment ago must not be handed out.
func TestWhatLaterWALMakesWrongIsNotKept(t *testing.T) {
	all := segments(1, 0x10, 4)
	cut := all[1]
	end := archivetest.Boundary(t, cut.name, cut.content)
	streamed := file{cut.name, slices.Clone(cut.content)}
	for i := int(end % wal.LSN(mb)); i < len(streamed.content); i++ {
		streamed.content[i] = byte(i*7) | 1
	}
	a, disk := holding(t, all[0], streamed)
	r := newReader(t, a)
	want(t, r, all[0])
	if got := settled(t, r); len(got) > 0 {
		t.Errorf("kept: %q", got)
	}
	if disk.times(cut.name) == 0 {
		t.Error("it was not looked at")
	}
	want(t, r, streamed) // nothing later is known
	push(t, a, all[2])
	r.Forget()
	want(t, r, all[0])
	settled(t, r)
	if _, err := get(t, r, cut.name); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("got %v, want %v", err, archive.ErrDamaged)
	}
}

// fork is a timeline 2 that left timeline 1 in its third segment.
func fork(t testing.TB) (one, two []file, history file) {
	t.Helper()
	one, two = segments(1, 0x10, 5), segments(2, 0x12, 4)
	text := fmt.Sprintf("1\t%s\tno recovery target specified\n", mb.Start(0x12)+0x1000)
	return one, two, file{wal.HistoryName(2), []byte(text)}
}

func TestReadingAheadCrossesATimelineSwitch(t *testing.T) {
	one, two, history := fork(t)
	a, disk := holding(t, slices.Concat(one, two, []file{history})...)
	r := newReader(t, a)
	want(t, r, history, one[0])
	if got := settled(t, r); !slices.Equal(got, namesOf(one[1], two[0])) {
		t.Errorf("got %q", got)
	}
	want(t, r, one[1])
	want(t, r, two...)
	for _, f := range one[2:] {
		if n := disk.times(f.name); n > 0 {
			t.Errorf("%s was read", f.name)
		}
	}
}

// A recovery asks for the last segment again when it has been told that there are no
// more, and again.
func TestTheLastSegmentIsReadyAgainWhereARecoveryEnds(t *testing.T) {
	all := segments(1, 0x10, 3)
	a, disk := holding(t, all...)
	r := newReader(t, a)
	want(t, r, all...)
	settled(t, r)
	beyond := wal.SegmentName(1, 0x13, mb)
	for n := range 3 {
		r.Ending(beyond)
		if _, err := get(t, r, beyond); !errors.Is(err, archive.ErrAbsent) {
			t.Fatalf("got %v, want %v", err, archive.ErrAbsent)
		}
		if got := settled(t, r); !slices.Equal(got, namesOf(all[2])) {
			t.Errorf("at the end: got %q", got)
		}
		want(t, r, all[2])
		settled(t, r)
		if got := disk.times(all[2].name); got != n+3 {
			t.Errorf("it was read %d times, want %d", got, n+3)
		}
	}
	want(t, r, all[0])
	if got := settled(t, r); !slices.Equal(got, namesOf(all[1:]...)) {
		t.Errorf("elsewhere: got %q", got)
	}
}

// Without a word that a recovery asks, nothing is read twice: a standby goes on.
func TestNothingIsReadTwiceWhereMoreMayCome(t *testing.T) {
	all := segments(1, 0x10, 4)
	a, disk := holding(t, all[:3]...)
	r := newReader(t, a)
	r.Ending(all[0].name) // nothing was asked for yet
	want(t, r, all[:2]...)
	r.Ending(all[2].name) // it is there
	want(t, r, all[2])
	settled(t, r)
	if _, err := get(t, r, all[3].name); !errors.Is(err, archive.ErrAbsent) {
		t.Fatalf("got %v, want %v", err, archive.ErrAbsent)
	}
	if got := settled(t, r); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	for _, f := range all[:3] {
		if n := disk.times(f.name); n != 1 {
			t.Errorf("%s was read %d times", f.name, n)
		}
	}
}

// Without the history PostgreSQL stays where it is; it may also change its mind.
func TestAnotherTimelineThanExpectedIsServedAllTheSame(t *testing.T) {
	one, two, history := fork(t)
	a, _ := holding(t, slices.Concat(one, two, []file{history})...)
	r := newReader(t, a)
	want(t, r, one[:4]...)
	want(t, r, history)
	want(t, r, two[0], two[1])
	if got := settled(t, r); !slices.Equal(got, namesOf(two[2:]...)) {
		t.Errorf("of the new timeline: got %q", got)
	}
	want(t, r, one[2:]...) // back to the old one
	if got := settled(t, r); !slices.Equal(got, namesOf(two[3])) {
		t.Errorf("the line that is known goes on: got %q", got)
	}
}

// The server that began timeline 2 never finished its first segment: PostgreSQL
// takes the older one's.
func TestTheOlderTimelineHelpsOutWhereTheNewOneHasNothing(t *testing.T) {
	one, _, history := fork(t)
	a, disk := holding(t, slices.Concat(one, []file{history})...)
	r := newReader(t, a)
	want(t, r, history, one[0])
	if got := settled(t, r); !slices.Equal(got, namesOf(one[1:3]...)) {
		t.Errorf("got %q", got)
	}
	want(t, r, one[1])
	for _, f := range one[2:] {
		settled(t, r)
		number, err := f.name.Number(mb)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := get(t, r, wal.SegmentName(2, number, mb)); !errors.Is(err, archive.ErrAbsent) {
			t.Errorf("got %v, want %v", err, archive.ErrAbsent)
		}
		want(t, r, f)
	}
	for _, f := range one {
		if n := disk.times(f.name); n != 1 {
			t.Errorf("%s was opened %d times", f.name, n)
		}
	}
}

// Where a timeline ended says nothing about another one.
func TestTheEndOfOneTimelineIsNotThatOfAnother(t *testing.T) {
	one, two, history := fork(t)
	a, _ := holding(t, slices.Concat(one[:3], two, []file{history})...)
	r := newReader(t, a)
	want(t, r, one[:3]...)
	settled(t, r)
	want(t, r, history, two[0])
	if got := settled(t, r); !slices.Equal(got, namesOf(two[1:]...)) {
		t.Errorf("got %q", got)
	}
}

func TestRoomBoundsWhatIsKept(t *testing.T) {
	all := segments(1, 0x10, 16)
	a, _ := holding(t, all...)
	for _, room := range []int{0, 1, 3} {
		r := newReader(t, a)
		r.Room = func(int) int { return room }
		for i := range all[:8] {
			want(t, r, all[i])
			if got := settled(t, r); i > 0 && !slices.Equal(got, namesOf(all[i+1:i+1+room]...)) {
				t.Errorf("room for %d: got %q", room, got)
			}
		}
	}
}

func TestSmallAndForeignNamesAreServedAndNothingFollowsThem(t *testing.T) {
	all := segments(1, 0x10, 2)
	partial := file{all[1].name.Partial(), all[1].content}
	a, _ := holding(t, all[0], partial)
	r := newReader(t, a)
	want(t, r, partial)
	if got := settled(t, r); len(got) > 0 {
		t.Errorf("kept: %q", got)
	}
	// With segments of 1 MB there are 4096 of them, of 16 MB 256: others are not ours.
	other, err := wal.ParseName("000000010000000000001000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, r, other); err == nil {
		t.Error("a name of another segment size was served")
	}
}

func TestTheFirstArchiveThatHasItHelpsOut(t *testing.T) {
	all := segments(1, 0x10, 6)
	one, disk := holding(t, all[:3]...)
	two, _ := holding(t, all...)
	r := newReader(t, one, two)
	want(t, r, all[:4]...)
	disk.setAway(errors.New("connection refused"))
	want(t, r, all[4:]...)
	if _, err := get(t, r, wal.SegmentName(1, 0x20, mb)); err == nil || errors.Is(err, archive.ErrAbsent) {
		t.Errorf("got %v, want a doubt", err)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	all := segments(1, 0x10, 8)
	a, _ := holding(t, all...)
	r := newReader(t, a)
	want(t, r, all[0])
	r.Close()
	if held, _ := r.Held(); held != 0 {
		t.Errorf("%d are held", held)
	}
	want(t, r, all[1]) // who still asks is answered
	if held, _ := r.Held(); held != 0 {
		t.Errorf("%d are held after the end", held)
	}
}

// A call that ends leaves what it waited for to the next one.
func TestACallThatEndsTakesNothingAlong(t *testing.T) {
	all := segments(1, 0x10, 3)
	a, disk := holding(t, all...)
	r := newReader(t, a)
	want(t, r, all[0])
	settled(t, r)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("SIGTERM")
	cancel(gone)
	if f, _, err := r.Get(ctx, all[2].name, time.Minute); err == nil {
		_ = f.Close()
	} else if !errors.Is(err, gone) {
		t.Errorf("got %v, want %v", err, gone)
	}
	want(t, r, all[1:]...)
	if n := disk.times(all[1].name); n > 2 {
		t.Errorf("%s was opened %d times", all[1].name, n)
	}
}
