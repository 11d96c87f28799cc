package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// shipper is a way to archive more than one file: a process that outlives a call
// may help.
type shipper struct {
	name    string
	agent   bool // pitr's; each run begins without one and ends the one it has started
	warm    bool // a connection is there already
	setUp   func(*far) error
	clear   func(*far) error // what is stored is gone
	command func(*far) string
	stored  func(f *far, segment string) error // compares
}

const (
	yardstick = "pgBackRest, zst 1, asynchronous, 2 processes"
	ours      = "pitr with its agent, zstd 1"
	rivalSCP  = "scp, warm ControlMaster, cannot sync"
	localCopy = "dd conv=fsync to this disk"
)

// shippers begin with the yardstick.
var shippers = []shipper{
	{name: yardstick, setUp: setUpPgBackRest, clear: clearPgBackRest, command: shipPgBackRest, stored: inRepository},
	{name: ours, agent: true, setUp: setUpAgent, clear: clearPitr, command: shipPitr, stored: storedPitr},
	{name: rivalSCP, warm: true, setUp: makeStore, clear: clearStore, command: shipSCP, stored: storedPlain},
	{name: localCopy, setUp: makeStore, clear: clearStore, command: shipCopy, stored: storedPlain},
}

func clearStore(f *far) error { return errors.Join(os.RemoveAll(f.path("store")), makeStore(f)) }

func shipSCP(f *far) string {
	return strings.Join(f.ssh("scp", "-q", "-o", "ControlPath="+f.control(), "%p", f.host+":"+f.path("store")+"/"), " ")
}

func shipCopy(f *far) string {
	return "dd if=%p of=" + f.path("store") + "/%f bs=1M conv=fsync"
}

// clearPgBackRest also forgets what the spool says about the last run.
func clearPgBackRest(f *far) error {
	err := errors.Join(os.RemoveAll(f.path("repository")), os.RemoveAll(f.path("spool")))
	return errors.Join(err, silent(f.pgBackRest("repository.conf", "--no-online", "stanza-create")))
}

func shipPgBackRest(f *far) string {
	return strings.Join([]string{"pgbackrest", "--config=" + f.path("server.conf"), "--stanza=main", "--archive-async", "--process-max=2", "archive-push", "%p"}, " ")
}

// inRepository reads a stored segment with zstd: asking pgBackRest for 64 of
// them takes long.
func inRepository(f *far, segment string) error {
	name := filepath.Base(segment)
	found, err := filepath.Glob(filepath.Join(f.path("repository"), "archive", "main", "*", name[:16], name+"-*.zst"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("%s is in the repository %d times (%v)", name, len(found), err)
	}
	return sameZstd(segment, found[0])
}

// agentFile is the configuration of a far side that is reached by an agent.
func (f *far) agentFile() string { return f.path("pitr.ini") }

func (f *far) agentSettings() string {
	return strings.Join([]string{"[DEFAULT]",
		"archive = sftp://" + f.server.User + "@" + f.host + ":" + f.port + f.path("archive"),
		"pgdata = " + f.b.data(),
		"identity_file = " + f.server.Identity, "known_hosts = " + f.server.KnownHosts,
		"agent = auto", ""}, "\n")
}

// agentPlace says where the agent is. In the file it would cost a call the time to
// read that before it can ask; an operator leaves agent_dir as it is.
func (f *far) agentPlace() []string { return []string{"PITR_AGENT_DIR=" + f.path("agent")} }

// withAgent is pitr with that configuration.
func (f *far) withAgent(args ...string) *exec.Cmd {
	return f.b.command(f.agentPlace(), args...)
}

func setUpAgent(f *far) error {
	if err := f.b.file(f.agentFile(), f.agentSettings()); err != nil {
		return err
	}
	if err := f.b.directory(f.path("agent")); err != nil {
		return err
	}
	return errors.Join(os.Chmod(f.path("agent"), 0o700), f.initArchive())
}

func (f *far) initArchive() error {
	return silent(f.withAgent(f.b.pitr, "init", "--force", "-C", f.agentFile()))
}

func clearPitr(f *far) error { return errors.Join(os.RemoveAll(f.path("archive")), f.initArchive()) }

func shipPitr(f *far) string {
	return f.b.pitr + " archive_command -C " + f.agentFile() + " %p"
}

// agent is pitr agent with this subcommand.
func (f *far) agent(args ...string) []string {
	return append(append([]string{f.b.pitr, "agent"}, args...), "-C", f.agentFile(), "--pgdata", f.b.data())
}

func (f *far) agentStatus() []string { return f.agent("status", "--json") }

// agentIs is the agent's process, or 0.
func (f *far) agentIs() (int, error) {
	return agentPID(f.withAgent(f.agentStatus()...))
}

// endAgent ends the agent, if there is one.
func (f *far) endAgent() error {
	pid, err := f.agentIs()
	if err != nil || pid == 0 {
		return err
	}
	if err := silent(f.withAgent(f.agent("stop")...)); err != nil {
		return err
	}
	return waitUntil("the agent has ended", func() (bool, error) {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
		return errors.Is(err, fs.ErrNotExist), nil
	})
}

// agentTime is the CPU time that the agent and what it has started have used.
func (f *far) agentTime() (time.Duration, error) {
	pid, err := f.agentIs()
	if err != nil || pid == 0 {
		return 0, errors.Join(err, errors.New("there is no agent"))
	}
	return timeOf(append(descendants(pid), pid))
}

// sameZstd compares a segment with what a compressed file holds.
func sameZstd(segment, stored string) error {
	return silent(exec.Command("sh", "-c", `zstd -dcq "$1" | cmp - "$2"`, "sh", stored, segment))
}
