package multicall

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const sftpServer = "/usr/lib/openssh/sftp-server"

// fakeSSH writes a program that notes its arguments, and then does what a script
// says.
func fakeSSH(t *testing.T, script string) (path, args string) {
	t.Helper()
	if _, err := os.Stat(sftpServer); err != nil {
		t.Fatalf("%v: run test/setup --unit", err)
	}
	dir := t.TempDir()
	path, args = filepath.Join(dir, "ssh"), filepath.Join(dir, "args")
	text := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\" >%s\necho $$ >%s\n%s\n", args, args+".pid", script)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, args
}

// over calls pitr with an archive behind an ssh_command.
func over(t *testing.T, ssh, dir string, args ...string) (status int, stderr string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "pitr.ini")
	text := fmt.Sprintf("archive = sftp://me@there:2022%s\nssh_command = %s -x 'two words'\nssh_timeout = 1\nidentity_file = /k\nknown_hosts = /h\n", dir, ssh)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "pitr", append([]string{"-C", config}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	return exitStatus(t, cmd.Run()), said.String()
}

func TestSSHCommandIsRunWithoutAShell(t *testing.T) {
	ssh, args := fakeSSH(t, "exec "+sftpServer)
	dir := filepath.Join(t.TempDir(), "archive")
	if status, stderr := over(t, ssh, dir, "init", "--system-identifier=1", "--postgres-major=15"); status != 0 {
		t.Fatal(status, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "archive.json")); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(args)
	if err != nil {
		t.Fatal(err)
	}
	want := "-x\ntwo words\n-oBatchMode=yes\n-oConnectTimeout=1\n-oServerAliveInterval=1\n-oServerAliveCountMax=1\n-oStrictHostKeyChecking=yes\n-i\n/k\n-oUserKnownHostsFile=/h\n-p\n2022\n-l\nme\n-s\nthere\nsftp\n"
	if string(text) != want {
		t.Errorf("got %q, want %q", text, want)
	}
	wantEnded(t, args+".pid")
}

func TestSSHCommandThatFails(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"says why":    {"echo 'Permission denied (publickey).' >&2; exit 255", "ssh_command: Permission denied (publickey)."},
		"says no":     {"exit 255", "ssh_command: exit status 255"},
		"hangs":       {"exec sleep 100", "no answer within ssh_timeout"},
		"is no sftp":  {"echo Welcome", "no SFTP"},
		"leaves late": {"head -c 5 >/dev/null; echo 'Connection reset' >&2; exit 255", "Connection reset"},
		"leaves a child that holds its standard error": {"sleep 100 & echo 'Gone' >&2; exit 255", "Gone"},
		"hangs with a child":                           {"sleep 100 & echo $! >$0.child; wait", "no answer within ssh_timeout"},
		"draws on the terminal":                        {"printf '\\033]0;owned\\007' >&2; exit 255", `\x1b]0;owned\a`},
	} {
		t.Run(name, func(t *testing.T) {
			ssh, args := fakeSSH(t, c.script)
			began := time.Now()
			status, stderr := over(t, ssh, "/nowhere/archive", "wal", "list")
			if status != 1 || !strings.Contains(stderr, c.want) {
				t.Errorf("got %d, %s, want %q", status, stderr, c.want)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			wantEnded(t, args+".pid")
			if strings.Contains(c.script, ".child") {
				wantEnded(t, ssh+".child")
			}
		})
	}
	status, stderr := over(t, "/nonexistent/ssh", "/nowhere/archive", "wal", "list")
	if status != 1 || !strings.Contains(stderr, "ssh_command is the program") {
		t.Errorf("got %d, %s", status, stderr)
	}
}

// wantEnded wants the process whose number a file holds to have ended before pitr
// did: somebody else's child would be adopted by PID 1.
func wantEnded(t *testing.T, file string) {
	t.Helper()
	pid, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// One that has ended may wait for PID 1 to notice.
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	if err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("process %s is still there: %s", pid, stat)
	}
}
