package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"pitr/archive/wal"
)

// mostAhead is how many encoded bytes wait for their connection.
const mostAhead = 2 << 20

// ahead is a segment that is encoded before it is known whether the archive
// wants it so: making a connection is mostly waiting, and a segment is nearly
// always compressed in the end. A nil *ahead is none.
type ahead struct {
	cancel context.CancelFunc
	walk   wal.Walk // of the whole segment, once the bytes have come to a good end

	mu    sync.Mutex // guards what follows
	moved sync.Cond  // something of it has changed
	parts [][]byte
	held  int // bytes in parts
	ended bool
	taken bool
	err   error // how; nil is a good end
}

// encodeAhead begins to encode a segment for a far archive.
func (a *Archive) encodeAhead(ctx context.Context, name wal.Name, src Source) *ahead {
	if !a.isFar() || a.opts.Layout == Flat || !hasRecords(name) || wal.SegmentSize(src.Size()).Valid() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	early := &ahead{cancel: cancel}
	early.moved.L = &early.mu
	walker := newWalkerFor(name, wal.SegmentSize(src.Size()))
	v := view{Archive: a, id: Identity{Codec: Zstd}}
	go func() {
		early.end(guarded(func() error {
			err := v.encode(ctx, early, io.TeeReader(whole(src), walker))
			early.walk = walker.finish()
			return err
		}))
	}()
	return early
}

// fits tells whether these are the bytes that the archive wants.
func (e *ahead) fits(id Identity) bool { return e != nil && id.Codec == Zstd }

// take tells whether the bytes can still be had: they come once.
func (e *ahead) take() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	had := e.taken
	e.taken = true
	return !had
}

// drop ends the encoding, and waits until nothing reads the source any more.
func (e *ahead) drop() {
	if e == nil {
		return
	}
	e.cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.ended {
		e.parts, e.held = nil, 0 // makes room, so that the encoder comes to see its end
		e.moved.Broadcast()
		e.moved.Wait()
	}
}

func (e *ahead) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended, e.err = true, err
	e.moved.Broadcast()
}

// Write keeps bytes until there are too many.
func (e *ahead) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.held > mostAhead {
		e.moved.Wait()
	}
	e.parts, e.held = append(e.parts, bytes.Clone(p)), e.held+len(p)
	e.moved.Broadcast()
	return len(p), nil
}

// writeTo writes everything to w, as it comes.
func (e *ahead) writeTo(w io.Writer) error {
	for {
		part, err := e.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			_, err = w.Write(part)
		}
		if err != nil {
			return err
		}
	}
}

// next is what comes next; io.EOF at a good end.
func (e *ahead) next() ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.parts) == 0 && !e.ended {
		e.moved.Wait()
	}
	switch {
	case len(e.parts) > 0:
		part := e.parts[0]
		e.parts, e.held = e.parts[1:], e.held-len(part)
		e.moved.Broadcast()
		return part, nil
	case e.err != nil:
		return nil, e.err
	}
	return nil, io.EOF
}
