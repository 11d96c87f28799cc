package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/pkg/sftp"

	"pitr/archive"
	"pitr/archive/files"
)

// nothing is the result of an operation that has none.
type nothing = struct{}

// Create makes a new file that can be read by whom the root directory can be
// read by, and written by its owner alone.
func (f *FS) Create(ctx context.Context, name string) (files.File, error) {
	type made struct {
		s    *session
		file *sftp.File
		mode fs.FileMode
	}
	m, err := again(ctx, f, func(s *session) (made, error) {
		if err := f.mustSync(s); err != nil {
			return made{}, err
		}
		root, err := s.rootMode(f.opts.Root)
		if err != nil {
			return made{}, err
		}
		if ctx.Err() != nil {
			return made{}, context.Cause(ctx)
		}
		file, err := s.client.OpenFile(f.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		if err == nil && file == nil {
			err = errLiar
		}
		if err != nil {
			return made{}, f.cannotWrite(s, name, err)
		}
		return made{s, file, root.Perm()&0o444 | 0o200}, nil
	}, func(m made) {
		// Nobody knows of it: whoever dropped it was earlier.
		m.s.aside(func() { _ = m.file.Close(); _ = m.s.client.Remove(f.path(name)) })
	})
	if err != nil {
		return nil, about("create", name, err)
	}
	w := newWriter(ctx, f, m.s, m.file, name)
	w.setMode(m.mode)
	return w, nil
}

// mustSync refuses a server that cannot sync, unless that is allowed.
func (f *FS) mustSync(s *session) error {
	if s.sync || f.opts.AllowNoSync {
		return nil
	}
	return archive.WithHint(ErrNoSync, "OpenSSH's sftp-server can since 6.5; allow_no_fsync = on stores there all the same, and a loss of power on that host can lose what PostgreSQL was told is safe")
}

// cannotWrite explains why something could not be made or written.
func (f *FS) cannotWrite(s *session, name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.absence(s, name, err)
	case isFailure(err):
		return f.failure(s, err)
	}
	return unproven(err)
}

// failure explains a bare "failure" by the state of the far file system.
func (f *FS) failure(s *session, err error) error {
	if !s.space {
		return err
	}
	vfs, vfsErr := s.client.StatVFS(f.opts.Root)
	if vfsErr != nil || vfs == nil {
		return err // the first error counts
	}
	if why := spaceOf(vfs); why != nil {
		return why
	}
	return archive.WithHint(err, "the server says no more than that; its log, or its disk, may: a quota, an I/O error, a name that is taken")
}

// absence is fs.ErrNotExist if a name is absent: OpenSSH says so also of what
// lies below a file, and of links that lead nowhere.
func (f *FS) absence(s *session, name string, err error) error {
	if name == "." {
		return err
	}
	parent := path.Dir(name)
	var info fs.FileInfo
	var parentErr error
	asked := make(chan nothing)
	s.background(func() {
		defer close(asked)
		parentErr = errLiar // unless it comes to an end
		info, parentErr = s.stat(f.path(parent))
	})
	link, linkErr := s.lstat(f.path(name))
	<-asked
	switch {
	case linkErr == nil && link.Mode().Type() != fs.ModeSymlink:
		return fmt.Errorf("%w: %s", errAppeared, name)
	case linkErr == nil:
		return fmt.Errorf("%s is there and cannot be followed: %w", name, unproven(err))
	case !errors.Is(linkErr, fs.ErrNotExist):
		return unproven(linkErr)
	case errors.Is(parentErr, fs.ErrNotExist):
		return f.absence(s, parent, err)
	case parentErr != nil:
		return unproven(parentErr)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: %w", parent, unproven(err))
	}
	return err
}

// proven makes an operation's error say "absent" only with proof.
func (f *FS) proven(s *session, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return f.absence(s, name, err)
	}
	return err
}

