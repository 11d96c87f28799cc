package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/wal"
)

const systemID, major, segmentSize = 7301234567890123456, 15, 1 << 20

// fault is what happens to a connection at a point.
type fault struct {
	name string
	// request and answer see the nth packet of the client and the nth write of
	// the server; false: it does not get through, nor does anything after it.
	request, answer func(n, at int64) bool
	stall           bool // nothing gets through any more, and the connection stays
}

func lost(n, at int64) bool  { return n < at }
func passes(_, _ int64) bool { return true }

var connectionFaults = []fault{
	{name: "cut before a request", request: lost, answer: passes},
	{name: "cut before an answer", request: passes, answer: lost},
	{name: "stalled before a request", request: lost, answer: passes, stall: true},
	{name: "stalled before an answer", request: passes, answer: lost, stall: true},
}

// faulty is OpenSSH's server behind a connection with a fault. It notes how many
// requests came.
func faulty(f fault, at int64, conn func() net.Conn, came *atomic.Int64) subsystem {
	return func(ch ssh.Channel) error {
		var requests, answers atomic.Int64
		answering := answered{ch, func(p []byte) (int, error) {
			if !f.answer(answers.Add(1), at) {
				if f.stall {
					return len(p), nil
				}
				_ = conn().Close()
				return 0, io.ErrClosedPipe
			}
			return ch.Write(p)
		}}
		there := newPipes()
		done := make(chan error, 1)
		go func() { done <- there.run(answering) }()
		for {
			p, err := readPacket(ch)
			if err != nil {
				break
			}
			came.Add(1)
			if !f.request(requests.Add(1), at) {
				if f.stall {
					continue
				}
				_ = conn().Close()
				break
			}
			if _, err := there.toServer.Write(packet(p[0], p[1:])); err != nil {
				break
			}
		}
		there.toServer.Close()
		return <-done
	}
}

// answered is a channel whose writes are looked at.
type answered struct {
	ssh.Channel
	write func([]byte) (int, error)
}

func (a answered) Write(p []byte) (int, error) { return a.write(p) }

// segmentFile is a segment to be pushed.
type segmentFile struct {
	name    wal.Name
	content []byte
}

func someSegments(n int) []segmentFile {
	w := archivetest.NewWAL(systemID, major, 1, segmentSize, 1, 1)
	var all []segmentFile
	for range n {
		name, content := w.Next()
		all = append(all, segmentFile{name, content})
	}
	return all
}

func archiveOver(fsys files.FS) *archive.Archive {
	return archive.New("test", files.NewStore(fsys, local.Writer()), archive.Options{})
}

