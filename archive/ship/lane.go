package ship

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// lane is the way to one destination in one call.
type lane struct {
	*shipment
	Destination
	desk   *desk
	began  time.Time
	budget time.Duration // for each queued file, besides that of the call; 0 is none
	result Result
}

func (s *shipment) lane(d Destination) *lane {
	return &lane{shipment: s, Destination: d, desk: s.desk(d.Name), began: time.Now(), result: Result{Destination: d.Name, File: s.name}}
}

// background tells that this is a Drainer's lane, which has no file of its own.
func (l *lane) background() bool { return l.src == nil }

// at is the place of a file in the lane's queue. Both halves of a lane have a
// Name; the queue's directory is the destination's.
func (l *lane) at(file string) string { return path.Join(l.Destination.Name, file) }

// errNotTried marks reasons that say nothing of the destination.
var errNotTried = errors.New("not tried")

// run settles the file at this destination: delivered, queued or lost.
func (l *lane) run(ctx context.Context) {
	r := &l.result
	if r.Err = l.folder(ctx); r.Err != nil {
		l.conclude(ctx, note{})
		return
	}
	if r.Err = l.refused; r.Err != nil {
		l.conclude(ctx, l.readNote(ctx))
		return
	}
	net, cancel := network(ctx)
	defer cancel()
	early, cancel := l.patient(net)
	defer cancel()
	release, err := l.enter(early)
	if err == nil {
		defer release()
	}
	was := l.readNote(ctx)
	if err == nil {
		err = l.deliver(net, early, was)
	}
	r.Reason = err
	if r.Reason == nil {
		r.Outcome = Delivered
	} else if r.Err = l.keep(ctx); r.Err == nil {
		r.Outcome = Queued
		l.desk.poke()
	}
	l.conclude(ctx, was)
}

// lockPatience is how long a call waits for the lock of a queue. Another call
// may be done at once; one that empties a queue takes its time.
const lockPatience = time.Second

// enter takes the lock of the queue. While a Drainer of this process is at work
// there it does not wait for it.
func (l *lane) enter(ctx context.Context) (release func() error, err error) {
	if l.desk.presence() == working {
		return nil, fmt.Errorf("%w: its queue is being emptied", errNotTried)
	}
	return l.lock(ctx)
}

func (l *lane) lock(ctx context.Context) (release func() error, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("the lock was not free within %s", lockPatience))
	defer cancel()
	release, err = l.Disk.Lock(ctx, l.at(lockFile))
	switch {
	case err == nil:
		return release, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: another process is shipping there: %w", errNotTried, err)
	}
	return nil, fmt.Errorf("lock its queue: %w", err)
}

// network is the part of a call's time that may go into a destination. The rest
// is for its queue.
func network(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	share := time.Until(deadline) * 3 / 4
	return context.WithTimeoutCause(ctx, share, fmt.Errorf("no success within %s", share.Round(time.Millisecond)))
}

// deliver sends what waits, and then the call's own file. early ends when
// nothing more may be begun, ctx when nothing more may be done.
func (l *lane) deliver(ctx, early context.Context, was note) error {
	if err := l.rests(was); err != nil {
		return err
	}
	if err := l.leaves(ctx); err != nil {
		return err
	}
	if _, err := l.Archive.Identity(early); err != nil {
		return uninitialised(err)
	}
	if err := l.drain(ctx, early); err != nil {
		return err
	}
	if early.Err() != nil {
		return context.Cause(early)
	}
	done, err := l.Archive.Push(ctx, l.name, l.src)
	l.result.Pushed = done
	return err
}

// leaves is an error where a Drainer does the work: a call does not wait for what
// is queued before its file.
func (l *lane) leaves(ctx context.Context) error {
	if l.desk.presence() == absent {
		return nil
	}
	q, err := l.waiting(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read its queue: %w", err)
	case q.files > 0:
		return fmt.Errorf("%w: %d files wait before it", errNotTried, q.files)
	}
	return nil
}

// silent tells whether the destination has cost time before it failed. One that
// says no at once can be asked at every call.
func (l *lane) silent() bool { return time.Since(l.began) >= l.Patience/2 }

// rests leaves a destination in peace that was silent a moment ago: an attempt
// at each file would have PostgreSQL wait for a dead host at every segment. One
// whose queue does not take everything is tried all the same.
func (l *lane) rests(was note) error {
	age := l.now().Sub(was.Tried)
	if was.State != Behind || age < 0 || age >= l.Rest {
		return nil
	}
	return fmt.Errorf("%w: it failed %s ago: %s", errNotTried, age.Round(time.Second), was.Reason)
}

// uninitialised says what to do about a destination that holds no archive.
func uninitialised(err error) error {
	if errors.Is(err, archive.ErrNoIdentity) {
		return archive.WithHint(err, "cmd_archiver -I (slaves) or pitr init (archives) makes the archive there; if it was made, is its file system mounted?")
	}
	return err
}

// drain empties the queue. Only when nothing waits any more it returns nil: a
// file that overtakes another one leaves a hole if that one never follows.
func (l *lane) drain(ctx, early context.Context) (err error) {
	defer func() {
		if l.result.Sent > 0 && l.Disk.Sync(context.WithoutCancel(ctx), l.Destination.Name) != nil {
			l.log().Warn("what was delivered may come back into the queue after a loss of power", "destination", l.Destination.Name)
		}
	}()
	for {
		q, err := l.waiting(ctx)
		if err != nil {
			return fmt.Errorf("read its queue: %w", err)
		}
		if q.files == 0 {
			return nil
		}
		for i, name := range q.next {
			err := context.Cause(early)
			if err == nil {
				err = l.send(ctx, name)
			}
			if err != nil {
				return l.held(name, q.files-i, err)
			}
			l.result.Sent++
			if l.background() {
				l.result.File = name
			}
		}
	}
}

// held says what the queue holds back, and why.
func (l *lane) held(first wal.Name, files int, why error) error {
	if !l.background() {
		return fmt.Errorf("%d files wait before it: %w", files, why)
	}
	l.result.File = first
	return fmt.Errorf("%d files wait: %w", files, why)
}

// send delivers one queued file, and then removes it from the queue.
func (l *lane) send(ctx context.Context, name wal.Name) error {
	file := l.at(name.String())
	f, err := l.Disk.Open(ctx, file)
	if err != nil {
		return fmt.Errorf("queued %s: %w", file, err)
	}
	defer f.Close()
	ctx, cancel := l.perFile(ctx)
	defer cancel()
	if err := archive.Inspect(name, f, l.Cluster); err != nil {
		return archive.WithHint(fmt.Errorf("queued %s: %w", file, retold{err}),
			"%s in the queues' directory stops everything after it: if the archive or another copy has it whole, move this one away; never delete the only one", file)
	}
	if _, err := l.Archive.Push(ctx, name, f); err != nil {
		return fmt.Errorf("queued %s: %w", file, err)
	}
	if err := l.Disk.Remove(ctx, file); err != nil {
		return fmt.Errorf("queued %s is delivered and cannot be removed: %w", file, err)
	}
	l.desk.add(-f.Size())
	return nil
}

// perFile is the time that one queued file may take.
func (l *lane) perFile(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.budget == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, l.budget, fmt.Errorf("no success within %s", l.budget))
}

// retold is an error without its advice, which was meant for another place. Its
// class stays.
type retold struct{ of error }

func (r retold) Error() string        { return r.of.Error() }
func (r retold) Is(target error) bool { return errors.Is(r.of, target) }