// Stat describes a file or directory.
func (f *FS) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	info, err := again(ctx, f, func(s *session) (fs.FileInfo, error) {
		info, err := s.stat(f.path(name))
		return info, f.proven(s, name, err)
	}, nil)
	return info, about("stat", name, err)
}

// ReadDir lists a directory, in the server's order. It fails if the listing is
// larger than anything that can be an archive's.
func (f *FS) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	entries, err := again(ctx, f, func(s *session) ([]fs.DirEntry, error) {
		infos, err := s.list(ctx, f.path(name))
		if err != nil {
			return nil, f.proven(s, name, err)
		}
		return f.entries(infos)
	}, nil)
	return entries, about("list", name, err)
}

func (f *FS) entries(infos []fs.FileInfo) ([]fs.DirEntry, error) {
	entries := make([]fs.DirEntry, 0, len(infos))
	for _, info := range infos {
		if name := info.Name(); name == "" || strings.ContainsAny(name, "/\x00") {
			return nil, fmt.Errorf("%w: a name in a listing is %q", errLiar, name)
		}
		entries = append(entries, fs.FileInfoToDirEntry(info))
	}
	return entries, nil
}

// Mkdir makes a directory with the mode of the root directory. The root itself
// is made with mode 0700, and its name is durable on return.
func (f *FS) Mkdir(ctx context.Context, name string) error {
	_, err := again(ctx, f, func(s *session) (nothing, error) {
		if name == "." {
			return nothing{}, f.makeRoot(s)
		}
		root, err := s.rootMode(f.opts.Root)
		if err != nil {
			return nothing{}, err
		}
		return nothing{}, f.makeDirectory(s, name, root)
	}, nil)
	return about("mkdir", name, err)
}

// makeDirectory makes a directory, or gives one its access that its maker died
// over; then it says fs.ErrExist. Somebody else's is left as it is.
func (f *FS) makeDirectory(s *session, name string, mode fs.FileMode) error {
	const access = fs.ModePerm | fs.ModeSetgid
	made := s.client.Mkdir(f.path(name))
	if made != nil && !isFailure(made) {
		return f.cannotWrite(s, name, made)
	}
	info, err := s.stat(f.path(name))
	switch {
	case err != nil && made != nil:
		return f.failure(s, made)
	case err != nil:
		return unproven(err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory: %w", name, syscall.ENOTDIR)
	case info.Mode()&access != mode&access:
		if err := s.client.Chmod(f.path(name), mode&access); err != nil && (made == nil || !errors.Is(err, fs.ErrPermission)) {
			return unproven(err)
		}
	}
	if made != nil {
		return fs.ErrExist
	}
	return nil
}

func (f *FS) makeRoot(s *session) error {
	made := s.client.Mkdir(f.opts.Root)
	switch {
	case isFailure(made):
		info, err := s.stat(f.opts.Root)
		if err != nil {
			return f.failure(s, made)
		}
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory: %w", f.opts.Root, syscall.ENOTDIR)
		}
		made = fs.ErrExist
	case made != nil:
		return made
	default:
		if err := s.client.Chmod(f.opts.Root, 0o700); err != nil {
			return unproven(err)
		}
	}
	// Also if it was there: its maker may have died before this.
	if err := f.syncPath(s, path.Dir(f.opts.Root)); err != nil {
		return unproven(err)
	}
	return made
}

// Remove removes a file or an empty directory. It does not connect.
func (f *FS) Remove(ctx context.Context, name string) error {
	_, err := once(ctx, f, func(s *session) (nothing, error) {
		err := s.client.Remove(f.path(name))
		if err != nil {
			err = f.proven(s, name, err)
		}
		return nothing{}, err
	})
	return about("remove", name, err)
}

// Sync syncs a file or a directory.
func (f *FS) Sync(ctx context.Context, name string) error {
	_, err := again(ctx, f, func(s *session) (nothing, error) {
		err := f.syncPath(s, f.path(name))
		return nothing{}, f.proven(s, name, err)
	}, nil)
	return about("sync", name, err)
}

