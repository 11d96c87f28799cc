package multicall

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"pitr/fusefs"
)

const (
	fuseDevice = "/dev/fuse"
	fuseConfig = "/etc/fuse.conf"
)

// mountFacts are what decides whether a process may mount by FUSE.
type mountFacts struct {
	device    error // of opening /dev/fuse
	root      bool
	capable   bool // of mounting: CAP_SYS_ADMIN
	helper    bool // fusermount3 is there
	others    bool // other users were to be let in
	mayOthers bool // /etc/fuse.conf allows that to users
}

// explained adds to a failed mount what is missing, and how to provide it.
func explained(err error, o fusefs.Options) error {
	if errors.Is(err, fusefs.ErrCacheUnsafe) {
		return hint(err, "what is in the cache is what PostgreSQL replays: delete it, or see that it is a directory that only the user who mounts can write to; or name another place: --cache-dir DIR (cache=DIR in fstab)")
	}
	hints := gatherFacts(o).hints()
	if len(hints) == 0 && inContainer() && errors.Is(err, fs.ErrPermission) {
		hints = []string{"a profile of AppArmor or SELinux may forbid mounts in containers: --security-opt apparmor=unconfined"}
	}
	for _, h := range slices.Backward(hints) { // the outermost is shown first
		err = hint(err, "%s", h)
	}
	return err
}

func gatherFacts(o fusefs.Options) mountFacts {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
	}
	_, lost := helperPath()
	config, _ := os.ReadFile(fuseConfig)
	return mountFacts{
		device: err, root: os.Geteuid() == 0, capable: mayMount(), helper: lost == nil,
		others: o.AllowOther, mayOthers: allowsOthers(config),
	}
}

// hints are the ways out, the most likely first.
func (f mountFacts) hints() []string {
	var all []string
	switch {
	case errors.Is(f.device, fs.ErrNotExist):
		all = append(all, fuseDevice+" is missing: modprobe fuse; a container needs --device /dev/fuse --cap-add SYS_ADMIN")
	case errors.Is(f.device, syscall.ENODEV), errors.Is(f.device, syscall.ENXIO):
		all = append(all, "the kernel does not know FUSE: modprobe fuse, on the host of a container")
	case f.device != nil && f.root:
		all = append(all, fmt.Sprintf("%s cannot be opened (%v): a container needs --device /dev/fuse --cap-add SYS_ADMIN; a user namespace needs mode 0666 of it outside", fuseDevice, syscallText(f.device)))
	case f.device != nil:
		all = append(all, fmt.Sprintf("%s cannot be opened (%v): chmod 666 %s (udev does that where fuse3 is installed), or mount as root", fuseDevice, syscallText(f.device), fuseDevice))
	}
	if f.root && !f.capable {
		all = append(all, "this root has no CAP_SYS_ADMIN here: a container needs --cap-add SYS_ADMIN --device /dev/fuse")
	}
	if !f.root && !f.capable && !f.helper {
		all = append(all, unmountHelper+" is not there, which mounts for users: install fuse3, or mount as root")
	}
	if !f.root && !f.capable && f.others && !f.mayOthers {
		all = append(all, fmt.Sprintf("to let other users in, %s needs a line user_allow_other; or mount as root, or as the user who reads", fuseConfig))
	}
	return all
}

// syscallText is an error without the call and the file.
func syscallText(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// allowsOthers reads fuse.conf as fusermount does.
func allowsOthers(config []byte) bool {
	lines := bufio.NewScanner(bytes.NewReader(config))
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "user_allow_other" {
			return true
		}
	}
	return false
}

// mayMount tells whether this process has CAP_SYS_ADMIN in its own user namespace.
func mayMount() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return os.Geteuid() == 0
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:\t")
	mask, _, _ := strings.Cut(after, "\n")
	n, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && n&(1<<unix.CAP_SYS_ADMIN) != 0
}

// inContainer is a guess by what the usual engines leave.
func inContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
