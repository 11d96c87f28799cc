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
	began  time.Time
	result Result
}

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
	release, err := l.Disk.Lock(early, l.at(lockFile))
	if err == nil {
		defer release()
	}
	was := l.readNote(ctx)
	switch {
	case err == nil:
		r.Reason = l.deliver(net, early, was)
	case early.Err() != nil:
		r.Reason = fmt.Errorf("%w: another process is shipping there: %w", errNotTried, err)
	default:
		r.Reason = fmt.Errorf("lock its queue: %w", err)
	}
	if r.Reason == nil {
		r.Outcome = Delivered
	} else if r.Err = l.keep(ctx); r.Err == nil {
		r.Outcome = Queued
	}
	l.conclude(ctx, was)
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
	if _, err := l.Archive.Identity(early); err != nil {
		return uninitialised(err)
	}
	if err := l.drain(ctx, early); err != nil {
		return err
	}
	done, err := l.Archive.Push(ctx, l.name, l.src)
	l.result.Pushed = done
	return err
}

// silent tells whether the destination has cost time before it failed. One that
// says no at once can be asked at every call.
func (l *lane) silent() bool { return time.Since(l.began) >= l.Patience/2 }

// rests leaves a destination in peace that was silent a moment ago: an attempt
// at each file would have PostgreSQL wait for a dead host at every segment. One
// whose queue does not take everything is tried all the same.
func (l *lane) rests(was note) error {
	age := l.Now().Sub(was.Tried)
	if was.State != Behind || age < 0 || age >= l.Rest {
		return nil
	}
	return fmt.Errorf("%w: it failed %s ago: %s", errNotTried, age.Round(time.Second), was.Reason)
}

// uninitialised says what to do about a destination that holds no archive.
func uninitialised(err error) error {
	if errors.Is(err, archive.ErrNoIdentity) {
		return archive.WithHint(err, "cmd_archiver -I makes the archive there; if it was made, is its file system mounted?")
	}
	return err
}

// drain empties the queue. Only when nothing waits any more it returns nil: a
// file that overtakes another one leaves a hole if that one never follows.
func (l *lane) drain(ctx, early context.Context) (err error) {
	defer func() {
		if l.result.Sent > 0 && l.Disk.Sync(ctx, l.Destination.Name) != nil {
			l.Log.Warn("what was delivered may come back into the queue after a loss of power", "destination", l.Destination.Name)
		}
	}()
	for {
		names, err := l.waiting(ctx)
		if err != nil {
			return fmt.Errorf("read its queue: %w", err)
		}
		if len(names) == 0 {
			return context.Cause(early)
		}
		for i, name := range names {
			if early.Err() != nil {
				return fmt.Errorf("%d files wait before it: %w", len(names)-i, context.Cause(early))
			}
			if err := l.send(ctx, name); err != nil {
				return fmt.Errorf("%d files wait before it: %w", len(names)-i, err)
			}
			l.result.Sent++
		}
	}
}

// send delivers one queued file, and then removes it from the queue.
func (l *lane) send(ctx context.Context, name wal.Name) error {
	file := l.at(name.String())
	f, err := l.Disk.Open(ctx, file)
	if err != nil {
		return fmt.Errorf("queued %s: %w", file, err)
	}
	defer f.Close()
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
	return nil
}

// retold is an error without its advice, which was meant for another place. Its
// class stays.
type retold struct{ of error }

func (r retold) Error() string        { return r.of.Error() }
func (r retold) Is(target error) bool { return errors.Is(r.of, target) }
