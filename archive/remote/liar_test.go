package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
)

// Types of packets, from the protocol's version 3.
const (
	fxpVersion, fxpOpen, fxpClose, fxpRead, fxpWrite, fxpLstat, fxpFstat = 2, 3, 4, 5, 6, 7, 8
	fxpOpendir, fxpReaddir, fxpStat                                      = 11, 12, 17
	fxpStatus, fxpHandle, fxpData, fxpName, fxpAttrs                     = 101, 102, 103, 104, 105
)

// packet builds a packet of a type.
func packet(kind byte, fields ...any) []byte {
	b := []byte{0, 0, 0, 0, kind}
	for _, f := range fields {
		switch v := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
		case []byte:
			b = append(b, v...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func status(id uint32, code int) []byte { return packet(fxpStatus, id, code, "said so", "") }

// readPacket reads one packet, without its length.
func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// liar is a server that answers as it is told. nil is no answer.
func liar(answer func(kind byte, id uint32) []byte) subsystem {
	return func(ch ssh.Channel) error {
		if _, err := readPacket(ch); err != nil {
			return err
		}
		hello := packet(fxpVersion, 3, "fsync@openssh.com", "1", "hardlink@openssh.com", "1", "limits@openssh.com", "1")
		if _, err := ch.Write(hello); err != nil {
			return err
		}
		for {
			p, err := readPacket(ch)
			if err != nil {
				return err
			}
			if _, err := ch.Write(answer(p[0], binary.BigEndian.Uint32(p[1:5]))); err != nil {
				return err
			}
		}
	}
}

// listing is a server whose every directory holds what names says, without end.
func listing(names func(id uint32) []byte) subsystem {
	return liar(func(kind byte, id uint32) []byte {
		switch kind {
		case fxpOpendir:
			return packet(fxpHandle, id, "h")
		case fxpReaddir:
			return names(id)
		}
		return status(id, 0)
	})
}

// attrs are those of a regular file.
func attrs(size uint64, mode uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1|4) // size, permissions
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, size), mode)
}

const regular, directory = 0o100600, 0o040700

// everything tries all that an archive asks of a server.
func everything(ctx context.Context, f *FS) map[string]error {
	errs := map[string]error{}
	_, errs["stat"] = f.Stat(ctx, "a")
	_, errs["list"] = f.ReadDir(ctx, ".")
	errs["mkdir"] = f.Mkdir(ctx, "d")
	errs["sync"] = f.Sync(ctx, "a")
	o, err := f.Open(ctx, "a")
	if err == nil {
		b := make([]byte, 100)
		_, err = o.ReadAt(b, 0)
		_ = o.Close()
	}
	errs["open"] = err
	w, err := f.Create(ctx, "b")
	if err == nil {
		_, err = w.Write(make([]byte, 1<<20))
		err = errors.Join(err, w.Sync(), w.Close())
	}
	errs["create"] = err
	errs["publish"] = f.Publish(ctx, "b", "c")
	errs["remove"] = f.Remove(ctx, "b")
	return errs
}

