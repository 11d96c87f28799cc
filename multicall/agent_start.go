package multicall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"pitr/backup/pg"
)

// startAgent starts an agent or a fetcher for the calls to come, where that is safe.
func (c *call) startAgent(cfg Config, id agentIdentity, place agentPlace, options ...string) error {
	if err := mayLeaveChild(id.pgdata); err != nil {
		return err
	}
	if err := place.make(); err != nil {
		c.log.Warn("no "+id.role()+" can be started", "reason", err)
		return err
	}
	return c.launchAgent(cfg, id, place, append(options, "--until-server-ends")...)
}

// launchAgent starts an agent in a session of its own, with nothing of ours open:
// it must not hold PostgreSQL's log. Nobody waits for it.
func (c *call) launchAgent(cfg Config, id agentIdentity, place agentPlace, options ...string) error {
	if err := place.make(); err != nil {
		return err
	}
	// Not while one is ending: this call's successor starts the next.
	release, err := place.hold()
	if err != nil {
		return err
	}
	release()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	verb := "run"
	if id.restores {
		verb = "fetch"
	}
	args := append([]string{"pitr", "agent", verb, "--data", id.pgdata}, options...)
	if cfg.File != "" {
		args = append(args, "-C", id.configFile)
	}
	cmd := exec.Cmd{
		Path: self, Args: append(args, id.flags...), Dir: "/", Env: c.environ,
		Stdin: null, Stdout: null, Stderr: null,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// mayLeaveChild refuses to leave a process behind where it would become the
// postmaster's child: its death by a signal restarts every session then. In
// doubt it does.
func mayLeaveChild(pgdata string) error {
	p, err := pg.ReadPostmaster(pgdata)
	switch {
	case err != nil:
		return err
	case p.PID == 1:
		return errors.New("the postmaster is process 1, and would adopt it")
	case !lives(p, pgdata):
		return errors.New("postmaster.pid names nobody that lives here")
	case p.Stopping:
		return errors.New("the server is stopping")
	}
	return nil
}

// lives tells whether the postmaster of a data directory is there: its process, which
// works in that directory, and not another one that got its number. In doubt it is.
func lives(p pg.Postmaster, pgdata string) bool {
	if errors.Is(syscall.Kill(p.PID, 0), syscall.ESRCH) {
		return false
	}
	there, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", p.PID))
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	here, herr := os.Stat(pgdata)
	return err != nil || herr != nil || os.SameFile(there, here)
}
