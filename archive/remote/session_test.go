package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// quick is options for what shall not take long to fail.
func quick(o *Options) { o.Timeout = 300 * time.Millisecond }

// listening accepts connections and does with them what it is told.
func listening(t *testing.T, with func(net.Conn)) func(*Options) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go acceptAll(l, with)
	return func(o *Options) { o.Port = l.Addr().(*net.TCPAddr).Port }
}

// acceptAll serves every connection until the listener is closed.
func acceptAll(l net.Listener, with func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go with(c)
	}
}

func TestWhatIsNoSSHServer(t *testing.T) {
	s := newServer(t, openSSH)
	for _, c := range []struct {
		name  string
		with  func(net.Conn)
		texts []string
	}{
		{"silent", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, []string{"no answer within ssh_timeout (300ms)", "at step key exchange", "says nothing"}},
		{"closes", func(c net.Conn) { _ = c.Close() }, []string{"at step key exchange"}},
		{"something else", func(c net.Conn) { _, _ = io.WriteString(c, "220 mail\r\n"+strings.Repeat("x", 300)); _ = c.Close() }, []string{"at step key exchange"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			wantRefused(t, reach(t, s.newFS(quick, listening(t, c.with))), ErrConnect, c.texts...)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	wantRefused(t, reach(t, s.newFS(func(o *Options) { o.Port = port })), ErrConnect, "does sshd run there")
	wantRefused(t, reach(t, s.newFS(func(o *Options) { o.Host = "nowhere.invalid" })), ErrConnect, "is the name right")
}

func TestServerWithoutSFTP(t *testing.T) {
	s := newServer(t, nil)
	wantRefused(t, reach(t, s.newFS()), ErrConnect, "does not offer SFTP", "Subsystem sftp")
	noisy := newServer(t, func(ch ssh.Channel) error {
		_, err := io.WriteString(ch, "Welcome to this host!\r\n")
		return err
	})
	wantRefused(t, reach(t, noisy.newFS()), ErrConnect, "no SFTP", "print text")
}

// When a host is down, all who wait for it are told by the one attempt.
func TestOneAttemptTellsEverybody(t *testing.T) {
	s := newServer(t, openSSH)
	accepted := make(chan nothing, 100)
	f := s.newFS(quick, listening(t, func(net.Conn) { accepted <- nothing{} }))
	began := time.Now()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := reach(t, f); !errors.Is(err, ErrConnect) {
				t.Errorf("got %v, want %v", err, ErrConnect)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 2*time.Second || len(accepted) > 2 {
		t.Errorf("%d attempts, %s; want one", len(accepted), took)
	}
}

// One who loses interest while connecting does not fail the others.
func TestOnesEndIsNotThatOfOthers(t *testing.T) {
	s := newServer(t, openSSH)
	accepted, hold := make(chan nothing, 2), make(chan nothing)
	f := s.newFS(listening(t, func(c net.Conn) {
		accepted <- nothing{}
		<-hold
		s.connected.Add(1)
		defer s.connected.Done()
		s.handle(c)
	}), func(o *Options) { o.HostKeyPolicy, o.KnownHosts = AcceptNew, []string{filepath.Join(s.dir, "new")} })
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	const others = 8
	first, second := make(chan error, 1), make(chan error, others)
	go func() { _, err := f.Stat(ctx, "."); first <- err }()
	<-accepted // the first one is connecting, and the others wait for it
	begun := make(chan nothing)
	for range others {
		go func() { begun <- nothing{}; second <- reach(t, f) }()
	}
	for range others {
		<-begun
	}
	cancel(enough)
	if err := <-first; !errors.Is(err, enough) {
		t.Errorf("the first got %v, want %v", err, enough)
	}
	close(hold)
	for range others {
		if err := <-second; err != nil {
			t.Errorf("one of the others: %v", err)
		}
	}
}

func TestReconnects(t *testing.T) {
	s := newServer(t, openSSH)
	f := s.newFS()
	content := bytes.Repeat([]byte("0123456789"), 2_000_000)
	if err := os.WriteFile(filepath.Join(s.root(), "a"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"stat": func() error { return reach(t, f) },
		"list": func() error { _, err := f.ReadDir(t.Context(), "."); return err },
		"sync": func() error { return f.Sync(t.Context(), "a") },
		"open": func() error {
			o, err := f.Open(t.Context(), "a")
			if err == nil {
				err = o.Close()
			}
			return err
		},
		"create": func() error {
			w, err := f.Create(t.Context(), "new")
			if err == nil {
				err = w.Close()
			}
			return err
		},
		"mkdir": func() error { return f.Mkdir(t.Context(), "dir") },
	} {
		if err := reach(t, f); err != nil {
			t.Fatal(err)
		}
		s.cut()
		if err := do(); err != nil {
			t.Errorf("%s after a cut: %v", name, err)
		}
	}
	o, err := f.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	s.cut()
	got, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("read after a cut: %d bytes, error %v", len(got), err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// What goes on with something that was begun does not connect.
func TestPublishAndRemoveDoNotReconnect(t *testing.T) {
	s := newServer(t, openSSH)
	f := s.newFS()
	for name, do := range map[string]func() error{
		"publish": func() error { return f.Publish(t.Context(), "a", "b") },
		"remove":  func() error { return f.Remove(t.Context(), "a") },
	} {
		if err := reach(t, f); err != nil {
			t.Fatal(err)
		}
		before := s.accepted.Load()
		s.cut()
		if err := do(); !errors.Is(err, ErrLost) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want %v", name, err, ErrLost)
		}
		if s.accepted.Load() != before {
			t.Errorf("%s connected", name)
		}
	}
}

// A host that falls silent is found out by the keepalive.
func TestSilenceEndsAConnection(t *testing.T) {
	s := newServer(t, openSSH)
	var stalled sync.Map
	through := listening(t, func(c net.Conn) {
		there, err := net.Dial("tcp", s.address())
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(there, c) }()
		buf := make([]byte, 4096)
		for {
			n, err := there.Read(buf)
			if err != nil {
				return
			}
			if _, yes := stalled.Load("stalled"); yes {
				continue
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	f := s.newFS(through, func(o *Options) {
		o.Timeout, o.HostKeyPolicy, o.KnownHosts = 400*time.Millisecond, AcceptNew, []string{filepath.Join(s.dir, "new")}
	})
	if err := reach(t, f); err != nil {
		t.Fatal(err)
	}
	// Idle, but alive: it is asked again and again, and answers.
	for range 4 {
		<-s.asked
	}
	s1, err := f.connected()
	if err != nil {
		t.Fatal("an idle connection was given up")
	}
	stalled.Store("stalled", true)
	began := time.Now()
	if err := f.Publish(t.Context(), "a", "b"); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "silent") {
		t.Errorf("got %v, want %v because of silence", err, ErrLost)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	<-s1.lost
}

func TestClosedIsClosed(t *testing.T) {
	s := newServer(t, openSSH)
	f := s.newFS()
	if err := reach(t, f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := reach(t, f); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
}

// A server behind a live sshd that says nothing more is given up with the operation
// that waited for it: a keepalive proves nothing of it.
func TestAMuteServerIsLeftBehind(t *testing.T) {
	var came atomic.Int64
	served := 0
	s := newServer(t, func(ch ssh.Channel) error {
		if served++; served == 1 {
			return faulty(fault{request: lost, answer: passes, stall: true}, 3, nil, &came)(ch)
		}
		return openSSH(ch)
	})
	const patience = 300 * time.Millisecond
	f := s.newFS(func(o *Options) { o.Timeout = patience })
	var failed int
	for try := 0; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		_, err := f.Stat(ctx, ".")
		cancel()
		if err == nil && failed > 0 {
			break // over another connection
		}
		if err != nil {
			failed++
		}
		if try > 20 {
			t.Fatalf("after %d operations that failed, it still waits for the server that is mute", failed)
		}
	}
	if failed > 2 {
		t.Errorf("%d operations failed, want one or two", failed)
	}
}
