package archive

import (
	"context"
	"errors"
	"fmt"
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
// came from. ErrUnsettled if all of them say so.
func (s Set) FetchAhead(ctx context.Context, name wal.Name, patience time.Duration, deliver Deliver) (string, error) {
	var all []error
	for _, a := range s {
		err := a.FetchAhead(ctx, name, patience, deliver)
		if err == nil {
			return a.name, nil
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	for _, err := range all {
		if !errors.Is(err, ErrUnsettled) {
			return "", err
		}
	}
	return "", errors.Join(all...)
}

// JoinVerdicts is the error of a Set whose archives said each of these; what
// Verdicts took apart.
func JoinVerdicts(each []error) error {
	if len(each) == 1 {
		return each[0]
	}
	return verdicts{errors.Join(each...), each}
}
