package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ahead is the question for a segment that the fetcher has fetched before it was
// asked for. Nothing replays meanwhile.
func (b *bench) ahead() *task {
	t := &task{name: "read ahead: a segment that the fetcher has ready"}
	var f *far
	var fetcher *exec.Cmd
	t.setUp = func(c choice) (err error) {
		t.contenders = []*contender{{
			name: "a Go program that exits", status: 1,
			command: func(int) *exec.Cmd { return exec.Command(b.path("nothing")) },
		}}
		if !c.rivals.MatchString(oursAhead) {
			return nil
		}
		data := b.path("ahead")
		if f, err = b.openFar(way{name: oursAhead, setUp: setUpAgent}, 0); err != nil {
			return err
		}
		if err := errors.Join(pushHere(f, b.segments[:c.rounds+1]), b.freshCopy(data, "")); err != nil {
			return err
		}
		if fetcher, err = f.startFetcher(data); err != nil {
			return err
		}
		call := func(n int) *exec.Cmd {
			cmd := f.withAgent(b.pitr, "restore_command", "-C", f.agentFile(), filepath.Base(b.segments[n]), "pg_wal/RECOVERYXLOG")
			cmd.Dir = data
			return cmd
		}
		placed := filepath.Join(data, "pg_wal", "RECOVERYXLOG")
		done := func(n int) error { return errors.Join(same(b.segments[n], placed), os.Remove(placed)) }
		t.contenders = append(t.contenders, &contender{
			name: oursAhead,
			// Long enough to fetch one; nobody tells when that is over.
			before:  func(int) error { time.Sleep(300 * time.Millisecond); return nil },
			command: func(n int) *exec.Cmd { return call(n + 1) },
			check:   func(n int) error { return done(n + 1) },
		})
		return errors.Join(silent(call(0)), done(0))
	}
	t.tearDown = func() (err error) {
		if fetcher != nil {
			err = fetcher.Process.Signal(syscall.SIGTERM)
			_ = fetcher.Wait() // it was told to end
		}
		if f != nil {
			err = errors.Join(err, f.close())
		}
		return err
	}
	return t
}

// oursAhead is pitr where it reads ahead.
const oursAhead = "pitr, zstd 1, read ahead"

// startFetcher starts a fetcher for a data directory without a server, and waits
// until it takes calls.
func (f *far) startFetcher(data string) (*exec.Cmd, error) {
	cmd := f.withAgent(f.b.pitr, "agent", "fetch", "-C", f.agentFile(), "--data", data)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err := waitUntil("the fetcher is there", func() (bool, error) {
		sockets, err := filepath.Glob(filepath.Join(f.path("agent"), "*.sock"))
		return len(sockets) > 0, err
	})
	if err != nil {
		return cmd, fmt.Errorf("%w (%v)", err, cmd.Process.Kill())
	}
	return cmd, nil
}
