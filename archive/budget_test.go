package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
)

// The clock of these tests is synctest's: it moves only while everybody waits.

func TestHangingDiskEndsWithTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := segments(1, 0x10, 2, 1)
		disk := archivetest.NewMemory()
		whole := newArchive(t, disk, forms[0], archive.Options{})
		push(t, whole, all[0])
		release := make(chan struct{})
		defer close(release)
		hung := at(hooked{FS: disk, open: func(_ string, real func() (files.Object, error)) (files.Object, error) {
			<-release
			return real()
		}}, archive.Options{})

		start := time.Now()
		err := hung.Fetch(t.Context(), all[0].name, time.Minute, into(new(bytes.Buffer)))
		if err == nil || errors.Is(err, archive.ErrAbsent) {
			t.Errorf("fetch: got %v, want a doubt", err)
		}
		wantTook(t, start, time.Minute)

		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := hung.Push(ctx, all[1].name, all[1].source()); err == nil {
			t.Error("a push to a hanging disk succeeded")
		}
		wantTook(t, start, time.Hour)

		start = time.Now()
		var b bytes.Buffer
		if _, err := (archive.Set{hung, whole}).Fetch(t.Context(), all[0].name, time.Hour, into(&b)); err != nil {
			t.Errorf("the other archive did not help: %v", err)
		}
		wantTook(t, start, 5*time.Second) // an archive that is not the only one gets no more
	})
}

// wantTook allows for what a call gets to clean up.
func wantTook(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(start); took < want || took > want+time.Second {
		t.Errorf("took %v, want %v", took, want)
	}
}

// onWarning is a log that does something when it is told of something.
type onWarning struct {
	slog.Handler
	do func()
}

func (o onWarning) Enabled(context.Context, slog.Level) bool { return true }

func (o onWarning) Handle(context.Context, slog.Record) error { o.do(); return nil }

// The budget is over while the last bytes are looked at. Whoever asked has got
// its answer then, and must not find a file all the same.
func TestFetchThatIsOverDoesNotDeliver(t *testing.T) {
	all := segments(1, 0x10, 2, 1)
	cut, _ := unfinished(t, all[1])
	disk := archivetest.NewMemory()
	push(t, newArchive(t, disk, forms[0], archive.Options{}), all[0])
	storeAs(t, disk, forms[0], cut)
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(onWarning{slog.DiscardHandler, cancel}) // of the end of WAL, after all bytes have passed
	delivered := make(chan error, 1)
	_ = at(disk, archive.Options{Log: log}).Fetch(ctx, cut.name, patience, func(write func(io.Writer) error) error {
		err := write(io.Discard)
		delivered <- err
		return err
	})
	if err := <-delivered; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// slowObject takes its time for every large read.
type slowObject struct {
	files.Object
	pause time.Duration
}

func (o slowObject) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 10_000 {
		time.Sleep(o.pause)
	}
	return o.Object.ReadAt(p, off)
}

func slow(fsys files.FS, pause time.Duration) files.FS {
	return hooked{FS: fsys, open: func(_ string, real func() (files.Object, error)) (files.Object, error) {
		o, err := real()
		return slowObject{o, pause}, err
	}}
}

// The patience of a fetch is for the next byte, not for the whole: a large
// segment on a slow disk must get through, also while the one before it is read
// for the record that crosses.
func TestSlowDiskIsNotCutWhileBytesArrive(t *testing.T) {
	all := segments(1, 0x10, 2, 7)
	for _, f := range forms {
		synctest.Test(t, func(t *testing.T) {
			disk := archivetest.NewMemory()
			push(t, newArchive(t, disk, f, archive.Options{}), all...)
			for _, pause := range []time.Duration{20 * time.Second, 61 * time.Second} {
				var b bytes.Buffer
				err := at(slow(disk, pause), archive.Options{}).Fetch(t.Context(), all[1].name, patience, into(&b))
				if cut := err != nil; cut != (pause > patience) {
					t.Errorf("%v, a read every %v: got %d bytes, error %v", f, pause, b.Len(), err)
				}
			}
			time.Sleep(time.Hour) // until the call that was left behind has ended
		})
	}
}
