package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
)

// mute is an archive whose host does not answer.
func mute(name string) *archive.Archive {
	h := &hooked{FS: archivetest.NewMemory()}
	h.set(func(ctx context.Context, _, _ string) error { <-ctx.Done(); return ctx.Err() })
	return archive.New(name, store(h), archive.Options{})
}

// Hosts that are away cost a moment together, not their time one after the other.
func TestArchivesAreAskedAtTheSameTime(t *testing.T) {
	good := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	for name, tt := range map[string]struct {
		set   archive.Set
		takes time.Duration
		says  string
	}{
		"all answer": {archive.Set{good.Archive, good.Archive}, 0, ""},
		"one does":   {archive.Set{mute("a"), mute("b"), good.Archive}, lateTime, ""},
		"none does":  {archive.Set{mute("a"), mute("b")}, askingTime, "no answer within 30s: archive a: "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said := &logged{}
				begin := time.Now()
				k, err := Ask(t.Context(), tt.set, slog.New(slog.NewTextHandler(said, nil)))
				if took := time.Since(begin); took != tt.takes {
					t.Errorf("took %s, want %s", took, tt.takes)
				}
				if (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want %q", err, tt.says)
				}
				if err == nil && k.SegmentSize() != int64(mb) {
					t.Errorf("got segments of %d bytes", k.SegmentSize())
				}
				if told := strings.Count(said.String(), "no answer within 3s"); told != len(tt.set)-1 && tt.takes == lateTime {
					t.Errorf("%d archives are told of in %s", told, said)
				}
			})
		})
	}
}

func TestASignalEndsAMountThatIsBeingMade(t *testing.T) {
	told := errors.New("told to end")
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { end(told) })
		begin := time.Now()
		if _, err := Ask(ctx, archive.Set{mute("a")}, slog.New(slog.DiscardHandler)); !errors.Is(err, told) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(begin))
		}
	})
	good := newArchive(t, archivetest.NewMemory(), treeZstd, mb, 2)
	k, err := Ask(t.Context(), archive.Set{good.Archive}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancelCause(t.Context())
	end(told)
	dir := t.TempDir()
	if _, err := Mount(ctx, dir, Options{Archives: archive.Set{good.Archive}, Known: k, Cache: CacheOptions{Dir: t.TempDir()}}); !errors.Is(err, told) {
		t.Errorf("got %v", err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("%s is mounted, or %v", dir, err)
	}
}

func TestWhatIsKnownIsNotAskedAgain(t *testing.T) {
	h := &hooked{FS: archivetest.NewMemory()}
	a := newArchive(t, h, treeZstd, mb, 2)
	o := Options{Archives: archive.Set{a.Archive}}
	var err error
	if o.Known, err = Ask(t.Context(), o.Archives, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	h.set(func(context.Context, string, string) error { asked.Add(1); return nil })
	serving(t, o)
	if n := asked.Load(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}
