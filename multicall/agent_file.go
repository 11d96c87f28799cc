package multicall

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A file goes over a socket as its descriptor (unix(7), SCM_RIGHTS), with the first
// byte of its answer.

// sendFile writes one message, and with it a file, if there is one.
func sendFile(c *net.UnixConn, message any, f *os.File, patience time.Duration) error {
	if f == nil {
		return send(c, message, patience)
	}
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	text = append(text, '\n')
	n, _, err := c.WriteMsgUnix(text, unix.UnixRights(int(f.Fd())), nil)
	if err == nil && n < len(text) {
		_, err = c.Write(text[n:])
	}
	return err
}

// fileConn is a connection that files may come over.
type fileConn struct {
	*net.UnixConn
	files []*os.File
}

// Read reads bytes, and keeps the files that come with them.
func (c *fileConn) Read(p []byte) (int, error) {
	rights := make([]byte, unix.CmsgSpace(4*mostFiles))
	n, m, _, _, err := c.ReadMsgUnix(p, rights)
	n = max(n, 0) // it is -1 after an error, which no Reader may return
	if m > 0 {
		err = errors.Join(err, c.keep(rights[:m]))
	}
	if n == 0 && err == nil && len(p) > 0 {
		err = errHungUp
	}
	return n, err
}

// mostFiles is how many files may come at once. One does.
const mostFiles = 4

func (c *fileConn) keep(rights []byte) error {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			c.files = append(c.files, os.NewFile(uintptr(fd), "restored"))
		}
	}
	return nil
}

// take returns the file that came, which the caller closes, or nil.
func (c *fileConn) take() *os.File {
	if len(c.files) == 0 {
		return nil
	}
	f := c.files[0]
	c.files = c.files[1:]
	return f
}

// Close closes the connection, and the files that nobody took.
func (c *fileConn) Close() error {
	for f := c.take(); f != nil; f = c.take() {
		_ = f.Close()
	}
	return c.UnixConn.Close()
}
