package sshd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Keys are pairs of files: the private key's name and the same with .pub. They
// take a while to make; many servers may share them.
type Keys struct {
	Client   string // whoever logs in
	Host     string // the server
	Stranger string // neither
}

// NewKeys makes keys in a directory, for a user; nil is this process's.
func NewKeys(dir string, user *syscall.Credential) (Keys, error) {
	k := Keys{filepath.Join(dir, "client"), filepath.Join(dir, "host"), filepath.Join(dir, "stranger")}
	for _, path := range []string{k.Client, k.Host, k.Stranger} {
		cmd := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", filepath.Base(path), "-f", path)
		if out, err := cmd.CombinedOutput(); err != nil {
			return k, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
		for _, file := range []string{path, path + ".pub"} {
			if err := give(file, user); err != nil {
				return k, err
			}
		}
	}
	return k, nil
}

// give hands a file to the user that the server runs as.
func give(path string, user *syscall.Credential) error {
	if user == nil {
		return nil
	}
	return os.Lchown(path, int(user.Uid), int(user.Gid))
}
