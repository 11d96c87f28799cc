package ship_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pitr/archive/local"
	"pitr/archive/ship"
)

// On a real disk: links share the space, modes are private, and a missing
// directory is never made.
func TestQueuesOnARealDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "queues")
	a, b := newSite(t), newSite(t)
	a.setAway(errAway)
	b.setAway(errAway)
	s := shipper(local.New(root), a, b)
	all := segments(0x10, 2, 1)
	r, err := send(t, s, all[0])
	if err == nil || r[0].Outcome != ship.Lost || !strings.Contains(hintsOf(err), "mounted") {
		t.Errorf("got %+v, %v, want a refusal", r, err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the queues' directory was made")
	}
	for range 2 {
		if err := ship.Make(t.Context(), s.Disk, []string{"a"}); err != nil {
			t.Fatal(err)
		}
	}
	mustSend(t, s, all[0], ship.Queued, ship.Queued)
	one, err := os.Stat(filepath.Join(root, "a", all[0].name.String()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Stat(filepath.Join(root, "b", all[0].name.String()))
	if err != nil {
		t.Fatal(err)
	}
	if links := one.Sys().(*syscall.Stat_t).Nlink; !os.SameFile(one, other) || links != 2 {
		t.Errorf("got %d links, want 2 that are one file", links)
	}
	for _, dir := range []string{root, filepath.Join(root, "a"), filepath.Join(root, "b")} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: got mode %v, %v, want 0700", dir, info.Mode(), err)
		}
	}
	q, err := ship.Look(t.Context(), s.Disk, "a")
	if err != nil || q.Files != 1 || q.Bytes != int64(mb) || q.First != all[0].name || q.State != ship.Behind || q.Unknown != 0 {
		t.Errorf("got %+v, %v", q, err)
	}
	a.setAway(nil)
	b.setAway(nil)
	mustSend(t, s, all[1], ship.Delivered, ship.Delivered)
	wantHeld(t, a, all...)
	wantHeld(t, b, all...)
	wantNothingTemporary(t, s.Disk, "a", "b")
}

// linkless is a disk that knows no links.
type linkless struct{ ship.Disk }

func (linkless) Link(context.Context, string, string) error {
	return &os.LinkError{Op: "link", Err: syscall.EPERM}
}

func TestQueueWithoutLinksHoldsCopies(t *testing.T) {
	a, b := newSite(t), newSite(t)
	a.setAway(errAway)
	b.setAway(errAway)
	disk := queues(t)
	s := shipper(linkless{disk}, a, b)
	f := segments(0x10, 1, 1)[0]
	mustSend(t, s, f, ship.Queued, ship.Queued)
	mustSend(t, s, f, ship.Queued, ship.Queued)
	disk.Crash(nil)
	wantQueued(t, disk, "a", f)
	wantQueued(t, disk, "b", f)
	wantNothingTemporary(t, disk, "a", "b")
}

// Two calls at once: nothing is lost, and what is published is in order.
func TestTwoCallsAtOnce(t *testing.T) {
	root := t.TempDir()
	a := newSite(t)
	all := segments(0x10, 12, 1)
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			for i := half; i < len(all); i += 2 {
				if _, err := send(t, shipper(local.New(root), a), all[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantHeld(t, a, all...)
	wantQueued(t, local.New(root), "a")
	wantNothingTemporary(t, local.New(root), "a")
}
