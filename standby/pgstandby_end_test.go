package standby

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive/wal"
)

func TestStandbyTrigger(t *testing.T) {
	const smart, fast = "trigger file found: smart failover\n", "trigger file found: fast failover\n"
	for _, c := range []struct {
		about, content string
		present        bool // the segment
		status         int
		took           time.Duration
		stderr, left   string
	}{
		{"empty is smart", "", false, 1, 0, smart, ""},
		{"smart", "smart\n", false, 1, 0, smart, "smart\n"},
		{"smart restores what is there", "smart", true, 0, 0, smart, "smart"},
		{"empty restores what is there", "", true, 0, 0, smart, ""},
		{"fast", "fast\n", false, 1, 0, fast, ""},
		{"fast comes before the file", "fast", true, 1, 0, fast, ""},
		{"only the beginning counts", "fastest", true, 1, 0, fast, ""},
		{"invalid content", "Fast", true, 0, 0, "WARNING: invalid content in \"TRIGGER\"\n", "Fast"},
		{"invalid content, every turn", "no", false, 1, 15 * time.Second, strings.Repeat("WARNING: invalid content in \"TRIGGER\"\n", 4), "no"},
	} {
		t.Run(c.about, func(t *testing.T) {
			w := newWarm(t)
			w.write(w.trigger, c.content)
			if c.present {
				w.putSegment(seg1)
			}
			synctest.Test(t, func(t *testing.T) {
				w.t = t
				w.ask(seg1, "-w10", "-t"+w.trigger).want(t, c.status, strings.ReplaceAll(c.stderr, "TRIGGER", w.trigger), c.took)
			})
			w.wantRestored(seg1, c.status == 0)
			if left, err := os.ReadFile(w.trigger); err != nil || string(left) != c.left {
				t.Errorf("the trigger holds %q, %v; want %q", left, err, c.left)
			}
		})
	}
}

func TestStandbyFastTriggerLetsTheLastSegmentBeAskedAgain(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	w.write(w.trigger, "fast")
	for i, want := range []int{1, 0, 0} {
		if got := w.ask(seg1, "-t", w.trigger); got.status != want {
			t.Errorf("call %d: got %+v, want %d", i, got, want)
		}
	}
}

func TestStandbyWarnsOfATriggerItCannotOpen(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	fillDir(t, filepath.Dir(w.trigger), "trigger/", "trigger/entry")
	if info, err := os.Stat(w.trigger); err != nil || info.Size() == 0 {
		t.Skip("needs a file system on which directories have a size")
	}
	want := "WARNING: could not open \"" + w.trigger + "\": Is a directory\n"
	if got := w.ask(seg1, "-t", w.trigger); got.status != 0 || got.stderr != want {
		t.Errorf("got %+v, want %q", got, want)
	}
}

func TestStandbyTriggerIsSeenWhileWaiting(t *testing.T) {
	w := newWarm(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		time.AfterFunc(12*time.Second, func() { w.write(w.trigger, "smart") })
		w.ask(seg1, "-t", w.trigger).want(t, 1, "trigger file found: smart failover\n", 15*time.Second)
	})
}

func TestStandbyEndsWithItsContext(t *testing.T) {
	for _, c := range []struct {
		cause  error
		status int
		fast   string // what a trigger that says fast holds afterwards
	}{
		{ErrFailoverSignal, 1, ""},
		{signaled(131), 131, "fast"},
		{signaled(143), 143, "fast"},
		{errors.New("parent gone"), 143, "fast"},
		{nil, 143, "fast"},
	} {
		w := newWarm(t)
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(7*time.Second, func() { cancel(c.cause) })
			got := runStandby(ctx, "-d", "-t", w.trigger, w.archive, seg1, w.target)
			said := strings.HasSuffix(got.stderr, "\nsignaled to exit: fast failover\n")
			if got.status != c.status || got.took != 7*time.Second || said != (c.status == 1) {
				t.Errorf("%v: got %+v, want %d after 7s", c.cause, got, c.status)
			}
			w.write(w.trigger, "fast")
			w.putSegment(seg1)
			if got := runStandby(ctx, "-t", w.trigger, w.archive, seg1, w.target); got.status != c.status {
				t.Errorf("%v: with the segment there got %+v, want %d", c.cause, got, c.status)
			}
			if got := runStandby(ctx, w.archive, "00000002.history", w.target); got.status != c.status {
				t.Errorf("%v: history: got %+v, want %d", c.cause, got, c.status)
			}
		})
		if left, _ := os.ReadFile(w.trigger); string(left) != c.fast {
			t.Errorf("%v: the trigger holds %q, want %q", c.cause, left, c.fast)
		}
		w.wantRestored(seg1, false)
	}
}

