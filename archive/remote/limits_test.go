package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pitr/archive/files"
	"pitr/archive/local"
)

// The limiter says ahead of time that a deadline will not be met: a put then
// fails, and does not leave out what was to come.
func TestRateLimitNeverShortensAFile(t *testing.T) {
	s := newServer(t, openSSH)
	content := bytes.Repeat([]byte("0123456789"), 60_000)
	for _, rate := range []int64{100 << 10, 300 << 10, 500 << 10, 20 << 20} {
		f := s.newFS(func(o *Options) { o.RateLimit = rate })
		name := fmt.Sprint("f", rate)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		began := time.Now()
		err := files.NewStore(f, local.Writer()).Put(ctx, name, func(w io.Writer) error {
			_, err := w.Write(content)
			return err
		})
		cancel()
		got, readErr := os.ReadFile(filepath.Join(s.root(), name))
		switch {
		case err == nil && !bytes.Equal(got, content):
			t.Errorf("at %d: stored %d of %d bytes, and said nothing", rate, len(got), len(content))
		case err != nil && !errors.Is(readErr, fs.ErrNotExist):
			t.Errorf("at %d: %v, and it is there", rate, err)
		case rate < 300<<10 && (err == nil || time.Since(began) > 3*time.Second):
			t.Errorf("at %d: error %v after %s", rate, err, time.Since(began))
		case rate > 1<<20 && err != nil:
			t.Errorf("at %d: %v", rate, err)
		}
	}
}

// What nobody reads fills the window of a channel, and then nothing gets through.
func TestServerThatTalksOnItsStandardError(t *testing.T) {
	s := newServer(t, func(ch ssh.Channel) error {
		go func() {
			for range 100 {
				_, _ = ch.Stderr().Write(bytes.Repeat([]byte("x"), 100_000))
			}
		}()
		return openSSH(ch)
	})
	f := s.newFS()
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := f.Stat(ctx, ".")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
	locked := newServer(t, func(ch ssh.Channel) error {
		_, err := io.WriteString(ch.Stderr(), "this account is locked\n")
		return err
	})
	wantRefused(t, reach(t, locked.newFS()), ErrConnect, "this account is locked")
}

func TestKeysAreExchangedAnew(t *testing.T) {
	s := newServer(t, openSSH)
	s.change(func(c *ssh.ServerConfig) { c.RekeyThreshold = 1 << 20 })
	path := filepath.Join(s.dir, "new")
	f := s.newFS(func(o *Options) { o.KnownHosts, o.HostKeyPolicy = []string{path}, AcceptNew })
	content := make([]byte, 8<<20)
	err := files.NewStore(f, local.Writer()).Put(t.Context(), "a", func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "ssh-ed25519") != 1 {
		t.Errorf("got %q, error %v, want the key once", text, err)
	}
	is, err := f.Connection(t.Context())
	if err != nil || len(is.Steps) != 6 {
		t.Errorf("got %v, error %v, want six steps", is.Steps, err)
	}
}

func TestHomelessKnownHosts(t *testing.T) {
	s := newServer(t, openSSH)
	for _, hosts := range [][]string{{"~/known"}, nil} {
		err := reach(t, s.newFS(func(o *Options) {
			o.Home, o.KnownHosts, o.IdentityFiles = "", hosts, []string{filepath.Join(s.dir, "id")}
		}))
		if !errors.Is(err, ErrConnect) {
			t.Errorf("%q: got %v, want %v", hosts, err, ErrConnect)
		}
	}
}

// A program that starts late, or not at all in time, is ended all the same, and
// keeps nobody waiting.
func TestCommandThatStartsLate(t *testing.T) {
	s := newServer(t, openSSH)
	ended := make(chan nothing, 10)
	late := func(ctx context.Context, _ io.Writer) (Pipe, error) {
		<-ctx.Done() // it is there when nobody waits for it any more
		r, w := io.Pipe()
		return Pipe{Stdin: w, Stdout: r, End: func() error { ended <- nothing{}; return r.Close() }}, nil
	}
	f := s.newFS(func(o *Options) { o.Command, o.Timeout = late, 200*time.Millisecond })
	if err := reach(t, f); !errors.Is(err, ErrConnect) {
		t.Errorf("got %v, want %v", err, ErrConnect)
	}
	<-ended
	if err := reach(t, f); !errors.Is(err, ErrConnect) {
		t.Errorf("again: got %v, want %v", err, ErrConnect)
	}
	<-ended
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Stat(ctx, "."); !errors.Is(err, context.Canceled) || len(ended) > 0 {
		t.Errorf("got %v, and %d were started", err, len(ended))
	}
}

func TestCloseEndsAnAttempt(t *testing.T) {
	s := newServer(t, openSSH)
	accepted := make(chan nothing, 1)
	f := s.newFS(listening(t, func(net.Conn) { accepted <- nothing{} }))
	told := make(chan error, 1)
	go func() { told <- reach(t, f) }()
	<-accepted
	began := time.Now()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-told; !errors.Is(err, fs.ErrClosed) || time.Since(began) > 3*time.Second {
		t.Errorf("got %v after %s, want %v at once", err, time.Since(began), fs.ErrClosed)
	}
}

