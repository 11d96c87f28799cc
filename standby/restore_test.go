package standby

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// answers is an archive that gives its answers in turn, the last for ever.
type answers struct {
	in       []error
	asked    int
	at       []time.Time   // of each question
	patience time.Duration // of the last one
}

func (a *answers) Fetch(_ context.Context, _ wal.Name, patience time.Duration, _ archive.Deliver) (string, error) {
	err := a.in[min(a.asked, len(a.in)-1)]
	a.asked++
	a.at, a.patience = append(a.at, time.Now()), patience
	return "archive", err
}

var (
	errIO   = errors.New("input/output error")
	segment = wal.SegmentName(1, 7, wal.DefaultSegmentSize)
)

func TestExitStatusAndBudgetOfEveryAnswer(t *testing.T) {
	wrong := fmt.Errorf("segment: %w", archive.ErrDamaged)
	for _, c := range []struct {
		mode   Mode
		name   wal.Name
		answer error
		status int
		atMost time.Duration
		atOnce bool
	}{
		{Recovery, segment, nil, 0, 0, true},
		{Recovery, segment, archive.ErrAbsent, 1, 0, true},
		{Recovery, segment, errIO, 255, 10 * time.Minute, false},
		{Recovery, segment, archive.ErrNoIdentity, 255, 10 * time.Minute, false},
		{Recovery, segment, wrong, 255, 5 * time.Second, false},
		{Recovery, segment, archive.ErrGap, 255, 5 * time.Second, false},
		{Recovery, segment, archive.ErrIdentity, 255, 5 * time.Second, false},
		{Recovery, wal.HistoryName(2), errIO, 255, 10 * time.Minute, false},
		{Recovery, wal.HistoryName(1), errIO, 1, 0, true},
		{Standby, wal.HistoryName(1), errIO, 1, 0, true},
		{Promotion, wal.HistoryName(1), errIO, 1, 0, true},
		{Promotion, wal.HistoryName(2), archive.ErrAbsent, 1, 0, true},
		{Promotion, segment, errIO, 255, 10 * time.Minute, false},
		{Recovery, wal.HistoryName(2), archive.ErrAbsent, 1, 0, true},
		{Standby, segment, nil, 0, 0, true},
		{Standby, segment, archive.ErrAbsent, 1, 0, true},
		{Standby, segment, errIO, 1, 5 * time.Second, false},
		{Standby, segment, archive.ErrNoIdentity, 1, 5 * time.Second, false},
		{Standby, segment, wrong, 1, 5 * time.Second, false},
		{Standby, segment, archive.ErrGap, 1, 0, true},
		{Standby, segment, archive.ErrIdentity, 1, 0, true},
		{Standby, wal.HistoryName(2), errIO, 1, 5 * time.Second, false},
	} {
		t.Run(fmt.Sprint(c.mode, c.name, c.answer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from := &answers{in: []error{c.answer}}
				start := time.Now()
				err := Restore{From: from, Mode: c.mode, Retry: 10 * time.Minute, Log: slog.New(slog.DiscardHandler)}.Run(t.Context(), c.name, nil)
				took := time.Since(start)
				if got := status(err); got != c.status {
					t.Errorf("status %d (%v), want %d", got, err, c.status)
				}
				if took > c.atMost || c.atOnce != (took == 0) || !c.atOnce && took < c.atMost/2 {
					t.Errorf("took %v, want at most %v", took, c.atMost)
				}
				if c.atOnce && from.asked > 1 {
					t.Errorf("asked %d times, want once", from.asked)
				}
			})
		})
	}
}

// status is what the process exits with.
func status(err error) int {
	var doubt *Doubt
	switch {
	case err == nil:
		return 0
	case errors.As(err, &doubt):
		return doubt.ExitStatus()
	case errors.Is(err, archive.ErrAbsent):
		return 1
	}
	return -1
}

func TestPassingFaultIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &answers{in: []error{errIO, archive.ErrNoIdentity, errIO, nil}}
		if err := (Restore{From: from, Retry: time.Minute, Log: slog.New(slog.DiscardHandler)}).Run(t.Context(), segment, nil); err != nil {
			t.Error(err)
		}
		if from.asked != 4 {
			t.Errorf("asked %d times, want 4", from.asked)
		}
	})
}

// A promotion that were stopped while it reads the parent's history would open
// the old timeline at the next start.
func TestPromotionWaitsForTheHistoryOfItsParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &answers{in: []error{errIO}}
		stop := errors.New("terminated")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(24*time.Hour, func() { cancel(stop) })
		r := Restore{From: from, Mode: Promotion, Retry: time.Minute, Log: slog.New(slog.DiscardHandler)}
		if err := r.Run(ctx, wal.HistoryName(3), nil); !errors.Is(err, stop) {
			t.Errorf("got %v, want to wait until %v", err, stop)
		}
		r.Local = func(n wal.Name) bool { return n == wal.HistoryName(3) }
		if err := r.Run(t.Context(), wal.HistoryName(3), nil); status(err) != 1 {
			t.Errorf("with a copy in pg_wal: got %v, want absent", err)
		}
	})
}

