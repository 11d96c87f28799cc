package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// driveArg makes this program archive what is ready in a data directory, as
// PostgreSQL's archiver does, and tell what it cost. It adopts what the calls
// leave behind and waits for it: an agent counts, and so do the processes of
// pgBackRest's asynchronous mode.
const driveArg = "drive"

// drive is what shall be archived, and how.
type drive struct {
	Data    string   // the data directory
	Command string   // archive_command, with %p and %f
	Environ []string // more of its environment
	Status  []string // pitr agent status --json, if there is to be an agent in the end
	Stop    []string // what ends it
}

// run drives an archiver as the user of the bench.
func (d drive) run(b *bench, m measurer) (sample, error) {
	return b.inAnotherProcess(m, driveArg, d.Environ, d)
}

// measurable is something that this program does in a process of its own, and tells
// what it cost.
type measurable interface{ measure(to *os.File) error }

// inAnotherProcess has it done there, as the user of the bench.
func (b *bench) inAnotherProcess(m measurer, arg string, environ []string, todo measurable) (s sample, err error) {
	text, err := json.Marshal(todo)
	if err != nil {
		return s, err
	}
	cmd := b.command(environ, string(m), arg, string(text))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return s, fmt.Errorf("%w: %s", err, said.String())
	}
	return s, json.Unmarshal(out, &s)
}

// measured is that process. todo is where the text is read to.
func measured(text string, todo measurable) int {
	err := json.Unmarshal([]byte(text), todo)
	if err == nil {
		err = todo.measure(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (d drive) measure(to *os.File) error {
	if err := adoptOrphans(); err != nil {
		return err
	}
	var s sample
	began := time.Now()
	err := d.archive()
	s.Wall = time.Since(began)
	if d.Status != nil {
		err = errors.Join(err, d.endAgent(&s))
	}
	if err = errors.Join(err, waitForAll(time.Minute)); err != nil {
		return err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
		return err
	}
	s.CPU, s.Peak = time.Duration(usage.Utime.Nano()+usage.Stime.Nano()), usage.Maxrss
	return json.NewEncoder(to).Encode(s)
}

// adoptArg makes this program run another one and adopt what that leaves behind.
// The time of all of it counts as that of this process's children: sshd does not
// wait for a command whose client has gone.
const adoptArg = "adopt"

func adopt(args []string) int {
	if err := adoptOrphans(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // whose end is the signal
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR {
			return 0
		}
	}
}

func adoptOrphans() error {
	const setChildSubreaper = 36 // prctl(2)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("adopt orphans: %w", errno)
	}
	return nil
}

// archive does what pgarch_ArchiverCopyLoop of pgarch.c does, except that it
// does not try again: one call after the other, by a shell in the data
// directory, and then .ready becomes .done.
func (d drive) archive() error {
	names, err := ready(d.Data)
	if err != nil {
		return err
	}
	for _, name := range names {
		cmd := exec.Command("sh", "-c", strings.NewReplacer("%p", "pg_wal/"+name, "%f", name).Replace(d.Command))
		cmd.Dir = d.Data
		if err := silent(cmd); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.Rename(statusFile(d.Data, name, ".ready"), statusFile(d.Data, name, ".done")); err != nil {
			return err
		}
	}
	return nil
}

func statusFile(data, name, suffix string) string {
	return filepath.Join(data, "pg_wal", "archive_status", name+suffix)
}

// ready are the files that wait for the archiver, in its order.
func ready(data string) (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(data, "pg_wal", "archive_status"))
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".ready"); ok {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a, b)) })
	return names, err
}

// rank is 0 for what goes first.
func rank(name string) int {
	if strings.HasSuffix(name, ".history") {
		return 0
	}
	return 1
}

// endAgent ends the agent that the calls have started, and notes what it has cost.
func (d drive) endAgent(s *sample) error {
	pid, err := agentPID(exec.Command(d.Status[0], d.Status[1:]...))
	if err != nil {
		return err
	}
	if pid == 0 {
		return errors.New("the calls have started no agent")
	}
	var err1, err2 error
	s.Agent, err1 = peakOf(pid)
	s.ByIt, err2 = timeOf(append(descendants(pid), pid))
	return errors.Join(err1, err2, silent(exec.Command(d.Stop[0], d.Stop[1:]...)))
}

// agentPID is the agent's process, or 0, by the word of pitr agent status.
func agentPID(status *exec.Cmd) (int, error) {
	out, err := status.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	var s struct {
		Running bool
		PID     int
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return 0, fmt.Errorf("pitr agent status: %w: %s", err, out)
	}
	if !s.Running {
		return 0, nil
	}
	return s.PID, nil
}

// peakOf is the most memory that a process had, in kB.
func peakOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	return strconv.ParseInt(number, 10, 64)
}

// waitForAll waits until no child is left, adopted ones neither.
func waitForAll(patience time.Duration) error {
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && err != syscall.EINTR {
				ended <- err
				return
			}
		}
	}()
	select {
	case err := <-ended:
		if err == syscall.ECHILD {
			return nil
		}
		return err
	case <-time.After(patience):
		return errors.New("something that the calls have started does not end")
	}
}
