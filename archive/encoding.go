package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"pitr/archive/codec"
	"pitr/archive/wal"
)

// mostAhead is how many encoded bytes wait for whoever is to store them.
const mostAhead = 2 << 20

// Encoding is a file that is being encoded, once, for all the archives that take
// it in this form. It begins before it is known whether they do: making a
// connection is mostly waiting, and a segment is nearly always compressed in the
// end. A nil *Encoding is none.
type Encoding struct {
	cancel context.CancelFunc
	walk   wal.Walk // of the whole segment, once the bytes have come to a good end
	shares []*share // of all archives, also of those that have left

	mu    sync.Mutex // guards what follows
	moved sync.Cond  // something of it has changed
	parts []part     // those that somebody has not had yet
	first int        // the number of parts[0]
	held  int        // bytes in parts
	ended bool
	err   error // how; nil is a good end
	shelf *shelf
	loose bool     // somebody who was left behind may still be reading a part
	open  []*share // those that have not left
}

// shelf keeps parts that nobody uses, from one file to the next.
type shelf struct {
	mu    sync.Mutex // guards parts
	parts []part
}

// mostShelved bounds it: about what the files that are encoded at a time hold.
const mostShelved = 8

func (s *shelf) take() part {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.parts)
	if n == 0 {
		return new(bytes.Buffer)
	}
	p := s.parts[n-1]
	s.parts = s.parts[:n-1]
	p.Reset()
	return p
}

func (s *shelf) put(p part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parts) < mostShelved {
		s.parts = append(s.parts, p)
	}
}

// part is one piece of the encoded file.
type part = *bytes.Buffer

// share is what one archive gets of an encoding: all of it, once. A nil *share is
// none.
type share struct {
	of      *Encoding
	archive *Archive
	next    int  // the number of the part that comes next
	claimed bool // some archive has it
	used    bool // and has begun to write it
	writes  bool // is writing a part at this moment

	heldUp time.Duration // it has waited for other shares
	since  time.Time     // when it began to wait for them; zero: it does not
}

// Encode begins to encode a file for several archives of the set. It is nil for
// what is not compressed ahead: small files, and segments of impossible size.
// Whoever begins one calls Stop.
func (s Set) Encode(ctx context.Context, name wal.Name, src Source) *Encoding {
	if len(s) == 0 || !hasRecords(name) || wal.SegmentSize(src.Size()).Valid() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	e := &Encoding{cancel: cancel, shelf: &s[0].shelf}
	e.moved.L = &e.mu
	for _, a := range s {
		e.shares = append(e.shares, &share{of: e, archive: a})
	}
	e.open = slices.Clone(e.shares)
	go func() { e.end(guarded(func() error { return e.run(ctx, s[0], name, src) })) }()
	return e
}

// run encodes the file. The level is the same for all archives of a set.
func (e *Encoding) run(ctx context.Context, a *Archive, name wal.Name, src Source) error {
	encoder, err := a.compressor()
	if err != nil {
		return err
	}
	walker := newWalkerFor(name, wal.SegmentSize(src.Size()))
	_, err = encoder.Encode(ctx, e, io.TeeReader(whole(src), walker))
	e.walk = walker.finish()
	return err
}

// compressor is the archive's one encoder, made when it is first needed.
func (a *Archive) compressor() (*codec.Encoder, error) {
	a.encoder.mu.Lock()
	defer a.encoder.mu.Unlock()
	if a.encoder.made != nil {
		return a.encoder.made, nil
	}
	made, err := codec.NewEncoder(a.opts.CompressLevel)
	a.encoder.made = made
	return made, err
}

// encodeAhead begins to encode a segment for a far archive.
func (a *Archive) encodeAhead(ctx context.Context, name wal.Name, src Source) *Encoding {
	if !a.isFar() || a.opts.Layout == Flat {
		return nil
	}
	return Set{a}.Encode(ctx, name, src)
}

// share returns the archive's, unless it is claimed.
func (e *Encoding) share(a *Archive) *share {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.open {
		if s.archive == a && !s.claimed {
			s.claimed = true
			return s
		}
	}
	return nil
}

// HeldUp is how long an archive has waited, having written everything there was,
// because another one had not taken it yet: that is not its own time.
func (e *Encoding) HeldUp(a *Archive) time.Duration {
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var held time.Duration
	for _, s := range e.shares {
		if s.archive != a {
			continue
		}
		held += s.heldUp
		if !s.since.IsZero() {
			held += time.Since(s.since)
		}
	}
	return held
}

// suits gives the share up if these are not the bytes that the archive wants.
func (s *share) suits(id Identity) *share {
	if s != nil && id.Codec != Zstd {
		s.leave()
		return nil
	}
	return s
}

// take returns the share at its first call: its bytes come once.
func (s *share) take() *share {
	if s == nil || s.used {
		return nil
	}
	s.used = true
	return s
}

// leave gives a share up: nothing waits for it any more.
func (s *share) leave() {
	if s == nil {
		return
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.open = slices.DeleteFunc(s.of.open, func(o *share) bool { return o == s })
	s.of.loose = s.of.loose || s.writes
	if len(s.of.open) == 0 {
		s.of.cancel()
	}
	s.of.trim()
}

// Stop ends the encoding, and waits until nothing reads the source any more.
func (e *Encoding) Stop() {
	if e == nil {
		return
	}
	e.cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.open {
		e.loose = e.loose || s.writes
	}
	e.open = nil
	e.trim()
	for !e.ended {
		e.moved.Wait()
	}
}

func (e *Encoding) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended, e.err = true, err
	e.moved.Broadcast()
}

// trim drops the parts that everybody has had.
func (e *Encoding) trim() {
	least := e.first + len(e.parts)
	for _, s := range e.open {
		least = min(least, s.next)
	}
	for ; e.first < least; e.first++ {
		e.held -= e.parts[0].Len()
		if !e.loose {
			e.shelf.put(e.parts[0])
		}
		e.parts = e.parts[1:]
	}
	e.moved.Broadcast()
}

// Write keeps bytes until there are too many. With nobody left who wants them it
// is an error.
func (e *Encoding) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.held > mostAhead && len(e.open) > 0 {
		e.moved.Wait()
	}
	if len(e.open) == 0 {
		return 0, context.Canceled
	}
	kept := e.shelf.take()
	kept.Write(p)
	e.parts, e.held = append(e.parts, kept), e.held+len(p)
	e.moved.Broadcast()
	return len(p), nil
}

// writeTo writes everything to w, as it comes.
func (s *share) writeTo(w io.Writer) error {
	for {
		part, err := s.part()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			_, err = w.Write(part)
		}
		if err != nil {
			return err
		}
		s.had()
	}
}

// part is what comes next, and may be used until had is called; io.EOF at a good
// end.
func (s *share) part() ([]byte, error) {
	e := s.of
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		at := s.next - e.first
		switch {
		case !slices.Contains(e.open, s):
			return nil, context.Canceled
		case at < len(e.parts):
			s.writes = true
			return e.parts[at].Bytes(), nil
		case e.ended && e.err != nil:
			return nil, e.err
		case e.ended:
			return nil, io.EOF
		}
		s.wait()
	}
}

// wait waits until something has changed. With too many bytes kept, nothing comes
// before another share has had some. The encoding's mu is held.
func (s *share) wait() {
	if s.of.held > mostAhead {
		s.since = time.Now()
	}
	s.of.moved.Wait()
	if !s.since.IsZero() {
		s.heldUp, s.since = s.heldUp+time.Since(s.since), time.Time{}
	}
}

// had says that a part has been written.
func (s *share) had() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.next++
	s.writes = false
	s.of.trim()
}
