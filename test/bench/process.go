package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, on every Linux that
// there is.
const clockTick = 10 * time.Millisecond

// stat are the fields of /proc/PID/stat behind the name, which may hold anything.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])), nil
}

// timeOf is the CPU time of processes and of their children that have ended.
func timeOf(pids []int) (total time.Duration, err error) {
	for _, pid := range pids {
		fields, err := stat(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended: its parent has its time
		}
		if err != nil {
			return 0, err
		}
		for _, field := range fields[11:15] { // utime, stime, cutime, cstime
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(ticks) * clockTick
		}
	}
	return total, nil
}

// descendants are the children of a process, theirs, and so on.
func descendants(pid int) (pids []int) {
	children := map[int][]int{}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		child, err1 := strconv.Atoi(filepath.Base(dir))
		fields, err2 := stat(child)
		if errors.Join(err1, err2) != nil {
			continue // it has ended
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	for todo := children[pid]; len(todo) > 0; todo = todo[1:] {
		pids = append(pids, todo[0])
		todo = append(todo, children[todo[0]]...)
	}
	return pids
}

func waitUntil(what string, cond func() (bool, error)) error {
	return waitWithin(time.Minute, what, cond)
}

func waitWithin(most time.Duration, what string, cond func() (bool, error)) error {
	for end := time.Now().Add(most); ; time.Sleep(5 * time.Millisecond) {
		ok, err := cond()
		if err != nil {
			return fmt.Errorf("until %s: %w", what, err)
		}
		if ok {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain until %s", what)
		}
	}
}
