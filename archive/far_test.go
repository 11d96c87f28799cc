package archive_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

func distant(fsys files.FS) *archive.Archive { return at(afar(fsys), archive.Options{}) }

// A far archive is asked several things at once, and a segment is encoded before
// it is known how the archive wants it.
func TestFarArchiveStoresTheSame(t *testing.T) {
	all := append(segments(2, 0x11, 3, 1), history(2, "1\t0/1100000\tx\n"))
	for _, form := range forms {
		near, far := archivetest.NewMemory(), archivetest.NewMemory()
		push(t, newArchive(t, near, form, archive.Options{}), all...)
		newArchive(t, far, form, archive.Options{})
		push(t, distant(far), all...)
		for _, f := range all {
			wantFile(t, distant(far), f)
			if !bytes.Equal(storedBytes(t, near, stored(form, f.name)), storedBytes(t, far, stored(form, f.name))) {
				t.Errorf("%v, %s: the stored file differs", form, f.name)
			}
		}
		// Once more: found.
		done, err := distant(far).Push(t.Context(), all[0].name, all[0].source())
		if err != nil || !done.Found || done.As != all[0].name {
			t.Errorf("%v: got %+v, error %v, want it found", form, done, err)
		}
		wantNoTemporary(t, far)
	}
}

func storedBytes(t *testing.T, fsys files.FS, name string) (content []byte) {
	t.Helper()
	rewrite(t, fsys, name, func(b []byte) []byte { content = bytes.Clone(b); return b })
	return content
}

func wantNoTemporary(t *testing.T, fsys files.FS) {
	t.Helper()
	for _, dir := range []string{"wal", ".tmp-pending"} {
		entries, err := fsys.ReadDir(t.Context(), dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), files.TempPrefix) {
				t.Errorf("%s/%s is left", dir, e.Name())
			}
		}
	}
}

func TestFarArchiveRefusesTheSame(t *testing.T) {
	ours, theirs := segments(2, 0x11, 1, 1)[0], segments(2, 0x11, 1, 2)[0]
	for _, form := range forms {
		disk := archivetest.NewMemory()
		newArchive(t, disk, form, archive.Options{})
		push(t, distant(disk), ours)
		_, err := distant(disk).Push(t.Context(), theirs.name, theirs.source())
		wantError(t, err, archive.ErrConflict)
		wantFile(t, distant(disk), ours)
		wantNoTemporary(t, disk)
		_, err = distant(disk).Push(t.Context(), wal.SegmentName(2, 0x12, mb), ours.source())
		wantError(t, err, archive.ErrForeign)
		_, err = fetch(t.Context(), distant(disk), wal.SegmentName(2, 0x12, mb))
		wantError(t, err, archive.ErrAbsent)
		if form.layout == archive.Tree {
			drop(t, disk, "wal/archive.id")
			_, err = distant(disk).Push(t.Context(), theirs.name, theirs.source())
			wantError(t, err, archive.ErrNoIdentity)
			_, err = fetch(t.Context(), distant(disk), wal.SegmentName(2, 0x12, mb))
			wantError(t, err, archive.ErrNoIdentity, archive.ErrAbsent)
		}
	}
}

// The source is not read any more once a push has come back.
func TestPushLetsGoOfItsSource(t *testing.T) {
	f := segments(2, 0x11, 1, 1)[0]
	disk := archivetest.NewMemory()
	newArchive(t, disk, forms[0], archive.Options{})
	drop(t, disk, "archive.json") // refused, while it is being encoded
	for range 20 {
		src := &closing{Reader: bytes.NewReader(f.content)}
		_, err := distant(disk).Push(t.Context(), f.name, src)
		wantError(t, err, archive.ErrNoIdentity)
		src.close(t)
	}
}

// closing is a source that notices who reads it after its end.
type closing struct {
	*bytes.Reader
	mu     sync.Mutex
	closed bool
	late   bool
}

func (c *closing) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.late = c.late || c.closed
	c.mu.Unlock()
	return c.Reader.ReadAt(p, off)
}

func (c *closing) close(t *testing.T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	t.Cleanup(func() {
		if c.late {
			t.Error("the source was read after the push had come back")
		}
	})
}

// deaf takes what it does not store.
type deaf struct{ files.File }

func (d deaf) Write(p []byte) (int, error) { return len(p), nil }

// bent stores something else than it is given.
type bent struct{ files.File }

func (b bent) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	q[len(q)/2] ^= 1
	return b.File.Write(q)
}

// A file system that lies is found out by reading back.
func TestVerifyPutsFindsALiar(t *testing.T) {
	f := segments(2, 0x11, 1, 1)[0]
	for what, lie := range map[string]func(files.File) files.File{
		"stores nothing":        func(f files.File) files.File { return deaf{f} },
		"stores something else": func(f files.File) files.File { return bent{f} },
	} {
		for _, form := range forms {
			for _, place := range places {
				disk := archivetest.NewMemory()
				newArchive(t, disk, form, archive.Options{})
				liar := place(hooked{FS: disk, create: func(_ string, real func() (files.File, error)) (files.File, error) {
					f, err := real()
					if err != nil {
						return nil, err
					}
					return lie(f), nil
				}})
				_, err := at(liar, archive.Options{VerifyPuts: true}).Push(t.Context(), f.name, f.source())
				if err == nil || !errors.Is(err, archive.ErrDamaged) {
					t.Errorf("%s, %v: got %v, want %v", what, form, err, archive.ErrDamaged)
				}
			}
		}
	}
	disk := archivetest.NewMemory()
	newArchive(t, disk, forms[0], archive.Options{})
	if _, err := at(disk, archive.Options{VerifyPuts: true}).Push(t.Context(), f.name, f.source()); err != nil {
		t.Errorf("an honest one: %v", err)
	}
}

