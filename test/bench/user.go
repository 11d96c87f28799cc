package main

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	"pitr/test/sshd"
)

// chooseUser finds who archives and who serves: postgres if this is root. It
// gets keys, and a copy of pitr that it may run.
func (b *bench) chooseUser() error {
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		b.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := silent(exec.Command("cp", b.pitr, b.path("pitr"))); err != nil {
		return err
	}
	b.pitr = b.path("pitr")
	keys := b.path("keys")
	if err := b.directory(keys); err != nil {
		return err
	}
	var err error
	b.keys, err = sshd.NewKeys(keys, b.user)
	return err
}

// directory makes a directory for the user, and file a file.
func (b *bench) directory(path string) error {
	return errors.Join(os.Mkdir(path, 0o755), b.give(path))
}

func (b *bench) file(path, content string) error {
	return errors.Join(os.WriteFile(path, []byte(content), 0o644), b.give(path))
}

func (b *bench) give(path string) error {
	if b.user == nil {
		return nil
	}
	return os.Lchown(path, int(b.user.Uid), int(b.user.Gid))
}

// command is a command of the user's, with nothing in its environment that is
// not needed.
func (b *bench) command(environment []string, args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.dir
	cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + b.dir, "LC_ALL=C"}, environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.user}
	return cmd
}
