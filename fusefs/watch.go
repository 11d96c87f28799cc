package fusefs

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watchEvery is how often mounts are looked at without a sign that they changed.
const watchEvery = time.Second

// grace is how long the kernel has to end a mount that is gone.
const grace = 2 * time.Second

// deviceOf is the number that mountinfo has for what is mounted on a directory;
// empty if nothing is known.
func deviceOf(dir string) (device string) {
	for _, f := range mounts() {
		if unescape(f[4]) == dir {
			device = f[2] // the last one lies on top
		}
	}
	return device
}

// mounts are the lines of mountinfo, in fields.
func mounts() (all [][]string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			all = append(all, f)
		}
	}
	return all
}

// unescape reads a path as it stands in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// widen lets the kernel read far ahead in files that it does not read by itself. Only
// root may; without it all is well, but slower.
func widen(device string) {
	const kilobytes = "1024"
	_ = os.WriteFile("/sys/class/bdi/"+device+"/read_ahead_kb", []byte(kilobytes), 0)
}

// watch closes gone when nothing of the mount is to be seen any more, although the
// kernel has not ended it: a process with mounts of its own (a container, a unit with
// PrivateTmp) has a copy of it, and unmounting ours does not unmount that.
func (s *Server) watch(device string) {
	defer close(s.watched)
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer table.Close()
	for s.shows(device) {
		// The kernel says when the table changes; but not to be told is not to
		// be blind.
		fds := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}}
		_, _ = unix.Poll(fds, int(watchEvery/time.Millisecond))
		select {
		case <-s.served:
			return
		default:
		}
	}
	select {
	case <-s.served:
	case <-time.After(grace):
		s.tree.source.Log.Warn("unmounted, but an open file or another mount namespace still has it; it ends with this process", "dir", s.dir)
		close(s.gone)
	}
}

// shows tells whether a mount is to be seen. In doubt it is.
func (s *Server) shows(device string) bool {
	all := mounts()
	for _, f := range all {
		if f[2] == device {
			return true
		}
	}
	return len(all) == 0
}
