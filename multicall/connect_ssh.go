package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pitr/archive/remote"
)

// startSSH runs ssh_command for SFTP, without a shell, in a session of its own:
// it has no terminal to ask anything on, and whatever it starts can be ended
// with it.
func (c Config) startSSH(ctx context.Context, o remote.Options, stderr io.Writer) (remote.Pipe, error) {
	if ctx.Err() != nil {
		return remote.Pipe{}, context.Cause(ctx)
	}
	words := c.sshWords(o)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = sshGrace // somebody else may hold its standard error
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return remote.Pipe{}, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return remote.Pipe{}, err
	}
	if err := cmd.Start(); err != nil {
		return remote.Pipe{}, hint(fmt.Errorf("ssh_command: %w", err), "ssh_command is the program and its options, without the host")
	}
	return remote.Pipe{Stdin: stdin, Stdout: stdout, End: func() error { return endSSH(cmd, stdin) }}, nil
}

// sshWords is the command line. What the other settings say is told to ssh
// behind its own options, which therefore win; of another program nobody knows
// what it would make of them.
func (c Config) sshWords(o remote.Options) []string {
	words := append([]string{}, c.SSHCommand...)
	if isSSH(words[0]) {
		seconds := strconv.Itoa(max(1, int(o.Timeout/time.Second)))
		words = append(words, "-oBatchMode=yes", "-oConnectTimeout="+seconds, "-oServerAliveInterval="+seconds, "-oServerAliveCountMax=1",
			"-oStrictHostKeyChecking="+strictness(c.HostKeyPolicy))
		for _, key := range c.IdentityFiles {
			words = append(words, "-i", key)
		}
		if len(c.KnownHosts) > 0 {
			words = append(words, "-oUserKnownHostsFile="+strings.Join(c.KnownHosts, " "))
		}
		for _, option := range c.SSHOptions {
			words = append(words, "-o"+option)
		}
	}
	if o.Port != 0 {
		words = append(words, "-p", strconv.Itoa(o.Port))
	}
	if o.User != "" {
		words = append(words, "-l", o.User)
	}
	return append(words, "-s", o.Host, "sftp")
}

// strictness is host_key_policy in ssh's words.
func strictness(policy string) string {
	if policy == "strict" {
		return "yes"
	}
	return policy
}

// isSSH tells whether a program takes OpenSSH's options.
func isSSH(program string) bool { return filepath.Base(program) == "ssh" }

// endSSH closes the program's input, which ends it, or kills it and what it has
// started a moment later.
func endSSH(cmd *exec.Cmd, stdin io.Closer) error {
	_ = stdin.Close() // it may have gone already
	late := time.AfterFunc(sshGrace, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it has ended; what it left behind is its own
	}
	return err
}

// sshGrace is how long an ssh_command has to end by itself.
const sshGrace = 300 * time.Millisecond
