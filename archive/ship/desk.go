package ship

import "sync"

// desk is what this process knows of a queue: how much waits there, and whether
// a Drainer looks after it. Other processes may change the queue too; whoever
// looks at it corrects the count.
type desk struct {
	wake chan struct{} // holds something if the queue is to be looked at

	mu      sync.Mutex // guards the rest
	sum     int64      // bytes that wait
	known   bool       // sum is
	version int        // of sum, which changes while the queue is being looked at
	drainer presence
}

// presence is what a Drainer of this process does about a queue.
type presence int

const (
	absent   presence = iota
	watching          // it sends what comes to wait there
	working           // it is about to, or does it
)

// desk is the one for a queue.
func (s *Shipper) desk(queue string) *desk {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.desks == nil {
		s.desks = map[string]*desk{}
	}
	if s.desks[queue] == nil {
		s.desks[queue] = &desk{wake: make(chan struct{}, 1)}
	}
	return s.desks[queue]
}

// poke has the queue looked at.
func (d *desk) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *desk) bytes() (sum int64, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sum, d.known
}

// add counts what came, or went.
func (d *desk) add(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sum += bytes
	d.version++
}

// changes is the version of the count before a look at the queue.
func (d *desk) changes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.version
}

// counted is what a look at the queue came to. If something came or went
// meanwhile nobody knows whether it was seen, and the look does not count.
func (d *desk) counted(bytes int64, before int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.version == before {
		d.sum, d.known = bytes, true
	}
}

// presence tells what a Drainer does here.
func (d *desk) presence() presence {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drainer
}

// leave ends work, unless the Drainer is gone altogether.
func (d *desk) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.drainer == working {
		d.drainer = watching
	}
}

func (d *desk) be(p presence) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drainer = p
}