// Whatever a server answers, nothing panics, hangs or counts as absent or as
// stored.
func TestServersThatLie(t *testing.T) {
	for name, answer := range map[string]func(kind byte, id uint32) []byte{
		"all is well": func(_ byte, id uint32) []byte { return status(id, 0) },
		"end of file": func(_ byte, id uint32) []byte { return status(id, 1) },
		"other id":    func(_ byte, id uint32) []byte { return status(id+1000, 0) },
		"no status":   func(_ byte, id uint32) []byte { return packet(fxpStatus, id) },
		"only an id":  func(_ byte, id uint32) []byte { return packet(fxpAttrs, id) },
		"nothing":     func(byte, uint32) []byte { return packet(0) },
		"empty":       func(byte, uint32) []byte { return []byte{0, 0, 0, 0} },
		"giant":       func(byte, uint32) []byte { return []byte{0xff, 0xff, 0xff, 0xff, fxpData} },
		"many names":  func(_ byte, id uint32) []byte { return packet(fxpName, id, 1<<30) },
		"data":        func(_ byte, id uint32) []byte { return packet(fxpData, id, 1<<30, "short") },
		"handle":      func(_ byte, id uint32) []byte { return packet(fxpHandle, id, 1<<30) },
		"attributes":  func(_ byte, id uint32) []byte { return packet(fxpAttrs, id, 1<<31, 1<<30) },
		"more data than asked for": func(kind byte, id uint32) []byte {
			switch kind {
			case fxpOpen:
				return packet(fxpHandle, id, "h")
			case fxpFstat:
				return packet(fxpAttrs, id, attrs(10, regular))
			case fxpRead:
				return packet(fxpData, id, strings.Repeat("x", 200_000))
			}
			return status(id, 4)
		},
		"a size below nothing": func(kind byte, id uint32) []byte {
			switch kind {
			case fxpOpen:
				return packet(fxpHandle, id, "h")
			case fxpFstat:
				return packet(fxpAttrs, id, attrs(1<<63, regular))
			}
			return status(id, 4)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, liar(answer))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			for what, err := range everything(ctx, s.newFS()) {
				// "Done" to a request that has no other answer is what it is, and
				// an empty listing is one; the read-back finds out.
				believed := name == "all is well" && slices.Contains([]string{"publish", "remove", "list"}, what)
				if err == nil && !believed || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
					t.Errorf("%s: got %v, want an error that says nothing about the name", what, err)
				}
			}
		})
	}
}

func TestGarbageIsNoAnswer(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex // guards random: there may be two connections
		s := newServer(t, liar(func(_ byte, id uint32) []byte {
			mu.Lock()
			defer mu.Unlock()
			b := make([]byte, random.IntN(60))
			for i := range b {
				b[i] = byte(random.Uint32() >> (8 * random.IntN(4)))
			}
			return packet(byte(101+random.IntN(6)), id, b)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		everything(ctx, s.newFS(quick))
		cancel()
	}
}

// A name leads nowhere else: what the library does not cut off is an error.
func TestNamesOfAListing(t *testing.T) {
	for _, bad := range []string{"../../etc/passwd", "a/b", "/etc", "a\x00b", ""} {
		told := false
		s := newServer(t, listing(func(id uint32) []byte {
			if told {
				return status(id, 1)
			}
			told = true
			return packet(fxpName, id, 1, bad, "long", attrs(1, regular))
		}))
		entries, err := s.newFS().ReadDir(t.Context(), ".")
		for _, e := range entries {
			if strings.ContainsAny(e.Name(), "/\x00") {
				t.Errorf("%q in a listing was taken for %q", bad, e.Name())
			}
		}
		if err != nil && !errors.Is(err, errLiar) {
			t.Errorf("%q: %v", bad, err)
		}
		_, err = New(s.options()).entries([]fs.FileInfo{named{bad}})
		if !errors.Is(err, errLiar) {
			t.Errorf("%q: got %v, want %v", bad, err, errLiar)
		}
	}
}

type named struct{ name string }

func (n named) Name() string     { return n.name }
func (named) Size() int64        { return 1 }
func (named) Mode() fs.FileMode  { return 0o600 }
func (named) ModTime() time.Time { return time.Time{} }
func (named) IsDir() bool        { return false }
func (named) Sys() any           { return nil }

func TestListingWithoutEnd(t *testing.T) {
	var names []any
	for i := range 1000 {
		names = append(names, fmt.Sprint(i), "", binary.BigEndian.AppendUint32(nil, 0))
	}
	s := newServer(t, listing(func(id uint32) []byte { return packet(fxpName, append([]any{id, 1000}, names...)...) }))
	f := s.newFS()
	var err error
	peak := peakHeap(func() { _, err = f.ReadDir(t.Context(), ".") })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error", err)
	}
	if peak > 400<<20 {
		t.Errorf("it took %d MB", peak>>20)
	}
}

// peakHeap is by how many bytes the heap grew at most while something ran.
func peakHeap(run func()) uint64 {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before := heap()
	done, most := make(chan nothing), make(chan uint64)
	go func() {
		peak := before
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				most <- max(peak, heap())
				return
			case <-tick.C:
				peak = max(peak, heap())
			}
		}
	}()
	run()
	close(done)
	return <-most - before
}

