package ship

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Drainer empties the queues of a Shipper in the background. While it runs,
// Shipper.Ship sends a file itself only if nothing waits before it, and queues
// it at once otherwise.
type Drainer struct {
	Shipper *Shipper
	// Workers is how many destinations are sent to at the same time, at least 1.
	Workers int
	// Wait is how long a destination that failed is left alone: twice as long
	// after each further failure in a row, up to 8 times. As often a queue is
	// looked at in which nothing waits, for another process may have put
	// something there. Less than a second is a second.
	Wait time.Duration
	// Budget is how long each file may take. It must be positive.
	Budget time.Duration
	// Changed is told when the state of a destination has changed: Outcome is
	// Delivered if its queue is empty, and Queued if not. It may be called for
	// several destinations at the same time.
	Changed func(Result)
}

// mostWaits is how many times Wait a destination is left alone in the end.
const mostWaits = 8

// Run works until ctx ends, and comes back then, also if a disk hangs. Only one
// Drainer of a Shipper may run.
func (d *Drainer) Run(ctx context.Context) {
	slots := make(chan struct{}, max(1, d.Workers))
	var all sync.WaitGroup
	for _, to := range d.Shipper.Destinations {
		desk := d.Shipper.desk(to.Name)
		desk.be(watching)
		defer desk.be(absent)
		all.Go(func() { d.tend(ctx, to, slots) })
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	<-ctx.Done()
	select {
	case <-done:
	case <-time.After(grace):
	}
}

// Waiting tells whether any queue holds a file, or may hold one: it looks, and
// what cannot be looked at counts. Run need not have been called. It takes as
// long as the disk of the queues does.
func (d *Drainer) Waiting(ctx context.Context) bool {
	for _, to := range d.Shipper.Destinations {
		waits, err := d.Shipper.anything(ctx, to.Name)
		if waits || err != nil {
			return true
		}
	}
	return false
}

// tend looks after one queue.
func (d *Drainer) tend(ctx context.Context, to Destination, slots chan struct{}) {
	desk := d.Shipper.desk(to.Name)
	wait := max(d.Wait, time.Second)
	for pause := wait; ctx.Err() == nil; {
		wake := desk.wake
		switch d.turn(ctx, to, slots) {
		case unfinished:
			pause = wait
			continue
		case emptied:
			pause = wait
		case failed:
			wake = nil
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-time.After(pause):
		}
		if wake == nil {
			pause = min(2*pause, mostWaits*wait)
		}
	}
}

// progress is what a turn came to.
type progress int

const (
	emptied    progress = iota // nothing waits
	unfinished                 // its time was over, and the destination takes more
	failed
)

// turn empties a queue for a while, so that another one gets its turn.
func (d *Drainer) turn(ctx context.Context, to Destination, slots chan struct{}) progress {
	if d.idle(ctx, to) {
		return emptied
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return failed
	}
	desk := d.Shipper.desk(to.Name)
	desk.be(working)
	defer desk.leave()
	l := d.lane(to)
	done := make(chan progress, 1)
	go func() { done <- d.guarded(ctx, l) }()
	late := time.NewTimer(d.longest())
	defer late.Stop()
	select {
	case p := <-done:
		<-slots
		d.tell(l.result)
		return p
	case <-late.C:
		<-slots
	}
	// It hangs in the system, where nothing ends it, and keeps the others from
	// nothing any more.
	d.tell(d.overdue(ctx, to, l.began))
	<-done
	return failed
}

// idle tells whether there is nothing to do: nothing waits, and the note says
// nothing else.
func (d *Drainer) idle(ctx context.Context, to Destination) bool {
	waits, err := d.Shipper.anything(ctx, to.Name)
	return !waits && err == nil && d.lane(to).readNote(ctx).State != Behind
}

func (d *Drainer) lane(to Destination) *lane {
	l := (&shipment{Shipper: d.Shipper}).lane(to)
	l.budget = d.Budget
	return l
}

// longest is more than a turn takes whose destination and disks answer or fail.
func (d *Drainer) longest() time.Duration {
	return lockPatience + d.Shipper.Patience + 2*d.Budget + grace
}

// overdue is what is known of a destination whose turn does not end.
func (d *Drainer) overdue(ctx context.Context, to Destination, began time.Time) Result {
	l := d.lane(to)
	l.began = began
	l.result.Outcome, l.result.Reason = Queued, errNoAnswer
	l.conclude(ctx, l.readNote(ctx))
	return l.result
}

func (d *Drainer) tell(r Result) {
	if r.After != r.Before && d.Changed != nil {
		d.Changed(r)
	}
}

// guarded is one turn. A panic in it must not take the others along.
func (d *Drainer) guarded(ctx context.Context, l *lane) (p progress) {
	defer func() {
		if v := recover(); v != nil {
			l.log().Error("a queue could not be emptied", "destination", l.Destination.Name, "error", panicked(v))
			p = failed
		}
	}()
	return l.turn(ctx)
}

// errTurnOver says that others have waited long enough.
var errTurnOver = errors.New("its turn is over")

// turn sends what waits, for as long as one file may take, and then settles the
// state.
func (l *lane) turn(ctx context.Context) progress {
	release, err := l.lock(ctx)
	if err != nil {
		l.log().Debug("the queue is left alone", "destination", l.Destination.Name, "reason", err)
		return failed
	}
	defer release()
	r := &l.result
	before := l.readNote(ctx).State
	r.Reason = l.empty(ctx)
	switch {
	case r.Reason == nil && r.Sent == 0 && before != Behind:
		return emptied // by somebody else; it says nothing of the destination
	case r.Reason == nil:
		r.Outcome = Delivered
	default:
		r.Outcome = Queued
	}
	// The state as it is now: a call may have written it down meanwhile.
	l.conclude(ctx, l.readNote(ctx))
	l.log().Debug("queue worked on", "destination", l.Destination.Name, "sent", r.Sent, "left", r.Reason)
	switch {
	case r.Reason == nil:
		return emptied
	case r.Sent > 0:
		return unfinished
	}
	return failed
}

// empty sends everything.
func (l *lane) empty(ctx context.Context) error {
	q, err := l.waiting(ctx)
	if err != nil {
		return fmt.Errorf("read its queue: %w", err)
	}
	if q.files == 0 {
		return nil
	}
	l.result.File = q.next[0]
	early, cancel := context.WithTimeoutCause(ctx, l.Patience, fmt.Errorf("ssh_timeout of %s is over", l.Patience))
	defer cancel()
	if _, err := l.Archive.Identity(early); err != nil {
		return uninitialised(err)
	}
	turn, cancel := context.WithTimeoutCause(ctx, l.budget, errTurnOver)
	defer cancel()
	return l.drain(ctx, turn)
}
