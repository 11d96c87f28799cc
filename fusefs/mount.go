package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Server serves one mount.
type Server struct {
	dir    string
	fuse   *fuse.Server
	served chan struct{} // closed when nothing is served any more
}

// Mount mounts the archives on a directory. It is mounted and answers when Mount
// returns. The identity of one archive at least must be readable.
func Mount(dir string, o Options) (*Server, error) {
	o = o.withDefaults()
	root := &fs.Inode{}
	server, err := attach(dir, fs.NewNodeFS(root, nodeOptions(o)), mountOptions(o))
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	s := &Server{dir: dir, fuse: server, served: make(chan struct{})}
	go func() {
		defer close(s.served)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", dir, err), s.Unmount())
	}
	return s, nil
}

// Wait returns when the directory is no longer mounted.
func (s *Server) Wait() { <-s.served }

// Unmount unmounts the directory, and waits until nothing is served any more. It
// matches syscall.EBUSY if somebody uses it: then nothing has changed.
func (s *Server) Unmount() error {
	err := s.fuse.Unmount()
	if err != nil && strings.Contains(err.Error(), "busy") {
		err = syscall.EBUSY // in fusermount's words
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.dir, err)
	}
	s.Wait()
	return nil
}

// Close ends all reads under way, stops what goes on in the background, and
// gives the cache up. It does not unmount: what is asked after it is EIO. When
// ctx ends, it waits no longer.
func (s *Server) Close(ctx context.Context) error { return nil }

// immutable is how long the kernel may believe what it was told of a file.
const immutable = 24 * time.Hour

func nodeOptions(o Options) *fs.Options {
	return &fs.Options{NullPermissions: true}
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
		DisableReadDirPlus:       true,
		ExplicitDataCacheControl: true,
		DirectMountStrict:        root,
		DirectMount:              !root,
		DirectMountFlags:         unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
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
	return server, errors.Join(err, closeOnExec())
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
