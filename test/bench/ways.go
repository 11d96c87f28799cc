package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// way is how somebody stores WAL over SSH, and gets it back.
type way struct {
	name   string
	warm   bool // a connection is there already
	setUp  func(*far) error
	put    func(f *far, segment string) *exec.Cmd
	get    func(f *far, name, to string) *exec.Cmd // nil if nobody would
	stored func(f *far, segment string) error      // compares
}

// ways begin with the yardstick.
var ways = []way{
	{"pgBackRest, zst 1, synchronous", false, setUpPgBackRest, putPgBackRest, getPgBackRest, storedPgBackRest},
	{"pitr, zstd 1", false, setUpPitr, putPitr, getPitr, storedPitr},
	{"rsync --fsync", false, makeStore, putRsync, nil, storedPlain},
	{"sshfs, mounted for it, dd conv=fsync", false, setUpSSHFS, putSSHFS, getSSHFS, storedPlain},
	{"scp, cannot sync", false, makeStore, putSCP, getSCP, storedPlain},
	{"scp, warm ControlMaster, cannot sync", true, makeStore, putSCP, getSCP, storedPlain},
}

// makeStore makes the directory that plain copies go to.
func makeStore(f *far) error { return f.b.directory(f.path("store")) }

func storedPlain(f *far, segment string) error {
	return same(segment, filepath.Join(f.path("store"), filepath.Base(segment)))
}

func putRsync(f *far, segment string) *exec.Cmd {
	return f.b.command(nil, "rsync", "-a", "--fsync", "-e", strings.Join(f.ssh("ssh"), " "), segment, f.host+":"+f.path("store")+"/")
}

func putSCP(f *far, segment string) *exec.Cmd {
	return f.b.command(nil, f.ssh("scp", "-q", "-o", "ControlPath="+f.control(), segment, f.host+":"+f.path("store")+"/")...)
}

func getSCP(f *far, name, to string) *exec.Cmd {
	return f.b.command(nil, f.ssh("scp", "-q", "-o", "ControlPath="+f.control(), f.host+":"+f.path("store")+"/"+name, to)...)
}

// setUpSSHFS makes the directories, and the ssh that sshfs runs.
func setUpSSHFS(f *far) error {
	script := "#!/bin/sh\nexec " + strings.Join(f.ssh("ssh"), " ") + " \"$@\"\n"
	return errors.Join(makeStore(f), f.b.directory(f.path("mount")), os.WriteFile(f.path("sshfs-ssh"), []byte(script), 0o755))
}

// canMount tells whether the user of the bench may mount anything, and says so if
// not.
func (b *bench) canMount() bool {
	if silent(b.command(nil, "sh", "-c", "exec 3<>/dev/fuse")) == nil {
		return true
	}
	fmt.Println("\nsshfs is left out: this user cannot open /dev/fuse (chmod 666 /dev/fuse).")
	return false
}

// mounted runs a command on the store, mounted for as long as that takes.
func mounted(f *far, then string, args ...string) *exec.Cmd {
	script := `sshfs -f -o "ssh_command=$1" "$2" "$3" & p=$!
i=0; until mountpoint -q "$3" || [ $i = 400 ]; do i=$((i+1)); sleep 0.005; done
` + then + `; s=$?; fusermount3 -u "$3"; wait $p; exit $s`
	return f.b.command(nil, append([]string{"sh", "-c", script, "sh", f.path("sshfs-ssh"), f.host + ":" + f.path("store"), f.path("mount")}, args...)...)
}

func putSSHFS(f *far, segment string) *exec.Cmd {
	return mounted(f, `dd if="$4" of="$3/$5" bs=1M conv=fsync 2>/dev/null`, segment, filepath.Base(segment))
}

func getSSHFS(f *far, name, to string) *exec.Cmd {
	return mounted(f, `cp "$3/$4" "$5"`, name, to)
}

// pitr is the binary with an archive on the far side.
func (f *far) pitr(args ...string) *exec.Cmd {
	return f.b.command([]string{
		"PITR_AGENT=off",
		"PITR_ARCHIVE=sftp://" + f.server.User + "@" + f.host + ":" + f.port + f.path("archive"),
		"PITR_PGDATA=" + f.b.data(),
		"PITR_IDENTITY_FILE=" + f.server.Identity,
		"PITR_KNOWN_HOSTS=" + f.server.KnownHosts,
	}, append([]string{f.b.pitr}, args...)...)
}

func setUpPitr(f *far) error { return silent(f.pitr("init", "--force")) }

func putPitr(f *far, segment string) *exec.Cmd { return f.pitr("archive_command", segment) }

func getPitr(f *far, name, to string) *exec.Cmd { return f.pitr("restore_command", name, to) }

func storedPitr(f *far, segment string) error {
	name := filepath.Base(segment)
	return sameZstd(segment, filepath.Join(f.path("archive"), "wal", name[:16], name+".zst"))
}

// setUpPgBackRest writes the two configurations: that of the server, whose
// repository is on another host, and that of this host. One takes what it needs
// to find the far side from a script, for there is no option for that.
func setUpPgBackRest(f *far) error {
	ssh := "#!/bin/sh\nexec " + strings.Join(f.ssh("ssh"), " ") + " \"$@\"\n"
	common := fmt.Sprintf("log-level-file=off\nlog-level-console=warn\nlock-path=%s\nspool-path=%s\n", f.path("lock"), f.path("spool"))
	stanza := "[main]\npg1-path=" + f.b.data() + "\n"
	near := fmt.Sprintf("[global]\n%srepo1-host=%s\nrepo1-host-port=%s\nrepo1-host-user=%s\nrepo1-host-config=%s\ncmd-ssh=%s\ncompress-type=zst\ncompress-level=1\n%s",
		common, f.host, f.port, f.server.User, f.path("repository.conf"), f.path("ssh"), stanza)
	repository := fmt.Sprintf("[global]\n%srepo1-path=%s\n%s", common, f.path("repository"), stanza)
	err := errors.Join(
		os.WriteFile(f.path("ssh"), []byte(ssh), 0o755),
		os.WriteFile(f.path("server.conf"), []byte(near), 0o644),
		os.WriteFile(f.path("repository.conf"), []byte(repository), 0o644))
	if err != nil {
		return err
	}
	return silent(f.pgBackRest("repository.conf", "--no-online", "stanza-create"))
}

func (f *far) pgBackRest(config string, args ...string) *exec.Cmd {
	return f.b.command(nil, append([]string{"pgbackrest", "--config=" + f.path(config), "--stanza=main"}, args...)...)
}

func putPgBackRest(f *far, segment string) *exec.Cmd {
	return f.pgBackRest("server.conf", "archive-push", segment)
}

func getPgBackRest(f *far, name, to string) *exec.Cmd {
	return f.pgBackRest("server.conf", "archive-get", name, to)
}

func storedPgBackRest(f *far, segment string) error {
	to := f.path("compared")
	if err := silent(f.pgBackRest("repository.conf", "archive-get", filepath.Base(segment), to)); err != nil {
		return err
	}
	return same(segment, to)
}

// silent runs a command that nobody measures.
func silent(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, out)
	}
	return nil
}
