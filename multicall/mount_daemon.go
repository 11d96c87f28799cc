package multicall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// daemon is the process that serves a mount.
type daemon struct {
	pid     int
	command string
	stopped bool // by a signal or a debugger
}

// daemonOf finds who serves a mount, among the processes that let us look: all of them
// root, their own a user.
func daemonOf(m mountEntry) (daemon, bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return daemon{}, false
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if dir := filepath.Join("/proc", e.Name()); err == nil && serves(dir, m) {
			return daemon{pid, commandOf(dir), isStopped(dir)}, true
		}
	}
	return daemon{}, false
}

// serves tells whether a process has the connection of a mount open. Kernels before
// 6.18 do not say which one a descriptor is: there its last word is the mount point.
func serves(process string, m mountEntry) bool {
	descriptors, _ := os.ReadDir(filepath.Join(process, "fd"))
	for _, d := range descriptors {
		to, err := os.Readlink(filepath.Join(process, "fd", d.Name()))
		if err != nil || to != fuseDevice {
			continue
		}
		info, _ := os.ReadFile(filepath.Join(process, "fdinfo", d.Name()))
		if _, after, told := strings.Cut(string(info), "fuse_connection:"); told {
			number, _, _ := strings.Cut(after, "\n")
			if strings.TrimSpace(number) == connectionOf(m) {
				return true
			}
			continue
		}
		line, _ := os.ReadFile(filepath.Join(process, "cmdline"))
		words := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if slices.Contains(words, "mount") && words[len(words)-1] == m.point {
			return true
		}
	}
	return false
}

// connectionOf is the number of a mount's connection.
func connectionOf(m mountEntry) string {
	_, minor, _ := strings.Cut(m.device, ":")
	return minor
}

// isStopped reads the state of a process.
func isStopped(process string) bool {
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	at := bytes.LastIndexByte(stat, ')') // before it stands the command, which may be anything
	return err == nil && at >= 0 && at+2 < len(stat) && bytes.IndexByte([]byte("Tt"), stat[at+2]) >= 0
}

// life is what became of the mount's daemon. To ask one that is stopped would take time,
// and of a user's mount root would learn nothing.
func (m mountEntry) life() life {
	if d, found := daemonOf(m); found && d.stopped {
		return silent
	}
	return lifeOf(m.point)
}

// abort takes a mount away whose daemon hangs. Who waits for an answer gets an error by
// it: until then not even SIGKILL ends those whose question the daemon has taken.
// aborted is false if only the mount is gone, and they wait on.
func abort(ctx context.Context, m mountEntry) (aborted bool, err error) {
	err = unix.Unmount(m.point, unix.UMOUNT_NOFOLLOW|unix.MNT_FORCE|unix.MNT_DETACH)
	if !errors.Is(err, syscall.EPERM) {
		return err == nil, err
	}
	control := filepath.Join("/sys/fs/fuse/connections", connectionOf(m), "abort") // belongs to who mounted
	aborted = os.WriteFile(control, []byte("1"), 0) == nil
	return aborted, unmount(ctx, m.point, detach)
}

// silentHint says what to do about a mount that gives no answer.
func silentHint(m mountEntry) string {
	who := "its daemon"
	if d, found := daemonOf(m); found {
		who = fmt.Sprintf("its daemon, process %d (%s),", d.pid, d.command)
	}
	return fmt.Sprintf("%s is stopped, or hangs; pitr umount --lazy %s ends the mount, and who waits for it gets an error", who, m.point)
}
