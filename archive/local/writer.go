package local

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"pitr/archive/files"
)

// Writer describes this process to package files. What the system does not tell
// stays empty, and then proves nothing.
func Writer() files.Writer {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		namespace = ""
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		machine = nil
	}
	return files.Writer{
		Host:         hostName(lettersAndDigits(host, 40), lettersAndDigits(string(machine), 8)),
		Boot:         lettersAndDigits(string(boot), 32),
		PIDNamespace: lettersAndDigits(path.Base(namespace), 20),
		PID:          os.Getpid(),
		Alive:        alive,
	}
}

// hostName needs both parts: two hosts may have one name and see each other's
// files on NFS, and a container without a machine id shares its name with many.
func hostName(host, machine string) string {
	if host == "" || machine == "" {
		return ""
	}
	return host + "." + machine
}

// alive tells whether a process lives. EPERM means that it does, and so does
// everything else that is not "no such process".
func alive(pid int) bool {
	return !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// lettersAndDigits keeps what may stand between hyphens in a file name.
func lettersAndDigits(s string, most int) string {
	kept := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.':
			return r
		}
		return -1
	}, s)
	return kept[:min(len(kept), most)]
}
