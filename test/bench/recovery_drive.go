package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// recoverArg makes this program let a server recover, and tell what that cost. It
// adopts what the calls leave behind, and waits for it.
const recoverArg = "recover"

// recovery is what shall be recovered, and how.
type recovery struct {
	Server string // where PostgreSQL's programs are
	Data   string // a base backup, ready to be started
	// Mount is a command that mounts the archive at At, in the foreground, before
	// the server is started; nil if there is none.
	Mount []string
	At    string
	Query string // what was recovered
}

// run lets the server recover, as the user of the bench.
func (r recovery) run(b *bench, m measurer, environ []string) (sample, error) {
	return b.inAnotherProcess(m, recoverArg, environ, r)
}

func (r recovery) measure(to *os.File) error {
	if err := adoptOrphans(); err != nil {
		return err
	}
	var s sample
	err := r.recover(&s)
	if err = errors.Join(err, waitForAll(time.Minute)); err != nil {
		return err
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err != nil {
		return err
	}
	s.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	if err := r.readLog(&s); err != nil {
		return err
	}
	return json.NewEncoder(to).Encode(s)
}

// recover starts the server, waits until it takes clients, asks it what it has, and
// throws it away.
func (r recovery) recover(s *sample) (err error) {
	if r.Mount != nil {
		unmount, mountErr := r.mount()
		if mountErr != nil {
			return mountErr
		}
		defer func() { err = errors.Join(err, unmount()) }()
	}
	defer watchHelpers(&s.Helper)()
	began := time.Now()
	p, err := startPostmaster(exec.Command(filepath.Join(r.Server, "postgres"), "-D", r.Data), r.Data)
	s.Wall = time.Since(began)
	if err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(r.Server, "psql"), "-h", filepath.Dir(r.Data), "-U", "postgres", "-XAtc", r.Query, "postgres").CombinedOutput()
	s.Said = strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return errors.Join(err, p.abandon())
}

// mount mounts the archive, and returns what ends that.
func (r recovery) mount() (unmount func() error, err error) {
	cmd := exec.Command(r.Mount[0], r.Mount[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	unmount = func() error { return silent(exec.Command("fusermount3", "-u", r.At)) }
	err = waitUntil(r.At+" is mounted", func() (bool, error) { return silent(exec.Command("mountpoint", "-q", r.At)) == nil, nil })
	return unmount, err
}

// watchHelpers looks now and then how large the largest process is that is not
// PostgreSQL's, until it is told to stop.
func watchHelpers(peak *int64) (stop func()) {
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			for _, pid := range descendants(os.Getpid()) {
				name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
				if err != nil || strings.HasPrefix(string(name), "postgres") {
					continue
				}
				if kb, err := peakOf(pid); err == nil {
					*peak = max(*peak, kb)
				}
			}
			select {
			case <-ended:
				return
			case <-time.After(250 * time.Millisecond):
			}
		}
	})
	return func() { close(ended); watch.Wait() }
}

var (
	// logged is a line of the server's log about restore_command. The server stamps
	// it, in milliseconds, around the shell that it runs: nothing of the bench's is
	// in between.
	logged   = regexp.MustCompile(`(?m)^(\d+)\.(\d{3}) (?:DEBUG|LOG|FATAL).*?(executing restore command|restored log file|could not restore file)`)
	redoDone = regexp.MustCompile(`redo done at ([0-9A-F]+/[0-9A-F]+)`)
)

// readLog adds up what restore_command took, and notes how far the recovery went.
func (r recovery) readLog(s *sample) error {
	text, err := os.ReadFile(r.Data + ".log")
	if err != nil {
		return err
	}
	var began time.Duration
	var each []time.Duration
	for _, line := range logged.FindAllStringSubmatch(string(text), -1) {
		ms, err := strconv.ParseInt(line[1]+line[2], 10, 64)
		if err != nil {
			return err
		}
		now := time.Duration(ms) * time.Millisecond
		if strings.HasPrefix(line[3], "executing") {
			began = now
			continue
		}
		s.Restoring += now - began
		if line[3] == "restored log file" {
			each = append(each, now-began)
		}
	}
	if len(each) == 0 {
		return errors.New("the server's log has no call of restore_command")
	}
	slices.Sort(each)
	s.Call = each[len(each)/2]
	end := redoDone.FindStringSubmatch(string(text))
	if end == nil {
		return errors.New("the server's log does not say where redo ended")
	}
	s.Said += " " + end[1]
	return nil
}
