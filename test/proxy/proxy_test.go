package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// echo is a server that says everything back, and what it gets to its end.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func through(t *testing.T, plan Plan) *Proxy {
	t.Helper()
	p, err := Listen(echo(t), plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// exchange sends data and its end, and returns what comes back, how long it
// took, and how it ended.
func exchange(t *testing.T, p *Proxy, data []byte) ([]byte, time.Duration, error) {
	t.Helper()
	began := time.Now()
	c := dial(t, p)
	go func() {
		c.Write(data)
		c.CloseWrite()
	}()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	return got, time.Since(began), err
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestEverythingComesThrough(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]Plan{
		"plain":   {},
		"distant": Distance(10 * time.Millisecond),
		"narrow":  {Up: Flow{Rate: 20 << 20}, Down: Flow{Rate: 20 << 20}},
		"later":   {Up: Flow{After: 1 << 30, Then: Cut}, Down: Flow{After: 1 << 30, Then: Stall}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, sent := through(t, plan), noise(3<<20+17)
			got, _, err := exchange(t, p, sent)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("got %d bytes and %v, want %d", len(got), err, len(sent))
			}
			if up, down := p.Passed(); up != int64(len(sent)) || down != up {
				t.Errorf("%d and %d bytes passed, want %d", up, down, len(sent))
			}
		})
	}
}

// TestDistanceDelaysAndDoesNotNarrow: the way there and back, once for TCP's
// handshake and once for the bytes, however many they are.
func TestDistanceDelaysAndDoesNotNarrow(t *testing.T) {
	t.Parallel()
	const roundTrip = 100 * time.Millisecond
	p := through(t, Distance(roundTrip))
	for _, n := range []int{1, 8 << 20} {
		_, took, err := exchange(t, p, make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		// The client's first bytes are sent while TCP's handshake would still be
		// under way, and wait for its end.
		if least := 2 * roundTrip; took < least || took > least+2*time.Second {
			t.Errorf("%d bytes took %s, want %s and little more", n, took, least)
		}
	}
}

func TestRateLimits(t *testing.T) {
	t.Parallel()
	p := through(t, Plan{Down: Flow{Rate: 1 << 20}})
	if _, took, err := exchange(t, p, make([]byte, 256<<10)); err != nil || took < 240*time.Millisecond {
		t.Errorf("256 kB at 1 MB a second took %s (%v)", took, err)
	}
}

func TestCutAfterBytes(t *testing.T) {
	t.Parallel()
	sent := noise(1 << 20)
	for _, n := range []int{0, 1, 1000, 100_000} {
		p := through(t, Plan{Down: Flow{After: int64(n), Then: Cut}})
		got, _, err := exchange(t, p, sent)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(got) > n || !bytes.HasPrefix(sent, got) {
			t.Errorf("cut after %d: got %d bytes and %v", n, len(got), err)
		}
		p = through(t, Plan{Up: Flow{After: int64(n), Then: Cut}})
		if got, _, err := exchange(t, p, sent); errors.Is(err, os.ErrDeadlineExceeded) || len(got) > n {
			t.Errorf("cut on the way there after %d: got %d bytes and %v", n, len(got), err)
		}
		if up, _ := p.Passed(); up > int64(n) {
			t.Errorf("%d bytes passed, want no more than %d", up, n)
		}
	}
}

func TestStallAfterBytes(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]Plan{
		"there": {Up: Flow{After: 1000, Then: Stall}},
		"back":  {Down: Flow{After: 1000, Then: Stall}},
	} {
		p := through(t, plan)
		c := dial(t, p)
		go c.Write(make([]byte, 8<<20))
		got := make([]byte, 1000)
		if _, err := io.ReadFull(c, got); err != nil {
			t.Errorf("%s: %v before the stall", name, err)
		}
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(got); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %d more bytes and %v, want silence", name, n, err)
		}
		p.Drop()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(got); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v after the connections were dropped", name, err)
		}
	}
}

func TestSilentHostNeverSpeaks(t *testing.T) {
	t.Parallel()
	p := through(t, Silent())
	c := dial(t, p)
	c.Write([]byte("hello"))
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes and %v", n, err)
	}
	if up, down := p.Passed(); up+down != 0 {
		t.Errorf("%d bytes passed", up+down)
	}
	p.Set(Plan{})
	if got, _, err := exchange(t, p, []byte("hello")); err != nil || string(got) != "hello" {
		t.Errorf("another plan: got %q and %v", got, err)
	}
}

func TestNobodyBehind(t *testing.T) {
	t.Parallel()
	p, err := Listen("127.0.0.1:1", Plan{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := exchange(t, p, []byte("hello")); errors.Is(err, os.ErrDeadlineExceeded) || len(got) > 0 {
		t.Errorf("got %q and %v", got, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseWaitsForEverything in whatever state it is. It does not run beside
// other tests: it counts goroutines.
func TestCloseWaitsForEverything(t *testing.T) {
	target := echo(t)
	for _, plan := range []Plan{{}, Silent(), Distance(time.Hour), {Up: Flow{Rate: 1}}, {Down: Flow{After: 1, Then: Stall}}} {
		p, err := Listen(target, plan)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			c := dial(t, p)
			go c.Write(make([]byte, 4<<20))
		}
		time.Sleep(10 * time.Millisecond) // any state will do
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if n := strings.Count(string(stacks), "proxy.(*conn)"); n > 0 {
			t.Errorf("%+v: %d goroutines after Close:\n%s", plan, n, stacks)
		}
		if _, err := net.Dial("tcp", p.Addr()); err == nil {
			t.Error("it still listens")
		}
	}
}
