package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// measureArg makes this program run a command and tell what it cost. A small
// process between is needed: what a child inherits from the one that started it
// counts as its own peak memory, and the bench itself carries a network.
const measureArg = "measure"

// sample is what one run of a command cost, with all processes that it started
// and waited for: scp, rsync and pgBackRest wait for their ssh.
type sample struct {
	Wall, CPU time.Duration
	Peak      int64 // kB, of the largest process
	Status    int
	Said      string

	There time.Duration // CPU time of the far side, where it counts
	Agent int64         // kB, the agent's peak, if there was one
	ByIt  time.Duration // CPU time of the agent, which is a part of CPU

	Restoring time.Duration // in all calls of restore_command
	Call      time.Duration // the median one that brought a segment
	Helper    int64         // kB, of the largest process that is not PostgreSQL's
}

// measurer is a copy of this program where everybody can run it.
type measurer string

func (b *bench) measurerPath() string { return b.path("measure") }

func newMeasurer(path string) (measurer, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return measurer(path), errors.Join(silent(exec.Command("cp", self, path)), os.Chmod(path, 0o755))
}

// run runs a command in its environment, as its user.
func (m measurer) run(cmd *exec.Cmd) (s sample, err error) {
	outer := *cmd
	outer.Path, outer.Args, outer.Err = string(m), slices.Concat([]string{string(m), measureArg, cmd.Path}, cmd.Args[1:]), nil
	var said bytes.Buffer
	outer.Stderr = &said
	out, err := outer.Output()
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, said.String())
	}
	return s, json.Unmarshal(out, &s)
}

func measure(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	err := cmd.Run()
	s := sample{Wall: time.Since(start), Said: said.String()}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.Status = cmd.ProcessState.ExitCode()
	s.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	s.Peak = cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	if json.NewEncoder(os.Stdout).Encode(s) != nil {
		return 1
	}
	return 0
}
