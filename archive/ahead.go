package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"pitr/archive/wal"
)

// ErrUnsettled: the file is not there now, or what it holds is right only for as
// long as nothing later is archived. Nothing is proven. Only FetchAhead says so.
var ErrUnsettled = errors.New("not settled yet")

// FetchAhead is Fetch for a segment that nobody has asked for yet. What it
// delivers stays right whatever is archived after it, so it may be kept until
// somebody asks: a segment whose records stop inside it, which Fetch hands out
// while no later WAL is known, is ErrUnsettled here. So is one that is not there:
// the proof would be out of date when it is needed, and is not looked for.
func (a *Archive) FetchAhead(ctx context.Context, name wal.Name, patience time.Duration, deliver Deliver) error {
	ctx, watch := watchStall(ctx, patience)
	defer watch.stop()
	err := within(ctx, func(ctx context.Context) error {
		v, file, err := a.openWith(ctx, name, a.open)
		if err != nil {
			return err
		}
		v.watch, v.settled = watch, true
		v.alive()
		f, err := file.Object, file.err
		if isAbsent(err) {
			// Not with the error in it: nothing here may match a proof.
			return fmt.Errorf("%w: %v", ErrUnsettled, err)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return v.deliver(ctx, name, f, deliver)
	})
	if err != nil {
		return a.named(fmt.Errorf("%s: %w", name, err))
	}
	return nil
}

// FetchAhead asks one archive after the other and returns the one that the file
// came from. ErrUnsettled if all of them say so. Where there are several, one that
// gives no byte for 5 s is passed over.
func (s Set) FetchAhead(ctx context.Context, name wal.Name, patience time.Duration, deliver Deliver) (string, error) {
	if len(s) > 1 {
		patience = min(patience, sharedPatience)
	}
	var failed []error
	for i, a := range s {
		err := a.FetchAhead(ctx, name, patience, deliver)
		if err == nil {
			s[:i].sayWhyNot(ctx, name, patience, failed, a)
			return a.name, nil
		}
		if errors.Is(err, ErrPlace) {
			return "", err
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	for _, err := range failed {
		if !errors.Is(err, ErrUnsettled) {
			return "", err
		}
	}
	return "", errors.Join(failed...)
}

// sayWhyNot tells of the archives that should have had a file and did not, as Fetch
// does: whether they should is what it asks now.
func (s Set) sayWhyNot(ctx context.Context, name wal.Name, patience time.Duration, failed []error, helped *Archive) {
	var v verdict
	for i, a := range s {
		err := failed[i]
		if errors.Is(err, ErrUnsettled) {
			err = a.Fetch(ctx, name, patience, func(write func(io.Writer) error) error { return write(io.Discard) })
		}
		if err != nil {
			v = append(v, err)
		}
	}
	v.warn(helped, name)
}

// JoinVerdicts is the error of a Set whose archives said each of these; what
// Verdicts took apart.
func JoinVerdicts(each []error) error {
	if len(each) == 1 {
		return each[0]
	}
	return verdicts{errors.Join(each...), each}
}
