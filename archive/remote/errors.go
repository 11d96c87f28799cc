package remote

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/pkg/sftp"

	"pitr/archive"
)

// What an operator may want to tell apart. Match them with errors.Is; each is a
// doubt about everything in the archive.
var (
	// ErrConnect: no connection came about.
	ErrConnect = errors.New("cannot connect")

	// ErrHostKey: the host's key is not known, or another one. It comes with
	// ErrConnect.
	ErrHostKey = errors.New("host key")

	// ErrLogin: the host does not let this user in. It comes with ErrConnect.
	ErrLogin = errors.New("log in")

	// ErrLost: the connection broke.
	ErrLost = errors.New("connection lost")

	// ErrNoSync: the far side cannot sync what it stores.
	ErrNoSync = errors.New("the server cannot sync what it stores")

	// ErrNoLinks: the far file system has no hard links.
	ErrNoLinks = errors.New("the far file system has no hard links")

	// errAppeared: a name that was absent a moment ago is there.
	errAppeared = errors.New("it was absent, and is there now")

	// errLiar: an answer that makes no sense.
	errLiar = errors.New("the server's answer makes no sense")
)

// isFailure tells whether the server said no more than "failure".
func isFailure(err error) bool {
	return errors.Is(err, sftp.ErrSSHFxFailure) || statusCode(err) == uint32(sftp.ErrSSHFxFailure)
}

// isUnsupported tells whether the server does not know such a request.
func isUnsupported(err error) bool {
	return statusCode(err) == uint32(sftp.ErrSSHFxOpUnsupported)
}

func statusCode(err error) uint32 {
	var status *sftp.StatusError
	if errors.As(err, &status) {
		return status.Code
	}
	return 0
}

// isLost tells whether an operation failed because its connection did. The
// library has no better name for a request that could not be sent.
func isLost(err error) bool {
	for _, lost := range []error{ErrLost, sftp.ErrSSHFxConnectionLost, io.ErrClosedPipe, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return err != nil && strings.Contains(err.Error(), "failed to send packet")
}

// unproven is an error that must not be taken for an answer about the name.
func unproven(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
		return errors.New(err.Error())
	}
	return err
}

// about says which operation on which name failed.
func about(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

// spaceOf explains a bare "failure" to write by the state of the far file
// system, if that explains it.
func spaceOf(vfs *sftp.StatVFS) error {
	const readOnly = 1 // SSH_FXE_STATVFS_ST_RDONLY
	switch {
	case vfs.Flag&readOnly != 0:
		return archive.WithHint(syscall.EROFS, "the file system on the far side was mounted, or has become, read-only")
	// A packet fails that does not fit, and what of it did fit is free again.
	case vfs.Bavail*vfs.Frsize < mostUnanswered:
		return archive.WithHint(syscall.ENOSPC, "make room on the far side: pitr wal prune, or a larger disk")
	case vfs.Files > 0 && vfs.Favail == 0:
		return archive.WithHint(fmt.Errorf("%w: no inodes are left", syscall.ENOSPC), "make room on the far side")
	}
	return nil
}
