package multicall

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// holder is a process that keeps a mount from being unmounted.
type holder struct {
	pid     int
	command string
	holds   []string // "working directory /mnt/a/wal", "open file /mnt/a/wal/..."
}

func (h holder) String() string {
	const most = 3
	held := h.holds
	if len(held) > most {
		held = append(slices.Clip(held[:most]), fmt.Sprintf("%d more", len(h.holds)-most))
	}
	return fmt.Sprintf("process %d (%s): %s", h.pid, h.command, strings.Join(held, ", "))
}

// holders finds who uses a mount, from /proc. Only links are read there: to ask
// for the files behind them would ask the mount, which may hang. unseen is how many
// processes do not let us look: those of other users, unless we are root.
func holders(m mountEntry) (found []holder, unseen int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, 0
	}
	here, _ := os.Readlink("/proc/self/ns/mnt")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		there, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
		if os.IsPermission(err) {
			unseen++
			continue
		}
		if there != here {
			continue // another mount namespace has a mount of its own
		}
		if holds := heldBy(dir, m); len(holds) > 0 {
			found = append(found, holder{pid, commandOf(dir), holds})
		}
	}
	return found, unseen
}

// heldBy is what a process has on a mount.
func heldBy(process string, m mountEntry) []string {
	var holds []string
	add := func(what, link string) {
		to, err := os.Readlink(filepath.Join(process, link))
		if to = strings.TrimSuffix(to, " (deleted)"); err == nil && below(to, m.point) {
			holds = append(holds, what+" "+to)
		}
	}
	add("working directory", "cwd")
	add("root", "root")
	add("program", "exe")
	descriptors, _ := os.ReadDir(filepath.Join(process, "fd"))
	for _, d := range descriptors {
		add("open file", filepath.Join("fd", d.Name()))
	}
	holds = append(holds, mappedBy(process, m)...)
	if len(holds) == 0 && waitsForFUSE(process) {
		holds = []string{"waits for an answer of a FUSE file system, perhaps this one"}
	}
	return holds
}

// waitsForFUSE tells whether a process is asking for a file it has not opened yet: by
// the kernel's function that it sleeps in, which root may see.
func waitsForFUSE(process string) bool {
	asleep, err := os.ReadFile(filepath.Join(process, "wchan"))
	return err == nil && string(asleep) == "request_wait_answer"
}

// mappedBy is what a process has mapped into its memory, whether the file is
// still open or not.
func mappedBy(process string, m mountEntry) []string {
	raw, err := os.ReadFile(filepath.Join(process, "maps"))
	if err != nil {
		return nil
	}
	device := inHex(m.device)
	var holds []string
	for line := range bytes.Lines(raw) {
		// address perms offset dev inode path
		f := strings.Fields(string(line))
		if len(f) < 6 || f[3] != device {
			continue
		}
		what := "mapped file " + octalDecoded(strings.Join(f[5:], " "))
		if !slices.Contains(holds, what) {
			holds = append(holds, what)
		}
	}
	return holds
}

// inHex is a device as /proc/PID/maps writes it.
func inHex(device string) string {
	major, minor, _ := strings.Cut(device, ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if err1 != nil || err2 != nil {
		return ""
	}
	return fmt.Sprintf("%02x:%02x", a, b)
}

// commandOf is what a process calls itself.
func commandOf(process string) string {
	line, err := os.ReadFile(filepath.Join(process, "cmdline"))
	words := strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
	if err != nil || words == "" {
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		words = strings.TrimSpace(string(name))
	}
	const longest = 60
	if len(words) > longest {
		words = strings.ToValidUTF8(words[:longest], "") + "..."
	}
	return words
}
