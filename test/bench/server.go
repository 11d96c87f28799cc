package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// data is the data directory of the server that has made the WAL.
func (b *bench) data() string {
	if b.own != "" {
		return b.own
	}
	return b.path("server", "d")
}

// postmaster is a running server that does not archive: the bench does that for
// it. An agent lives as long as it does.
type postmaster struct{ cmd *exec.Cmd }

// startServer starts the server that has made the WAL. With archive_mode off it
// would remove WAL that a checkpoint has no need of; wal_keep_size keeps it.
func (b *bench) startServer() (*postmaster, error) { return b.startServerOn(b.data()) }

func (b *bench) startServerOn(data string) (*postmaster, error) {
	return startPostmaster(b.command(nil, filepath.Join(b.server, "postgres"), "-D", data, "-c", "archive_mode=off"), data)
}

// startPostmaster starts a server and waits until it takes clients.
func startPostmaster(cmd *exec.Cmd, data string) (*postmaster, error) {
	log, err := os.Create(data + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &postmaster{cmd}
	const most = 10 * time.Minute // a recovery over a slow way
	err = waitWithin(most, "the server is ready", func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
		lines := strings.Split(string(text), "\n")
		return err == nil && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready", nil
	})
	if err != nil {
		_ = p.stop() // the first error is why
		return nil, fmt.Errorf("%w: see %s", err, log.Name())
	}
	return p, nil
}

// abandon ends a server whose data directory nobody needs any more.
func (p *postmaster) abandon() error {
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	_ = p.cmd.Wait() // it says that it was interrupted
	return nil
}

func (p *postmaster) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	return p.cmd.Wait()
}

// waits makes these segments wait for the archiver, and no others.
func (b *bench) waits(data string, segments []string) error {
	status := filepath.Join(data, "pg_wal", "archive_status")
	old, err := filepath.Glob(filepath.Join(status, "*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for _, segment := range segments {
		if err := b.file(statusFile(data, filepath.Base(segment), ".ready"), ""); err != nil {
			return err
		}
	}
	return nil
}

// inPGWAL is where the server has these segments: the contenders read them there.
func (b *bench) inPGWAL(segments []string) (paths []string) {
	for _, segment := range segments {
		paths = append(paths, filepath.Join(b.data(), "pg_wal", filepath.Base(segment)))
	}
	return paths
}

// cool empties the cache of all that is on stable storage, and reads again what
// lies near: it is the far side that is cold.
func (b *bench) cool(near []string, programs ...string) error {
	if err := silent(exec.Command("sync")); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		if !b.warned {
			fmt.Printf("\nThe cache is warm on the far side, too: %v.\n", err)
			b.warned = true
		}
		return nil
	}
	for _, program := range programs {
		path, err := exec.LookPath(program)
		if err != nil {
			return err
		}
		near = append(near, path)
	}
	return silent(exec.Command("sh", append([]string{"-c", `cat "$@" >/dev/null`, "sh"}, near...)...))
}