// Also of a .partial that is stored beside another one.
func TestVerifyPutsLooksBeside(t *testing.T) {
	one, other := segments(2, 0x11, 1, 1)[0], segments(2, 0x11, 1, 2)[0]
	one.name, other.name = one.name.Partial(), other.name.Partial()
	for _, form := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, form, archive.Options{}), one)
		liar := hooked{FS: disk, create: func(_ string, real func() (files.File, error)) (files.File, error) {
			f, err := real()
			return bent{f}, err
		}}
		_, err := at(liar, archive.Options{VerifyPuts: true}).Push(t.Context(), other.name, other.source())
		wantError(t, err, archive.ErrDamaged)
	}
}

// A push whose time is over comes back, although its source is still encoded.
func TestEncodingAheadEndsWithTheCall(t *testing.T) {
	f := segments(2, 0x11, 1, 1)[0]
	disk := archivetest.NewMemory()
	newArchive(t, disk, forms[0], archive.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	_, err := distant(disk).Push(ctx, f.name, f.source())
	wantError(t, err, enough)
}

// forgetful is a far file system whose host loses power between publishing and
// syncing: it does not know the file any more, and syncs all the same.
type forgetful struct {
	archivetest.Distant
	t *testing.T
}

func (f forgetful) SyncLater(ctx context.Context, names ...string) (func(context.Context) error, func()) {
	sync, drop := f.Distant.SyncLater(ctx, names...)
	return func(ctx context.Context) error {
		entries, err := f.ReadDir(ctx, names[0])
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := wal.ParseName(strings.TrimSuffix(e.Name(), ".zst")); err == nil {
				drop := names[0] + "/" + e.Name()
				if err := f.Remove(ctx, strings.TrimPrefix(drop, "./")); err != nil {
					return err
				}
			}
		}
		return sync(ctx)
	}, drop
}

func TestPushLooksWhetherItIsStillThere(t *testing.T) {
	f := segments(2, 0x11, 1, 1)[0]
	for _, form := range forms {
		disk := archivetest.NewMemory()
		newArchive(t, disk, form, archive.Options{})
		_, err := at(forgetful{archivetest.Distant{FS: disk}, t}, archive.Options{}).Push(t.Context(), f.name, f.source())
		if err == nil || !strings.Contains(err.Error(), "is not there any more") || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: got %v, want that it is gone", form, err)
		}
	}
}

// A far listing may be cut short anywhere: segments are asked for by name.
func TestFarListingThatIsCutShortProvesNothing(t *testing.T) {
	all := segments(1, 0x10, 20, 1)
	for _, f := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, f, archive.Options{}), all...)
		for _, gone := range all[1:15] {
			drop(t, disk, stored(f, gone.name))
		}
		first := func(name string) bool {
			return strings.HasPrefix(name, "archive.") || strings.HasPrefix(name, all[0].name.String()) || len(name) == 16
		}
		_, err := fetch(t.Context(), at(archivetest.Distant{FS: short(disk, first)}, archive.Options{}), all[1].name)
		wantError(t, err, archive.ErrGap, archive.ErrAbsent)
	}
}

// patient is a far file system that is slow to create: it waits until nobody
// wants the file any more.
type patient struct{ archivetest.Distant }

func (p patient) Create(ctx context.Context, name string) (files.File, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(10 * time.Second):
		return p.Distant.Create(ctx, name)
	}
}

// What stands there is not sent to its end.
func TestFarPushStopsSendingWhatStandsThere(t *testing.T) {
	f := segments(2, 0x11, 1, 1)[0]
	disk := archivetest.NewMemory()
	push(t, newArchive(t, disk, forms[0], archive.Options{}), f)
	began := time.Now()
	done, err := at(patient{archivetest.Distant{FS: disk}}, archive.Options{}).Push(t.Context(), f.name, f.source())
	if err != nil || !done.Found || time.Since(began) > 5*time.Second {
		t.Errorf("got %+v, error %v after %s, want it found at once", done, err, time.Since(began))
	}
}

// stating tells when a stored file is looked for.
type stating struct {
	files.FS
	asked chan string
}

func (s stating) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	s.asked <- name
	return s.FS.Stat(ctx, name)
}

// Each question takes the way there and back: the identity is read again, but nothing
// waits for it once it is known where a file lies.
func TestFarStatAsksForIdentityAndFileAtATime(t *testing.T) {
	one := segments(1, 0x10, 1, 1)[0]
	for _, form := range forms {
		disk := archivetest.NewMemory()
		push(t, newArchive(t, disk, form, archive.Options{}), one)
		asked, wait := make(chan string, 100), false
		a := distant(stating{hooked{FS: disk, open: func(name string, real func() (files.Object, error)) (files.Object, error) {
			if name == "archive.json" && wait {
				select {
				case <-asked:
				case <-time.After(10 * time.Second):
					return nil, errIO
				}
			}
			return real()
		}}, asked})
		for range 2 {
			got, err := a.Stat(t.Context(), one.name)
			if err != nil || got.Size != int64(mb) {
				t.Fatalf("%v: got %+v, error %v", form, got, err)
			}
			for !wait && len(asked) > 0 {
				<-asked
			}
			wait = true
		}
	}
}
