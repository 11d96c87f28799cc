package multicall

import (
	"fmt"
	"net"
	"strings"
)

// notifyVariable names the socket of a service manager: sd_notify(3).
const notifyVariable = "NOTIFY_SOCKET"

// notifyManager tells the service manager, if there is one, how far we are:
// "READY=1", "STOPPING=1". A name that begins with @ is one of Linux' abstract
// sockets.
func (c *call) notifyManager(state string) error {
	path := getenv(c.environ, notifyVariable)
	if path == "" {
		return nil
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return fmt.Errorf("%s=%s: neither a path nor an abstract socket", notifyVariable, path)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
