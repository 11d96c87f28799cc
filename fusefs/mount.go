package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Server serves one mount.
type Server struct {
	dir    string
	fuse   *fuse.Server
	tree   *tree
	served chan struct{} // closed when nothing is served any more
	// gone is closed when it is mounted nowhere that we see, and served
	// nevertheless: see watch.
	gone    chan struct{}
	watched chan struct{} // closed when nobody watches any more

	unmounting sync.Mutex // held by the one who unmounts
}

// Mount mounts the archives on a directory. It is mounted and answers when Mount
// returns. The identity of one archive at least must be readable. When ctx ends before
// that, nothing is mounted; after that it means nothing.
func Mount(ctx context.Context, dir string, o Options) (*Server, error) {
	o = o.withDefaults()
	dir, err := realPath(dir)
	if err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	t, err := newTree(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	if ctx.Err() != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, context.Cause(ctx)), t.close(context.Background()))
	}
	s := &Server{dir: dir, tree: t, served: make(chan struct{}), gone: make(chan struct{}), watched: make(chan struct{})}
	if s.fuse, err = attach(dir, t, mountOptions(o)); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), t.close(context.Background()))
	}
	go func() {
		defer close(s.served)
		s.fuse.Serve()
	}()
	// It waits by opening a file of the mount, which is not ours to open where the files
	// are shown as another user's. That the kernel says so is an answer, too.
	if err := s.fuse.WaitMount(); err != nil && !errors.Is(err, syscall.EACCES) {
		close(s.watched)
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), s.Unmount(), s.Close(context.Background()))
	}
	device := deviceOf(dir)
	widen(device)
	go s.watch(device)
	return s, nil
}

// realPath is how the system will call a directory.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// newTree asks the archives whose they are, unless that is known, and takes the cache.
func newTree(ctx context.Context, o Options) (*tree, error) {
	k := o.Known
	if k == nil {
		var err error
		if k, err = Ask(ctx, o.Archives, o.Log); err != nil {
			return nil, err
		}
	}
	c, err := openCache(o.Cache, k.key)
	if err != nil {
		return nil, err
	}
	h := &health{log: o.Log, now: time.Now}
	shown := k.shown(o)
	o.Archives = h.watch(o.Archives, k.cluster)
	s := newSource(o, newLife(), c, h)
	return &tree{
		readOnly: readOnly{fuse.NewDefaultRawFileSystem()}, source: s, nodes: newNodes(), large: newLargeFiles(s),
		virtual: virtual{identity: shown, archive: k.archive()}, segment: k.cluster.SegmentSize, mounted: time.Now(),
	}, nil
}

// close stops what goes on in the background, and gives the cache up.
func (t *tree) close(ctx context.Context) error {
	err := t.source.life.stop(ctx)
	if err != nil {
		return err // what uses the cache may still go on
	}
	return t.source.cache.close()
}

// Wait returns when the directory is no longer mounted. Where another mount namespace
// has a copy of the mount, that is still served, until this process ends.
func (s *Server) Wait() {
	select {
	case <-s.served:
	case <-s.gone:
	}
}

// Ended is closed when nothing is served any more, out of our sight neither: to who
// had it open when it was unmounted lazily, or to another mount namespace.
func (s *Server) Ended() <-chan struct{} { return s.served }

// Unmount unmounts the directory, and waits as Wait does. It matches syscall.EBUSY if
// somebody uses it: then nothing has changed.
func (s *Server) Unmount() error {
	s.unmounting.Lock()
	defer s.unmounting.Unlock()
	select {
	case <-s.served: // what lies there now is another one
		return nil
	case <-s.gone:
		return nil
	default:
	}
	done := make(chan error, 1)
	go func() { done <- s.fuse.Unmount() }() // it waits for all namespaces
	var err error
	select {
	case err = <-done:
	case <-s.gone:
	}
	if err != nil && strings.Contains(err.Error(), "busy") {
		err = syscall.EBUSY // in fusermount's words
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	s.Wait()
	return nil
}

// Close ends all requests under way, stops what goes on in the background, and gives
// the cache up. It does not unmount: what is asked after it is EIO, but files that
// are open can be read. When ctx ends, it waits no longer.
func (s *Server) Close(ctx context.Context) error {
	select {
	case <-s.served:
		<-s.watched
		for _, h := range s.tree.handles.takeAll() {
			s.tree.drop(h)
		}
	default:
	}
	if err := s.tree.close(ctx); err != nil {
		return fmt.Errorf("close the mount on %s: %w", s.dir, err)
	}
	return nil
}

func mountOptions(o Options) *fuse.MountOptions {
	root := os.Geteuid() == 0
	return &fuse.MountOptions{
		Options:                  []string{"ro", "default_permissions"},
		AllowOther:               o.AllowOther,
		FsName:                   o.Source,
		Name:                     "pitr",
		MaxBackground:            64,
		MaxWrite:                 1 << 20,
		MaxStackDepth:            2, // the cache may lie on an overlay
		DisableXAttrs:            true,
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        fuse.CAP_READDIRPLUS_AUTO,
		DirectMountStrict:        root,
		DirectMount:              !root,
		DirectMountFlags:         unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
		Logger:                   slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
}

// attach mounts. The descriptor of /dev/fuse must not reach a child process: the
// mount would hang for ever when this process dies. go-fuse opens it without
// O_CLOEXEC if it mounts by itself, so no child may begin until that was set
// right; where fusermount mounts, it is a child, and the descriptor is safe.
func attach(dir string, tree fuse.RawFileSystem, o *fuse.MountOptions) (*fuse.Server, error) {
	if o.DirectMountStrict {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	server, err := fuse.NewServer(tree, dir, o)
	if err != nil {
		return nil, err
	}
	if err := closeOnExec(); err != nil {
		return nil, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
	}
	return server, nil
}

// closeOnExec marks every open /dev/fuse.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || target != "/dev/fuse" {
			continue
		}
		var n int
		if _, err := fmt.Sscan(fd.Name(), &n); err == nil {
			unix.CloseOnExec(n)
		}
	}
	return nil
}