func TestStandbyPausesBetweenAttemptsEndWithTheContext(t *testing.T) {
	w := newWarm(t)
	w.putSegment(seg1)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { cancel(ErrFailoverSignal) })
		if got := runStandby(ctx, w.archive, seg1, w.target+"/no/RECOVERYXLOG"); got.status != 1 || got.took != 3*time.Second {
			t.Errorf("got %+v, want 1 after 3s", got)
		}
	})
}

func TestStandbyCleanup(t *testing.T) {
	all := []string{
		"000000010000000000000001", "000000010000000000000002", "000000010000000000000003", "000000010000000000000004",
		"000000020000000000000002", "000000010000000000000001.partial", "000000010000000000000001.00000028.backup",
		"00000002.history", "000000010000000000000001.gz", "00000001000000000000000a",
	}
	const next = "000000010000000000000005"
	for _, c := range []struct {
		about   string
		options []string
		restart []string
		gone    []string
	}{
		{"neither -k nor RESTARTWALFILE", nil, nil, nil},
		{"RESTARTWALFILE, whatever the timeline", nil, []string{seg3}, []string{seg1, seg2, "000000020000000000000002"}},
		{"-k is ignored beside it", []string{"-k1"}, []string{seg2}, []string{seg1}},
		{"-k", []string{"-k2"}, nil, []string{seg1, seg2, "000000020000000000000002"}},
		{"-k0 keeps all", []string{"-k0"}, nil, nil},
		{"-k of more than there ever were", []string{"-k9"}, nil, nil},
		{"all zeros delete nothing", nil, []string{strings.Repeat("0", 24)}, nil},
		{"later than the file asked for", nil, []string{"000000010000000000000006"}, nil},
		{"later, of another timeline", nil, []string{"000000000000000000000006"}, nil},
		{"not a name", nil, []string{"%r"}, nil},
		{"empty", []string{"-k2"}, []string{""}, nil},
	} {
		t.Run(c.about, func(t *testing.T) {
			w := newWarm(t)
			fillDir(t, w.archive, all...)
			w.putSegment(next)
			args := append(append(c.options, w.archive, next, w.target), c.restart...)
			if got := runStandby(t.Context(), args...); got.status != 0 || got.stderr != "" {
				t.Errorf("got %+v", got)
			}
			want := slices.DeleteFunc(append(slices.Clone(all), next), func(n string) bool { return slices.Contains(c.gone, n) })
			slices.Sort(want)
			if left := namesIn(t, w.archive); !slices.Equal(left, want) {
				t.Errorf("left\n%q, want\n%q", left, want)
			}
		})
	}
}

func TestStandbyCleansNothingUpBeforeTheFileIsRestored(t *testing.T) {
	w := newWarm(t)
	fillDir(t, w.archive, seg1)
	w.putSegment(seg3)
	if got := runStandby(t.Context(), "-r0", w.archive, seg3, w.target+"/no/RECOVERYXLOG", seg2); got.status != 1 {
		t.Errorf("got %+v, want 1", got)
	}
	if left := namesIn(t, w.archive); len(left) != 2 {
		t.Errorf("left %q, want both segments", left)
	}
}

func TestStandbyHasRestoredEvenIfItCannotCleanUp(t *testing.T) {
	w := newWarm(t)
	fillDir(t, w.archive, seg1+"/")
	w.putSegment(seg3)
	got := runStandby(t.Context(), w.archive, seg3, w.target, seg2)
	want := "\npg_standby: ERROR: could not remove file \"" + w.archive + "/" + seg1 + "\": Is a directory\n"
	if got.status != 0 || got.stderr != want || len(namesIn(t, w.archive)) != 2 {
		t.Errorf("got %+v, want 0 and %q", got, want)
	}
}

func TestKeptFromCountsBack(t *testing.T) {
	for _, c := range []struct {
		next string
		keep int
		size wal.SegmentSize
		want string
	}{
		{"000000010000000000000010", 5, 16 << 20, "00000001000000000000000B"},
		{"000000010000000000000005", 5, 16 << 20, "000000010000000000000000"},
		{"000000010000000000000005", 6, 16 << 20, ""},
		{"000000010000000000000000", 1, 16 << 20, ""},
		{"000000000000000000000005", 1, 16 << 20, ""},
		{"00000003000000020000000A", 255, 16 << 20, "00000003000000010000000A"},
		{"000000030000000200000002", 5, 16 << 20, "0000000300000001000000FC"},
		{"000000010000000100000002", 5, 1 << 20, "000000010000000000000FFC"},
		{"000000010000000100000002", 5, 64 << 20, "00000001000000000000003C"},
		{"000000010000000300000001", 4, 1 << 30, "000000010000000200000000"},
		{"0000000100000003FFFFFFFF", 1<<31 - 1, 1 << 20, ""},
	} {
		if got := keptFrom(c.next, c.keep, c.size); got != c.want {
			t.Errorf("%d segments of %d before %s: got %q, want %q", c.keep, c.size, c.next, got, c.want)
		}
	}
}
