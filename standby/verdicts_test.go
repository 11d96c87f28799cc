package standby

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// failing is a store that answers every question with one error.
type failing struct{ err error }

func (f failing) Put(context.Context, string, func(io.Writer) error) error { return f.err }
func (f failing) Sync(context.Context, string) error                       { return f.err }
func (f failing) Open(context.Context, string) (archive.Object, error)     { return nil, f.err }
func (f failing) Stat(context.Context, string) (fs.FileInfo, error)        { return nil, f.err }
func (f failing) List(context.Context, string) ([]fs.DirEntry, error)      { return nil, f.err }
func (f failing) Move(context.Context, string, string) error               { return f.err }
func (f failing) Remove(context.Context, string) error                     { return f.err }
func (f failing) Sweep(context.Context, string, time.Time) ([]string, error) {
	return nil, f.err
}

func restoreFrom(mode Mode, errs ...error) (took time.Duration, err error) {
	var set archive.Set
	for _, e := range errs {
		set = append(set, archive.New("archive", failing{e}, archive.Options{}))
	}
	start := time.Now()
	r := Restore{From: set, Mode: mode, Retry: 10 * time.Minute, Log: slog.New(slog.DiscardHandler)}
	err = r.Run(context.Background(), segment, nil)
	return time.Since(start), err
}

// One archive that is damaged or of another cluster must not cost the patience
// for the one that is out of reach.
func TestPatienceIsForTheArchiveThatMayAnswerYet(t *testing.T) {
	for _, c := range []struct {
		mode  Mode
		errs  []error
		least time.Duration
		most  time.Duration
	}{
		{Recovery, []error{archive.ErrDamaged, errIO}, 9 * time.Minute, 10 * time.Minute},
		{Recovery, []error{errIO, archive.ErrIdentity}, 9 * time.Minute, 10 * time.Minute},
		{Recovery, []error{archive.ErrDamaged, archive.ErrIdentity}, 2 * time.Second, 5 * time.Second},
		{Standby, []error{archive.ErrIdentity, errIO}, 2 * time.Second, 5 * time.Second},
		{Standby, []error{archive.ErrIdentity, archive.ErrIdentity}, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			took, err := restoreFrom(c.mode, c.errs...)
			if took < c.least || took > c.most {
				t.Errorf("%s, %v: took %s (%v), want %s to %s", c.mode, c.errs, took, err, c.least, c.most)
			}
		})
	}
}

// The five seconds of an answer that time does not mend begin with that answer,
// not with the faults before it.
func TestBudgetOfAFindingBeginsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in []error
		for range 8 {
			in = append(in, errIO) // some 20 seconds
		}
		from := &answers{in: append(in, archive.ErrGap, nil)}
		err := Restore{From: from, Retry: 10 * time.Minute, Log: slog.New(slog.DiscardHandler)}.Run(t.Context(), segment, nil)
		if err != nil || from.asked < len(in)+2 {
			t.Errorf("gave up after %d answers: %v", from.asked, err)
		}
		from = &answers{in: append(in, archive.ErrGap, errIO, archive.ErrGap, nil)}
		if err := (Restore{From: from, Retry: 10 * time.Minute, Log: slog.New(slog.DiscardHandler)}).Run(t.Context(), segment, nil); err != nil {
			t.Errorf("a gap between faults: got %v, want success", err)
		}
	})
}

func TestPrepareWaitsOnlyWhereStoppingIsWorse(t *testing.T) {
	for _, c := range []struct {
		mode   Mode
		name   wal.Name
		tries  int
		status int
	}{
		{Recovery, segment, 1, 255},
		{Recovery, wal.HistoryName(2), 1, 255},
		{Standby, segment, 1, 1},
		{Promotion, segment, 1, 255},
		{Promotion, wal.HistoryName(2), 4, 0},
	} {
		for _, lasting := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				tried := 0
				err := Restore{Mode: c.mode, Log: slog.New(slog.DiscardHandler)}.Prepare(t.Context(), c.name, func() error {
					if tried++; tried < 4 {
						return errIO
					}
					return nil
				}, func(error) bool { return lasting })
				want := c.status
				if lasting && want != 0 {
					want = -1 // the error itself
				}
				if tried != c.tries || status(err) != want {
					t.Errorf("%s, %s: %d tries, %v; want %d tries, status %d", c.mode, c.name, tried, err, c.tries, want)
				}
			})
		}
	}
}
