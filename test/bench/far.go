package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pitr/test/proxy"
	"pitr/test/sshd"
)

// far is one contender's far side: a directory, and an sshd to reach it by.
type far struct {
	b      *bench
	dir    string // belongs to the user; there is stored below it
	server *sshd.Server
	proxy  *proxy.Proxy // nil if it is near
	host   string       // with port, where clients connect
	port   string
	master *exec.Cmd // of OpenSSH; nil if nobody wants one
}

// newFar starts a far side that is a round trip away. A command may run its
// sshd, as strace does.
func (b *bench) newFar(roundTrip time.Duration, under ...string) (*far, error) {
	b.fars++
	f := &far{b: b, dir: b.path(fmt.Sprintf("far%d", b.fars))}
	if err := b.directory(f.dir); err != nil {
		return nil, err
	}
	var err error
	if f.server, err = sshd.New(sshd.Config{Dir: f.dir, User: b.user, Keys: b.keys, Under: under}); err != nil {
		return nil, err
	}
	if err := f.server.Start(); err != nil {
		return nil, err
	}
	addr := f.server.Addr()
	if roundTrip > 0 {
		if f.proxy, err = proxy.Listen(addr, proxy.Distance(roundTrip)); err != nil {
			return nil, errors.Join(err, f.close())
		}
		addr = f.proxy.Addr()
	}
	f.host, f.port, err = net.SplitHostPort(addr)
	return f, errors.Join(err, f.server.Know(addr))
}

func (f *far) close() error {
	var err error
	if f.master != nil {
		err = f.master.Process.Kill()
		_ = f.master.Wait() // it was killed
	}
	if f.proxy != nil {
		err = errors.Join(err, f.proxy.Close())
	}
	return errors.Join(err, f.server.Stop())
}

func (f *far) path(name string) string { return filepath.Join(f.dir, name) }

// ssh are a program of OpenSSH and the options by which it finds this side.
func (f *far) ssh(program string, options ...string) []string {
	return append([]string{program, "-F", f.server.ClientFile, "-o", "Port=" + f.port}, options...)
}

// control is where OpenSSH's clients find the connection that is kept for them.
func (f *far) control() string { return f.path("control") }

// keepConnection starts a ControlMaster and waits until it takes clients.
func (f *far) keepConnection() error {
	args := f.ssh("ssh", "-M", "-S", f.control(), "-N", f.host)
	f.master = f.b.command(nil, args...)
	f.master.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := f.master.Start(); err != nil {
		f.master = nil
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(f.control()); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the ControlMaster does not answer")
		}
	}
}

// masterTime is the CPU time that the ControlMaster has used.
func (f *far) masterTime() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", f.master.Process.Pid))
	if err != nil {
		return 0, err
	}
	running, _, _ := strings.Cut(string(b), " ")
	ns, err := strconv.ParseInt(running, 10, 64)
	return time.Duration(ns), err
}

// waitIdle waits until no session is there any more.
func (f *far) waitIdle() error {
	for end := time.Now().Add(10 * time.Second); len(f.server.Processes("sshd: "+f.server.User)) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("a session does not end")
		}
	}
	return nil
}