// SyncLater opens several names, so that syncing them takes one question. What
// was missing then is opened when it is time.
func (f *FS) SyncLater(ctx context.Context, names ...string) (syncAll func(context.Context) error, drop func()) {
	open := make([]func() opened, len(names))
	for i, name := range names {
		open[i] = f.openToSync(ctx, name)
	}
	syncAll = func(ctx context.Context) error {
		errs := make([]error, len(names))
		var all sync.WaitGroup
		for i, name := range names {
			all.Go(func() { errs[i] = f.syncOpened(ctx, open[i](), name) })
		}
		all.Wait()
		// By now it has been answered, too, that the temporary name is gone.
		if s, err := f.connected(); err == nil {
			s.settle(closeGrace)
		}
		return errors.Join(errs...)
	}
	drop = func() {
		for _, o := range open {
			if o := o(); o.file != nil {
				o.close()
			}
		}
	}
	return syncAll, drop
}

// openToSync begins to open a file or directory. What it returns waits for that;
// there is no file if it could not be opened.
func (f *FS) openToSync(ctx context.Context, name string) func() opened {
	var o opened
	done := make(chan nothing)
	go func() {
		defer close(done)
		s, err := f.connected()
		if err != nil || !s.sync {
			return
		}
		got, err := wait(ctx, s, func(*session) (opened, error) {
			file, err := s.client.Open(f.path(name))
			return opened{s: s, file: file}, err
		}, opened.close)
		if err == nil {
			o = got
		}
	}()
	return func() opened { <-done; return o }
}

func (f *FS) syncOpened(ctx context.Context, o opened, name string) error {
	if o.file == nil {
		return f.Sync(ctx, name)
	}
	_, err := wait(ctx, o.s, func(*session) (nothing, error) { return nothing{}, o.file.Sync() }, nil)
	return about("sync", name, unproven(err))
}

func (f *FS) syncPath(s *session, path string) error {
	if !s.sync {
		if err := f.mustSync(s); err != nil {
			return err
		}
		_, err := s.stat(path)
		return err
	}
	file, err := s.client.Open(path)
	if err == nil && file == nil {
		err = errLiar
	}
	if err != nil {
		return err
	}
	err = file.Sync()
	s.aside(func() { _ = file.Close() }) // of a handle that was read from
	return err
}

// Space tells how many bytes are free for this user on the root's file system;
// false if the server does not say.
func (f *FS) Space(ctx context.Context) (free int64, known bool, err error) {
	type answer struct {
		free  int64
		known bool
	}
	a, err := again(ctx, f, func(s *session) (answer, error) {
		if !s.space {
			return answer{}, nil
		}
		vfs, err := s.client.StatVFS(f.opts.Root)
		switch {
		case err != nil:
			return answer{}, err
		case vfs == nil:
			return answer{}, errLiar
		}
		return answer{int64(vfs.Frsize * vfs.Bavail), true}, nil
	}, nil)
	return a.free, a.known, about("free space of", f.opts.Root, err)
}

func (s *session) stat(path string) (fs.FileInfo, error) { return told(s.client.Stat(path)) }

func (s *session) lstat(path string) (fs.FileInfo, error) { return told(s.client.Lstat(path)) }

// told refuses a description with nothing in it: what the library makes of the
// answer "done".
func told(info fs.FileInfo, err error) (fs.FileInfo, error) {
	if err != nil {
		return nil, err
	}
	if st, ok := info.Sys().(*sftp.FileStat); ok && st == nil {
		return nil, errLiar
	}
	return info, nil
}

// rootMode asks for the root's mode, once in a session.
func (s *session) rootMode(root string) (fs.FileMode, error) {
	s.rootMu.Lock()
	defer s.rootMu.Unlock()
	if s.rootIs != nil {
		return s.rootIs.Mode(), nil
	}
	info, err := s.stat(root)
	if err != nil {
		return 0, err
	}
	s.rootIs = info
	return info.Mode(), nil
}
