package multicall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"pitr/fusefs"
)

// mounting is a mount that is asked for.
type mounting struct {
	call   *call
	flags  mountFlags
	source mountSource
	dir    string
}

// herald is who waits for a mount.
type herald struct {
	ready    func() error // it is mounted, and answers
	stopping func()
}

// notifies is the service manager, where there is one.
func (m mounting) notifies() herald {
	return herald{
		ready:    func() error { return m.call.notifyManager("READY=1") },
		stopping: func() { _ = m.call.notifyManager("STOPPING=1") },
	}
}

const (
	// cacheDefault is what a cache may hold, and leastSegments what it must have
	// room for: readers, and what is fetched ahead of them.
	cacheDefault  = 2 << 30
	leastSegments = 8

	// partingTime is what readers under way get at the end: less than a signal
	// leaves us.
	partingTime = time.Second

	// mountMemory is what the memory of one that serves is kept near.
	mountMemory = fusefs.MemoryLimit
)

// serve mounts, and returns when the directory is not mounted any more, or a
// signal has come.
func (m mounting) serve(ctx context.Context, who herald) error {
	// A log that nobody reads any more must not leave a dead mount.
	signal.Ignore(syscall.SIGPIPE)
	debug.SetMemoryLimit(mountMemory)
	cfg, err := m.source.config(m.call)
	if err != nil {
		return err
	}
	point, err := realDirectory(m.dir)
	if err != nil {
		return missing(err, m.dir)
	}
	if err := ownArchives(cfg.readFrom(), point); err != nil {
		return err
	}
	o, err := m.options(cfg)
	if err != nil {
		return err
	}
	if err := m.place(&o, point); err != nil {
		return err
	}
	if err := m.ask(ctx, &o); err != nil {
		return err
	}
	server, err := m.mount(ctx, point, &o)
	if err != nil {
		return err
	}
	if err := who.ready(); err != nil {
		m.call.log.Warn("nobody could be told that it is mounted", "reason", err)
	}
	m.call.log.Info("mounted", "dir", point, "source", o.Source, "cache", o.Cache.Dir)
	return m.attend(ctx, server, seenAt(point), who)
}

// seenAt is the mount that was just made, by the list of mounts.
func seenAt(point string) mountEntry {
	all, err := readMounts()
	if m, found := mountedAt(all, point); err == nil && found {
		return m
	}
	return mountEntry{point: point}
}

// mount waits a moment for the cache: a mount that has just ended gives it up last.
// One that was taken out of sight while it was in use has it for longer, and then
// a cache that nobody named is another one.
func (m mounting) mount(ctx context.Context, point string, o *fusefs.Options) (*fusefs.Server, error) {
	const looks, most = 20, 8
	first := o.Cache.Dir
	for n := 1; ; {
		server, err := m.mountOn(ctx, point, *o)
		switch {
		case !errors.Is(err, fusefs.ErrCacheInUse) || ctx.Err() != nil:
			return server, err
		case n >= looks && m.flags.CacheDir != "":
			return nil, hint(err, "name another place: --cache-dir DIR (cache=DIR in fstab)")
		case n >= looks+most:
			return nil, err
		case n >= looks:
			o.Cache.Dir = fmt.Sprintf("%s-%d", first, n-looks+2)
		default:
			within(moment, func() { <-ctx.Done() })
		}
		n++
	}
}

// mountOn mounts on a directory that is free, and that no other pitr looks at until
// it is not: two would be mounted one upon the other.
func (m mounting) mountOn(ctx context.Context, point string, o fusefs.Options) (*fusefs.Server, error) {
	lock, err := claim(ctx, point, m.call.log)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	server, err := fusefs.Mount(ctx, point, o)
	if err != nil {
		return nil, explained(err, o)
	}
	return server, nil
}

// attend waits for the end of a mount, and brings it about when a signal asks
// for it. One that was unmounted lazily, or has a copy in another mount namespace,
// ends with its last user.
func (m mounting) attend(ctx context.Context, server *fusefs.Server, at mountEntry, who herald) error {
	var err error
	select {
	case <-server.Ended():
		m.call.log.Info("unmounted", "dir", at.point)
	case <-ctx.Done():
		err = m.withdraw(context.Cause(ctx), at)
	}
	who.stopping()
	parting, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingTime)
	defer cancel()
	left := server.Close(parting)
	if errors.Is(left, context.DeadlineExceeded) {
		m.call.log.Warn("a question to an archive is left behind: it ends with this process", "dir", at.point)
		left = nil
	}
	return errors.Join(err, left)
}