func newArchive(t *testing.T, root string, layout archive.Layout, codec archive.Codec) {
	t.Helper()
	_, err := archive.Init(t.Context(), files.NewStore(local.New(root), local.Writer()), archive.Identity{
		SystemID: systemID, Major: major, SegmentSize: segmentSize, Layout: layout, Codec: codec,
		Created: time.Unix(1, 0).UTC(), CreatedBy: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fetched is what an archive has, or nil if that is proven absent.
func fetched(ctx context.Context, a *archive.Archive, name wal.Name) ([]byte, error) {
	var b bytes.Buffer
	err := a.Fetch(ctx, name, time.Minute, func(write func(io.Writer) error) error {
		b.Reset()
		return write(&b)
	})
	if errors.Is(err, archive.ErrAbsent) {
		return nil, nil
	}
	return b.Bytes(), err
}

// TestPushOverEveryFault breaks the connection at every packet of a push: what
// is visible is whole, the call ends in time, and the next one succeeds.
func TestPushOverEveryFault(t *testing.T) {
	s := newServer(t, openSSH)
	newArchive(t, s.root(), archive.Tree, archive.Zstd)
	there := archiveOver(local.New(s.root()))
	all := someSegments(400)
	if _, err := archiveOver(s.newFS()).Push(t.Context(), all[0].name, bytes.NewReader(all[0].content)); err != nil {
		t.Fatal(err)
	}
	next := 1
	for _, f := range connectionFaults {
		failed, step := 0, int64(1)
		if f.stall {
			step = 4 // each takes its time
		}
		if testing.Short() { // for the race detector: it is slow, and looks for something else
			step *= 4
		}
		for at := int64(1); ; at += step {
			seg := all[next]
			next++
			if !pushOverFault(t, s.root(), there, f, at, seg) {
				failed++
			} else if failed > 0 {
				break // the fault came after the push
			}
			if _, err := archiveOver(s.newFS()).Push(t.Context(), seg.name, bytes.NewReader(seg.content)); err != nil {
				t.Fatalf("%s at %d: the next push: %v", f.name, at, err)
			}
			if got, err := fetched(t.Context(), there, seg.name); err != nil || !bytes.Equal(got, seg.content) {
				t.Fatalf("%s at %d: after the next push: %d bytes, error %v", f.name, at, len(got), err)
			}
		}
		if least := 12 / int(step); failed < least {
			t.Errorf("%s: only %d pushes failed, want %d at least", f.name, failed, least)
		}
	}
}

// pushOverFault tells whether the push succeeded.
func pushOverFault(t *testing.T, root string, there *archive.Archive, f fault, at int64, seg segmentFile) bool {
	t.Helper()
	var came atomic.Int64
	var s *server
	s = newServer(t, faulty(f, at, func() net.Conn { return s.newest() }, &came))
	fsys := s.newFS(func(o *Options) { o.Root, o.Timeout = root, 10*time.Second })
	const budget = 250 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 20*budget)
	if f.stall {
		ctx, cancel = context.WithTimeout(t.Context(), budget)
	}
	defer cancel()
	began := time.Now()
	_, err := archiveOver(fsys).Push(ctx, seg.name, bytes.NewReader(seg.content))
	if took := time.Since(began); f.stall && took > budget+2*time.Second {
		t.Errorf("%s at %d: it took %s", f.name, at, took)
	}
	_ = fsys.Close()
	s.stop()
	got, absent := fetched(t.Context(), there, seg.name)
	switch {
	case absent != nil:
		t.Errorf("%s at %d: what is there: %v", f.name, at, absent)
	case err == nil && got == nil:
		t.Errorf("%s at %d: acknowledged, and not there", f.name, at)
	case got != nil && !bytes.Equal(got, seg.content):
		t.Errorf("%s at %d: something else is there", f.name, at)
	}
	return err == nil
}

// newest is the connection that was accepted last.
func (s *server) newest() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[len(s.conns)-1]
}

// TestFetchOverEveryFault breaks the connection at every packet of two fetches:
// that of a file that is there never gives another one, and that of one that is
// not never gives it up without proof.
func TestFetchOverEveryFault(t *testing.T) {
	s := newServer(t, openSSH)
	newArchive(t, s.root(), archive.Flat, archive.None)
	all := someSegments(3)
	for _, seg := range all[:2] {
		if _, err := archiveOver(s.newFS()).Push(t.Context(), seg.name, bytes.NewReader(seg.content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range connectionFaults[:2] {
		for _, seg := range all[1:] {
			failed := 0
			for at := int64(1); ; at++ {
				var came atomic.Int64
				var far *server
				far = newServer(t, faulty(f, at, func() net.Conn { return far.newest() }, &came))
				// The first connection breaks, and so does the one after it.
				fsys := far.newFS(func(o *Options) { o.Root = s.root() })
				got, err := fetched(t.Context(), archiveOver(fsys), seg.name)
				_ = fsys.Close()
				far.stop()
				switch {
				case err != nil:
					failed++
				case seg.name == all[1].name && !bytes.Equal(got, seg.content):
					t.Fatalf("%s at %d: got %d bytes without an error", f.name, at, len(got))
				case seg.name == all[2].name && got != nil:
					t.Fatalf("%s at %d: got a file that is not there", f.name, at)
				}
				if err == nil && failed > 0 {
					break
				}
			}
			if failed < 3 {
				t.Errorf("%s, %s: only %d fetches failed", f.name, seg.name, failed)
			}
		}
	}
}