func TestReadAfterCloseIsAnError(t *testing.T) {
	s := newServer(t, openSSH)
	if err := os.WriteFile(filepath.Join(s.root(), "a"), make([]byte, 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := s.newFS().Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if _, err := o.ReadAt(make([]byte, 100), 5<<20); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
}

// A create that nobody waits for any more leaves no file.
func TestAbandonedCreateLeavesNothing(t *testing.T) {
	const fxpRemove = 13
	opened, answer, removed := make(chan nothing), make(chan nothing), make(chan nothing, 1)
	s := newServer(t, betweenPackets(func(p []byte) []byte {
		switch p[0] {
		case fxpOpen:
			opened <- nothing{}
			<-answer
		case fxpRemove:
			removed <- nothing{}
		}
		return nil
	}))
	f := s.newFS()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-opened
		cancel()
	}()
	if _, err := f.Create(ctx, ".tmp-a"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	close(answer) // now it is made
	select {
	case <-removed:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not removed")
	}
	// The server does one thing after the other.
	if _, err := f.Stat(t.Context(), ".tmp-a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it is gone", err)
	}
}

// A server that cannot sync is refused, unless that is allowed.
func TestServerThatCannotSync(t *testing.T) {
	s := newServer(t, plain)
	store := func(allow bool) *files.Store {
		return files.NewStore(s.newFS(func(o *Options) { o.AllowNoSync = allow }), local.Writer())
	}
	put := func(s *files.Store) error {
		return s.Put(t.Context(), "wal/a", func(w io.Writer) error { _, err := io.WriteString(w, "a"); return err })
	}
	if err := put(store(false)); !errors.Is(err, ErrNoSync) || !strings.Contains(hints(err), "allow_no_fsync") {
		t.Errorf("put: got %v, want %v and its hint", err, ErrNoSync)
	}
	if _, err := os.Stat(filepath.Join(s.root(), "wal", "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if err := put(store(true)); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if err := store(false).Sync(t.Context(), "wal/a"); !errors.Is(err, ErrNoSync) {
		t.Errorf("sync: got %v, want %v", err, ErrNoSync)
	}
}

func TestNamesTooLongToHold(t *testing.T) {
	name := strings.Repeat("x", 200_000)
	s := newServer(t, listing(func(id uint32) []byte { return packet(fxpName, id, 1, name, "", attrs(1, regular)) }))
	if _, err := s.newFS().ReadDir(t.Context(), "."); err == nil {
		t.Error("a listing of any size was taken")
	}
}

// A process that was stopped for a while asks before it gives a connection up.
func TestSilenceIsAskedAboutFirst(t *testing.T) {
	const timeout = 8 * time.Second
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	is := silence{since: start}
	for _, step := range []struct {
		seconds int
		moved   int64
		want    int
	}{
		{1, 0, keepWaiting}, {3, 0, keepWaiting},
		{100, 0, askNow},      // stopped in between
		{101, 1, keepWaiting}, // the question went out
		{105, 1, keepWaiting}, {108, 1, keepWaiting},
		{109, 1, giveUp},
	} {
		if got := is.next(step.moved, at(step.seconds), timeout); got != step.want {
			t.Errorf("after %d s: got %d, want %d", step.seconds, got, step.want)
		}
	}
	answered := silence{since: start}
	if got := answered.next(0, at(5), timeout); got != askNow {
		t.Errorf("got %d, want a question", got)
	}
	answered.answered.Store(true)
	if got := answered.next(2, at(6), timeout); got != keepWaiting {
		t.Errorf("answered: got %d", got)
	}
	if got := answered.next(2, at(10), timeout); got != askNow {
		t.Errorf("got %d, want another question", got)
	}
}

// TestTheLineIsFilled, and no more: a near server does not get what it cannot
// write yet.
func TestTheLineIsFilled(t *testing.T) {
	for roundTrip, want := range map[time.Duration]int{
		0: leastUnanswered, 2 * time.Millisecond: leastUnanswered,
		10 * time.Millisecond: 1 << 20, 20 * time.Millisecond: mostUnanswered, time.Second: mostUnanswered,
	} {
		if got := unanswered(roundTrip); got != want {
			t.Errorf("%s away: %d bytes on their way, want %d", roundTrip, got, want)
		}
	}
}

// TestRoomOnTheLineComesBack, whatever becomes of the files that had it: what was
// lost of it would be missing for as long as the connection lives.
func TestRoomOnTheLineComesBack(t *testing.T) {
	srv := newServer(t, openSSH)
	f := srv.newFS()
	s, err := f.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.rootMode(f.opts.Root); err != nil {
		t.Fatal(err)
	}
	before := len(s.room)
	if before < leastUnanswered/s.chunk {
		t.Errorf("there is room for %d packets of %d", before, s.chunk)
	}
	store, content := files.NewStore(f, local.Writer()), make([]byte, 4<<20)
	var puts sync.WaitGroup
	for n := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		puts.Go(func() {
			err := store.Put(ctx, fmt.Sprint("f", n), func(w io.Writer) error {
				for range 2 {
					if _, err := w.Write(content); err != nil {
						return err
					}
					if n%2 == 1 {
						cancel() // with packets on their way
					}
				}
				return nil
			})
			if (err == nil) != (n%2 == 0) {
				t.Errorf("file %d: %v", n, err)
			}
		})
	}
	puts.Wait()
	for end := time.Now().Add(10 * time.Second); len(s.room) < before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("there was room for %d packets, and now there is for %d", before, len(s.room))
		}
	}
	if s.room == nil || cap(s.room) != mostUnanswered/s.chunk {
		t.Errorf("the most is %d packets of %d", cap(s.room), s.chunk)
	}
}