// withdraw unmounts because of a signal, whether the mount is in use or not: nothing
// dead is left. What is mounted there by now may be another one.
func (m mounting) withdraw(why error, at mountEntry) error {
	all, err := readMounts()
	if now, found := mountedAt(all, at.point); err == nil && found && now.id == at.id {
		err = m.unmount(at, mountsBelow(all, at.point))
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", at.point, err)
	}
	m.call.log.Info("unmounted", "dir", at.point, "reason", why)
	if toldToEnd(why) {
		return nil
	}
	return why
}

// unmount takes what is in use out of sight, and tells whose it was.
func (m mounting) unmount(at mountEntry, inside []mountEntry) error {
	ctx := context.Background() // that of the call has ended
	err := unmount(ctx, at.point, plainly)
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	users, err := asked(partingTime/2, func() ([]string, error) { return usersOf(at, inside), nil })
	if err != nil {
		users = []string{"not known"} // /proc takes longer than a signal leaves us
	}
	m.call.log.Warn("it is in use, and is taken away all the same: those who use it get errors", "dir", at.point, "users", firstOf(users))
	return unmount(ctx, at.point, detach)
}

// firstOf names some users in a line that syslog takes whole.
func firstOf(users []string) string {
	const most = 10
	if more := len(users) - most; more > 0 {
		users = append(slices.Clip(users[:most]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(users, "; ")
}

// toldToEnd tells whether a signal is the ordinary way to end what serves.
func toldToEnd(cause error) bool {
	return errors.Is(cause, interrupted(syscall.SIGTERM)) || errors.Is(cause, interrupted(syscall.SIGINT))
}

// options are what is mounted, and how.
func (m mounting) options(cfg Config) (fusefs.Options, error) {
	o, err := m.flags.options()
	if err != nil {
		return o, err
	}
	cluster, err := clusterOf(m.dataDirectory(cfg))
	if err != nil {
		m.call.log.Warn("the archives cannot be held against the cluster", "pgdata", cfg.PGData, "reason", err)
	}
	o.Archives = cfg.archives(cfg.readFrom(), cluster, m.call.log)
	o.Source, o.Version, o.Log = m.source.shown(cfg), thisBuild().String(), m.call.log
	o.UID, o.GID, o.AllowOther, err = m.flags.owner(cfg.PGData)
	return o, err
}

// ask asks the archives whose they are, once. If none can be asked there is nothing to
// mount.
func (m mounting) ask(ctx context.Context, o *fusefs.Options) (err error) {
	if o.Known, err = fusefs.Ask(ctx, o.Archives, o.Log); err != nil {
		return err
	}
	if o.Cache.Bytes == 0 {
		o.Cache.Bytes = max(cacheDefault, leastSegments*o.Known.SegmentSize())
	}
	return nil
}

// dataDirectory is pgdata, where it is on this machine.
func (m mounting) dataDirectory(cfg Config) string {
	if cfg.PGData == "" || !isDataDirectory(cfg.PGData) {
		return ""
	}
	return cfg.PGData
}

// place chooses the cache's directory: one for each mount point, for two mounts
// cannot share one.
func (m mounting) place(o *fusefs.Options, point string) error {
	dir := m.flags.CacheDir
	if dir == "" {
		sum := sha256.Sum256([]byte(o.Source + "\x00" + point))
		above, err := m.call.cacheHome()
		if err != nil {
			return err
		}
		dir = filepath.Join(above, "pitr", hex.EncodeToString(sum[:8]))
	}
	var err error
	if o.Cache.Dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	return ownPlace("the cache", o.Cache.Dir, point, "--cache-dir DIR (cache=DIR in fstab)")
}

// cacheHome is where this user's programs keep what they can get again.
func (c *call) cacheHome() (string, error) {
	if c.uid == 0 && isHostRoot() {
		return "/var/cache", nil
	}
	if dir := getenv(c.environ, "XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	_, home := whoAmI(c.environ)
	if c.uid == 0 { // of a namespace: the list of users has another root
		home = getenv(c.environ, "HOME")
	}
	if !filepath.IsAbs(home) {
		return "", hint(errors.New("this user has no home directory for a cache"), "name a place: --cache-dir DIR (cache=DIR in fstab)")
	}
	return filepath.Join(home, ".cache"), nil
}

// isHostRoot tells whether user 0 is root also outside: not so in a user namespace,
// as unshare -Urm makes one. In doubt it is.
func isHostRoot() bool {
	first, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(first))
	return err != nil || len(f) < 2 || f[0] != "0" || f[1] == "0"
}
