package ship

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pitr/archive"
)

// track is the way of a convoy's files into one archive.
type track struct {
	*convoy
	way      *way
	i        int
	items    chan *item
	settling chan arrival
}

// arrival is a file that was published.
type arrival struct {
	it     *item
	parcel *archive.Parcel
}

// recall answers for a file that the archive has, from memory if that is fresh.
func (t *track) recall(ctx context.Context, it *item, s settled) {
	if time.Since(s.at) >= fresh {
		if err := t.way.Intake.Confirm(ctx, s.done); err != nil {
			t.Log.Warn("the archive does not have any more what was stored there", "archive", t.way.Archive.Name(), "file", it.name, "reason", err)
			t.way.forget()
			it.steps[t.i] <- t.stage(ctx, it, false)
			return
		}
	}
	it.steps[t.i] <- step{has: &s.done}
}

func (t *track) stage(ctx context.Context, it *item, compresses bool) step {
	enc := it.enc
	if !compresses {
		enc = nil
	}
	began := t.way.enter()
	parcel, err := t.way.Intake.Stage(ctx, it.name, it.file, enc)
	t.way.leave(began.Add(enc.HeldUp(t.way.Archive)), err)
	return step{parcel: parcel, err: err}
}

// errBudget says that a step of a file took longer than Budget.
var errBudget = errors.New("no success in time")

func (l *convoy) overBudget() error {
	return fmt.Errorf("%w: push_timeout of %s is over", errBudget, l.Budget)
}

// within bounds a step.
func (l *convoy) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, l.Budget, l.overBudget())
}

// staged waits for a file that has come to its turn. Its time begins now: what
// lies behind others on a slow line has it later. While another archive holds the
// file up it stands still: that one's own time ends that.
func (t *track) staged(it *item) step {
	cancel := it.cancel[t.i]
	if cancel == nil {
		return <-it.steps[t.i]
	}
	heldUp := func() time.Duration { return it.enc.HeldUp(t.way.Archive) }
	began, before := time.Now(), heldUp()
	over := time.NewTimer(t.Budget)
	defer over.Stop()
	for {
		select {
		case s := <-it.steps[t.i]:
			return s
		case <-over.C:
		}
		left := t.Budget - time.Since(began) + heldUp() - before
		if left <= 0 {
			cancel(t.overBudget())
			return <-it.steps[t.i]
		}
		over.Reset(max(left, time.Second)) // not again and again for nothing
	}
}

// drop gives a staged file up, and waits for nobody: its name is nothing that
// counts, and what stays is swept later.
func (t *track) drop(p *archive.Parcel) {
	go func() {
		ctx, cancel := t.within(context.WithoutCancel(t.ctx))
		defer cancel()
		p.Drop(ctx)
	}()
}

// publish gives the files their names, one after the other, until one fails.
func (t *track) publish() {
	defer close(t.settling)
	for it := range t.items {
		s := t.staged(it)
		switch {
		case s.has != nil:
			it.answer(t.i, *s.has, nil)
			continue
		case s.err == nil && (t.ctx.Err() != nil || t.way.stopped(t.convoy)):
			t.drop(s.parcel)
			s.err = errBehind
		case s.err == nil:
			s.err = t.name(s.parcel)
		}
		if s.err != nil {
			t.lose(it, s.err)
			continue
		}
		t.settling <- arrival{it, s.parcel}
	}
}

// name gives a file its name: also when the convoy is stopped meanwhile.
func (t *track) name(p *archive.Parcel) error {
	ctx, cancel := t.within(context.WithoutCancel(t.ctx))
	defer cancel()
	began := t.way.now()
	err := p.Publish(ctx)
	t.way.took(began, err)
	return err
}

// lose answers for a file that did not arrive, and stops what comes behind it.
func (t *track) lose(it *item, err error) {
	if t.ctx.Err() != nil && errors.Is(err, errBehind) || errors.Is(err, context.Canceled) && t.ctx.Err() != nil {
		err = errBehind
	}
	t.way.stop(t.convoy, it.name, err)
	if !errors.Is(err, errBehind) {
		t.fail()
	}
	it.answer(t.i, archive.Pushed{}, err)
}

// settle makes what was published durable, as much of it as there is at a time. It
// answers for nothing behind a file that failed.
func (t *track) settle() {
	broken := false
	for a := range t.settling {
		if broken {
			t.lose(a.it, errBehind)
			continue
		}
		group := t.gather(a)
		parcels := make([]*archive.Parcel, len(group))
		for i, a := range group {
			parcels[i] = a.parcel
		}
		ctx, cancel := t.within(context.WithoutCancel(t.ctx))
		began := t.way.now()
		errs := t.way.Intake.Settle(ctx, parcels)
		cancel()
		t.way.took(began, errors.Join(errs...))
		for i, a := range group {
			if broken {
				errs[i] = errBehind
			}
			if errs[i] != nil {
				broken = true
				t.lose(a.it, errs[i])
				continue
			}
			t.way.remember(a.it, a.parcel.Pushed())
			a.it.answer(t.i, a.parcel.Pushed(), nil)
		}
	}
}

// gather adds what is there to a first one.
func (t *track) gather(first arrival) []arrival {
	group := []arrival{first}
	for len(group) <= width {
		select {
		case a, more := <-t.settling:
			if !more {
				return group
			}
			group = append(group, a)
		default:
			return group
		}
	}
	return group
}
