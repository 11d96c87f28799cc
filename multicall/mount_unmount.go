package multicall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// manner is how a mount is ended.
type manner int

const (
	plainly manner = iota // EBUSY if it is in use
	detach                // at once out of sight; it ends with its last user
)

// unmountHelper unmounts what belongs to a user who is not root: it is setuid root.
const unmountHelper = "fusermount3"

// unmount takes away what is mounted on a directory. EBUSY: it is in use.
func unmount(ctx context.Context, point string, how manner) error {
	flags := unix.UMOUNT_NOFOLLOW
	if how == detach {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(point, flags)
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	return unmountAsUser(ctx, point, how)
}

func unmountAsUser(ctx context.Context, point string, how manner) error {
	args := []string{"-u"}
	if how == detach {
		args = append(args, "-z")
	}
	helper, err := helperPath()
	if err != nil {
		return hint(fmt.Errorf("%w: only root may unmount without %s", syscall.EPERM, unmountHelper), "install fuse3, or do it as root")
	}
	cmd := exec.CommandContext(ctx, helper, append(args, "--", point)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	text := strings.TrimSpace(said.String())
	switch {
	case err == nil:
		return nil
	case strings.Contains(text, "busy"):
		return syscall.EBUSY
	case text == "":
		return fmt.Errorf("%s: %w", unmountHelper, err)
	}
	return errors.New(text)
}

// helperPath finds fusermount3, also where PATH is empty, as under some managers.
func helperPath() (string, error) {
	path, err := exec.LookPath(unmountHelper)
	if err != nil {
		path, err = exec.LookPath("/bin/" + unmountHelper)
	}
	return path, err
}
