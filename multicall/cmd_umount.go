package multicall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// umountCmd is `pitr umount`.
type umountCmd struct {
	Dir  string `arg:"" help:"Where the archive is mounted."`
	Lazy bool   `help:"Take it out of sight now, though it is in use: it ends with its last user."`
}

// Run unmounts an archive. Busy is an error that names the holders.
func (u *umountCmd) Run(ctx context.Context, c *call) error {
	point, err := realDirectory(u.Dir)
	if err != nil {
		return missing(err, u.Dir)
	}
	all, err := readMounts()
	if err != nil {
		return err
	}
	m, err := pitrAt(all, point)
	if err != nil {
		return err
	}
	if u.Lazy {
		err = c.unmountLazily(ctx, m)
	} else {
		err = unmountPatiently(ctx, point)
	}
	switch {
	case errors.Is(err, syscall.EBUSY):
		return c.unmountBusy(ctx, m, mountsBelow(all, point))
	case err != nil && m.owner != os.Geteuid():
		return hint(fmt.Errorf("unmount %s: %w", point, err), "it was mounted by user %d: only that user and root may unmount it", m.owner)
	case err != nil:
		return fmt.Errorf("unmount %s: %w", point, err)
	}
	return nil
}

// unmountPatiently unmounts what is not in use. The kernel lets go of what a process
// had open a moment after that has ended: nobody is to be named then.
func unmountPatiently(ctx context.Context, point string) error {
	const tries, pause = 5, 100 * time.Millisecond
	for n := 1; ; n++ {
		err := unmount(ctx, point, plainly)
		if !errors.Is(err, syscall.EBUSY) || n == tries {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unmountLazily takes a mount out of sight. One whose daemon hangs is aborted: its users
// could not even be killed.
func (c *call) unmountLazily(ctx context.Context, m mountEntry) error {
	if m.life() != silent {
		return unmount(ctx, m.point, detach)
	}
	d, found := daemonOf(m)
	aborted, err := abort(ctx, m)
	if err != nil || aborted {
		return err
	}
	who := "pgrep -af 'pitr mount' shows it"
	if found {
		who = fmt.Sprintf("process %d (%s)", d.pid, d.command)
	}
	c.log.Warn("unmounted, but its daemon hangs: who waits for it cannot even be killed before kill -9 has ended the daemon", "dir", m.point, "daemon", who)
	return nil
}

// unmountBusy refuses to unmount what is in use, unless it is dead: nobody loses
// anything by its end then.
func (c *call) unmountBusy(ctx context.Context, m mountEntry, inside []mountEntry) error {
	refusal := busy(m, inside) // before we hold it ourselves
	switch m.life() {
	case dead:
		if err := unmount(ctx, m.point, detach); err != nil {
			return fmt.Errorf("unmount %s, which is dead: %w", m.point, err)
		}
		_, err := fmt.Fprintf(c.stdout, "%s: a dead mount was cleared\n", m.point)
		return err
	case silent:
		return hint(refusal, "%s", silentHint(m))
	}
	return refusal
}

// pitrAt is the mount of an archive at a directory.
func pitrAt(all []mountEntry, point string) (mountEntry, error) {
	m, found := mountedAt(all, point)
	switch {
	case found && m.isPitr():
		return m, nil
	case found:
		return m, hint(fmt.Errorf("%s is not a mount of pitr: it is %s of type %s", point, m.source, m.kind), "umount %s", point)
	}
	err := fmt.Errorf("nothing is mounted on %s", point)
	if around, _, ok := mountOf(all, point); ok && around.isPitr() {
		return m, hint(err, "the archive is mounted on %s", around.point)
	}
	for _, e := range all {
		if e.isPitr() {
			return m, hint(err, "archives are mounted on: %s", strings.Join(pitrPoints(all), ", "))
		}
	}
	return m, hint(err, "no archive is mounted here")
}

func pitrPoints(all []mountEntry) []string {
	var points []string
	for _, e := range all {
		if e.isPitr() {
			points = append(points, e.point)
		}
	}
	return points
}

// busy says who uses a mount.
func busy(m mountEntry, inside []mountEntry) error {
	return hint(fmt.Errorf("%s is in use: %s", m.point, strings.Join(usersOf(m, inside), "; ")),
		"end what uses it; or pitr umount --lazy %s, after which it lives on, out of sight, until the last of them has ended", m.point)
}

// usersOf lists what holds a mount.
func usersOf(m mountEntry, inside []mountEntry) []string {
	var users []string
	for _, e := range inside {
		users = append(users, fmt.Sprintf("a mount on %s", e.point))
	}
	found, unseen := holders(m)
	for _, h := range found {
		users = append(users, h.String())
	}
	if unseen > 0 && os.Geteuid() != 0 {
		users = append(users, fmt.Sprintf("perhaps others: root may look at %d more", unseen))
	}
	if len(users) == 0 {
		users = []string{"nobody that /proc shows: somebody in another mount namespace, or the kernel itself"}
	}
	return users
}