// The counter follows the packets however they are cut.
func TestNamesAreCountedAcrossReads(t *testing.T) {
	var stream bytes.Buffer
	for i := range 50 {
		stream.Write(packet(fxpName, i, 7, strings.Repeat("x", i)))
		stream.Write(status(uint32(i), 0))
		stream.Write(packet(fxpHandle, i, "h"))
		stream.Write(packet(fxpData))
		stream.Write(packet(fxpVersion, i))
	}
	for _, size := range []int{1, 2, 3, 5, 13, 64, 10_000} {
		c := &counter{r: bytes.NewReader(stream.Bytes())}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if got := c.names.Load(); got != 350 {
			t.Errorf("by %d bytes: got %d names, want 350", size, got)
		}
	}
}

// between is a server that sees each request before OpenSSH's does. What it
// answers itself, that one does not see.
func between(see func(kind byte, id uint32) []byte) subsystem {
	return betweenPackets(func(p []byte) []byte { return see(p[0], binary.BigEndian.Uint32(p[1:5])) })
}

// betweenPackets is between for who wants to see, and change, all of a request.
func betweenPackets(see func(p []byte) []byte) subsystem {
	return func(ch ssh.Channel) error {
		there := newPipes()
		done := make(chan error, 1)
		go func() { done <- there.run(ch) }()
		defer there.toServer.Close()
		for {
			p, err := readPacket(ch)
			if err != nil {
				break
			}
			if answer := see(p); answer != nil {
				there.write(ch, answer)
				continue
			}
			whole := append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...)
			if _, err := there.toServer.Write(whole); err != nil {
				break
			}
		}
		there.toServer.Close()
		return <-done
	}
}

// A server that takes what it does not store is found out: by the size, and where
// that is right, too, by reading back.
func TestServerThatStoresNothing(t *testing.T) {
	s := newServer(t, between(func(kind byte, id uint32) []byte {
		if kind == fxpWrite {
			return status(id, 0)
		}
		return nil
	}))
	newArchive(t, s.root(), archive.Tree, archive.Zstd)
	seg := someSegments(1)[0]
	for _, verify := range []bool{false, true} {
		a := archive.New("test", files.NewStore(s.newFS(), local.Writer()), archive.Options{VerifyPuts: verify})
		if _, err := a.Push(t.Context(), seg.name, bytes.NewReader(seg.content)); err == nil || errors.Is(err, archive.ErrConflict) != verify {
			t.Errorf("read back %v: got %v, want an error", verify, err)
		}
	}
}

// One that also lies about sizes is found out by reading back alone.
func TestServerThatLiesAboutWhatItStored(t *testing.T) {
	var written atomic.Int64
	s := newServer(t, betweenPackets(func(p []byte) []byte {
		if p[0] != fxpWrite {
			return nil
		}
		handle := binary.BigEndian.Uint32(p[5:9])
		data := p[9+handle+8+4:]
		written.Add(int64(len(data)))
		for i := range data {
			data[i] ^= 1 // something else, of the right size
		}
		return nil
	}))
	newArchive(t, s.root(), archive.Tree, archive.Zstd)
	for i, verify := range []bool{false, true} {
		seg := someSegments(2)[i]
		a := archive.New("test", files.NewStore(s.newFS(), local.Writer()), archive.Options{VerifyPuts: verify})
		_, err := a.Push(t.Context(), seg.name, bytes.NewReader(seg.content))
		if verify != errors.Is(err, archive.ErrDamaged) {
			t.Errorf("read back %v: got %v", verify, err)
		}
	}
	if written.Load() == 0 {
		t.Error("the test is wrong: nothing was written")
	}
}
