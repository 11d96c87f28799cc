package fusefs

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"pitr/archive"
)

const (
	// partsHeld is how many verified parts of large segments stay in memory. Each
	// has 1 MiB, as pitr writes them.
	partsHeld = 24
	// partsAhead is how many are read ahead of a reader that reads in sequence.
	partsAhead = 3
	// mostParts is how many are read at the same time.
	mostParts = 6
)

// partKey is where a part of some content begins.
type partKey struct {
	sum    [sha256.Size]byte
	offset int64
}

// parts are the verified parts of large segments.
type parts struct {
	flights *flights[partKey, archive.Part]
	slots   chan struct{}

	mu    sync.Mutex // guards the rest
	held  map[partKey]*list.Element
	order *list.List // of heldPart, the one used last in front
}

type heldPart struct {
	key  partKey
	part archive.Part
}

func newParts(l *life) *parts {
	return &parts{
		flights: newFlights[partKey, archive.Part](l, nil),
		slots:   make(chan struct{}, mostParts),
		held:    map[partKey]*list.Element{}, order: list.New(),
	}
}

func (p *parts) get(key partKey) (archive.Part, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.held[key]
	if !ok {
		return archive.Part{}, false
	}
	p.order.MoveToFront(at)
	return at.Value.(heldPart).part, true
}

func (p *parts) put(key partKey, part archive.Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.held[key]; ok {
		return
	}
	p.held[key] = p.order.PushFront(heldPart{key, part})
	for p.order.Len() > partsHeld {
		last := p.order.Back()
		delete(p.held, last.Value.(heldPart).key)
		p.order.Remove(last)
	}
}
