package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// restorer is a way to give a recovery its WAL.
type restorer struct {
	name  string
	warm  bool // a connection is there already
	fuse  bool // it mounts something
	setUp func(*far) error
	// store brings the segments to the far side.
	store func(f *far, segments []string) error
	// clear forgets what an earlier recovery has left on this side; nil if nothing.
	clear   func(*far) error
	command func(f *far, data string) string
	// mount mounts the archive at f.path("mount"), in the foreground; nil if nothing is.
	mount func(*far) []string
}

const (
	plainCopy    = "cp from this disk"
	pgBackRest   = "pgBackRest, asynchronous"
	pgBackRestGB = "pgBackRest, asynchronous, 2 processes, a queue of 1 GiB"
	rivalSSHFS   = "sshfs, cp"
)

// restorers begin with what every recovery is held against.
var restorers = []restorer{
	{name: plainCopy, setUp: makeStore, store: link, command: restoreCopy("store")},
	{name: "pitr, zstd 1", setUp: setUpAgent, store: pushHere, command: restorePitr},
	{name: pgBackRest, setUp: setUpPgBackRest, store: pushToRepository, clear: clearSpool, command: restorePgBackRest()},
	{name: pgBackRestGB, setUp: setUpPgBackRest, store: pushToRepository, clear: clearSpool, command: restorePgBackRest("--process-max=2", "--archive-get-queue-max=1GiB")},
	{name: rivalSSHFS, fuse: true, setUp: setUpSSHFS, store: link, mount: mountSSHFS, command: restoreCopy("mount")},
	{name: "pitr mount, restore_command", fuse: true, setUp: setUpMount, store: pushHere, clear: clearCache, mount: mountPitr, command: restoreMounted},
	{name: "pitr mount, cp", fuse: true, setUp: setUpMount, store: pushHere, clear: clearCache, mount: mountPitr, command: restoreCopy("mount/wal")},
	{name: "scp, warm ControlMaster", warm: true, setUp: makeStore, store: link, command: restoreSCP},
}

// link stores raw segments without copying them.
func link(f *far, segments []string) error {
	return silent(exec.Command("cp", append(append([]string{"-l"}, segments...), f.path("store"))...))
}

func restoreCopy(from string) func(*far, string) string {
	return func(f *far, _ string) string { return "cp " + f.path(from) + "/%f %p" }
}

// pushHere stores segments where the far side has its archive, without going there.
func pushHere(f *far, segments []string) error {
	for _, segment := range segments {
		cmd := f.b.command([]string{"PITR_AGENT=off", "PITR_ARCHIVE=file://" + f.path("archive"), "PITR_PGDATA=" + f.b.data()}, f.b.pitr, "archive_command", segment)
		if err := silent(cmd); err != nil {
			return err
		}
	}
	return nil
}

func restorePitr(f *far, _ string) string {
	return f.b.pitr + " restore_command -C " + f.agentFile() + " %f %p"
}

func pushToRepository(f *far, segments []string) error {
	for _, segment := range segments {
		if err := silent(f.pgBackRest("repository.conf", "--compress-type=zst", "--compress-level=1", "archive-push", segment)); err != nil {
			return err
		}
	}
	return nil
}

func clearSpool(f *far) error { return os.RemoveAll(f.path("spool")) }

func restorePgBackRest(options ...string) func(*far, string) string {
	return func(f *far, data string) string {
		words := append([]string{"pgbackrest", "--config=" + f.path("server.conf"), "--stanza=main", "--pg1-path=" + data, "--archive-async"}, options...)
		return strings.Join(append(words, "archive-get", "%f", "%p"), " ")
	}
}

func mountSSHFS(f *far) []string {
	return []string{"sshfs", "-f", "-o", "ssh_command=" + f.path("sshfs-ssh"), f.host + ":" + f.path("store"), f.path("mount")}
}

func restoreSCP(f *far, _ string) string {
	return strings.Join(f.ssh("scp", "-q", "-o", "ControlPath="+f.control(), f.host+":"+f.path("store")+"/%f", "%p"), " ")
}

// freshCopy puts a base backup where a recovery shall run, with its settings. A hot
// standby would count as ready long before the end. The backup is of a server that
// does not sync; this one does, as servers do.
func (b *bench) freshCopy(data, command string) error {
	if err := errors.Join(os.RemoveAll(data), silent(exec.Command("cp", "-a", b.path("server", "base"), data))); err != nil {
		return err
	}
	settings := fmt.Sprintf(`archive_mode = off
hot_standby = off
fsync = on
unix_socket_directories = '%s'
restore_command = '%s'
log_min_messages = debug3
log_line_prefix = '%%n '
`, filepath.Dir(data), command)
	return errors.Join(b.file(filepath.Join(data, "postgresql.auto.conf"), settings), b.file(filepath.Join(data, "recovery.signal"), ""))
}