func TestGapIsNoReasonToStopWhenPostgreSQLHasTheSegment(t *testing.T) {
	r := Restore{From: &answers{in: []error{archive.ErrGap}}, Log: slog.New(slog.DiscardHandler), Local: func(wal.Name) bool { return true }}
	for _, r.Mode = range []Mode{Standby, Promotion, Recovery} {
		if err := r.Run(t.Context(), segment, nil); !errors.Is(err, archive.ErrAbsent) {
			t.Errorf("%s: got %v, want absent", r.Mode, err)
		}
	}
	r.From = &answers{in: []error{archive.ErrDamaged}}
	if err := r.Run(t.Context(), segment, nil); status(err) != 255 {
		t.Errorf("damage: got %v, want a doubt", err)
	}
}

// A segment in pg_wal may be the unfinished one that the archive has whole: only
// of the parent's history does pg_wal have the last word.
func TestPromotionAsksTheArchiveForSegments(t *testing.T) {
	from := &answers{in: []error{nil}}
	r := Restore{From: from, Mode: Promotion, Log: slog.New(slog.DiscardHandler), Local: func(wal.Name) bool { return true }}
	if err := r.Run(t.Context(), segment, nil); err != nil || from.asked != 1 {
		t.Errorf("got %v after %d questions, want the archive's after one", err, from.asked)
	}
	r.Mode = Standby
	if err := r.Run(t.Context(), wal.HistoryName(2), nil); err != nil || from.asked != 2 {
		t.Errorf("history in standby mode: got %v after %d questions, want the archive's", err, from.asked-1)
	}
}

func TestPatienceFollowsTheBudgetWithinBounds(t *testing.T) {
	for _, c := range []struct {
		mode  Mode
		name  wal.Name
		retry time.Duration
		want  time.Duration
	}{
		{Recovery, segment, 0, time.Second},
		{Recovery, segment, 2 * time.Minute, 2 * time.Minute},
		{Recovery, segment, 24 * time.Hour, 10 * time.Minute},
		{Standby, segment, 24 * time.Hour, 5 * time.Second},
		{Standby, segment, 2 * time.Second, 2 * time.Second},
		{Promotion, wal.HistoryName(2), 0, 10 * time.Minute},
		{Promotion, segment, 2 * time.Minute, 2 * time.Minute},
	} {
		from := &answers{in: []error{nil}}
		r := Restore{From: from, Mode: c.mode, Retry: c.retry, Log: slog.New(slog.DiscardHandler)}
		if err := r.Run(t.Context(), c.name, nil); err != nil || from.patience != c.want {
			t.Errorf("%s, %s, restore_retry of %s: got %s (%v), want %s", c.mode, c.name, c.retry, from.patience, err, c.want)
		}
	}
}

func TestPausesDoubleUpToFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &answers{in: []error{errIO}}
		_ = Restore{From: from, Retry: time.Minute, Log: slog.New(slog.DiscardHandler)}.Run(t.Context(), segment, nil)
		want := 100 * time.Millisecond
		for i := 1; i < from.asked; i++ {
			if got := from.at[i].Sub(from.at[i-1]); got != want {
				t.Errorf("before attempt %d: got a pause of %s, want %s", i+1, got, want)
			}
			want = min(2*want, 5*time.Second)
		}
		if from.asked < 12 {
			t.Errorf("got %d attempts in a minute, want more", from.asked)
		}
	})
}

func TestRetryOfZeroTriesOnce(t *testing.T) {
	from := &answers{in: []error{errIO}}
	err := Restore{From: from, Retry: 0, Log: slog.New(slog.DiscardHandler)}.Run(t.Context(), segment, nil)
	if status(err) != 255 || from.asked != 1 {
		t.Errorf("status %d after %d attempts, want 255 after 1", status(err), from.asked)
	}
}

func TestEndOfTheCallIsItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("terminated")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		err := Restore{From: &answers{in: []error{errIO}}, Retry: time.Hour, Log: slog.New(slog.DiscardHandler)}.Run(ctx, segment, nil)
		if !errors.Is(err, cause) || status(err) != -1 {
			t.Errorf("got %v, want %v", err, cause)
		}
	})
}

func TestModeIsReadFromTheSignalFiles(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  Mode
	}{
		{nil, Recovery},
		{[]string{"recovery.signal"}, Recovery},
		{[]string{"standby.signal"}, Standby},
		{[]string{"recovery.signal", "standby.signal"}, Standby},
		{[]string{"postmaster.pid"}, Promotion},
		{[]string{"postmaster.pid", "recovery.signal"}, Recovery},
		{[]string{"postmaster.pid", "standby.signal"}, Standby},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := ModeOf(dir); got != c.want {
			t.Errorf("%q: got %v, want %v", c.files, got, c.want)
		}
	}
	if got := ModeOf(filepath.Join(t.TempDir(), "nowhere")); got != Recovery {
		t.Errorf("no directory: got %v, want %v", got, Recovery)
	}
}
