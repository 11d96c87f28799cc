// Command bench times whole calls of pitr beside what an operator would use
// instead, in one interleaved run, and prints medians and ratios as Markdown.
//
// Every round runs each contender once, in changing order, on a segment of real
// pgbench WAL that the round has to itself. What was stored and restored is
// compared afterwards. make bench runs it.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// sample is what one run of a command cost.
type sample struct {
	wall, cpu time.Duration
	peak      int64 // kB
}

// contender is one way to do a task.
type contender struct {
	name    string
	before  func(round int) error
	command func(round int) *exec.Cmd
	check   func(round int) error
	status  int
	samples []sample
}

// task is something that several contenders do; the first one is the yardstick.
type task struct {
	name       string
	contenders []*contender
}

func main() {
	rounds := flag.Int("rounds", 15, "rounds")
	pitr := flag.String("pitr", "bin/pitr", "binary")
	server := flag.String("server", "/usr/lib/postgresql/15/bin", "PostgreSQL, to make WAL with")
	flag.Parse()
	if err := run(*rounds, *pitr, *server); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int, pitr, server string) error {
	pitr, err := filepath.Abs(pitr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pitr-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, pitr: pitr}
	if err := b.prepare(server, rounds); err != nil {
		return err
	}
	for _, t := range b.tasks() {
		if err := t.run(rounds); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		t.print()
	}
	return nil
}

func (t *task) run(rounds int) error {
	for round := range rounds {
		for i := range t.contenders {
			c := t.contenders[(i+round)%len(t.contenders)]
			s, err := c.once(round)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.samples = append(c.samples, s)
		}
	}
	return nil
}

func (c *contender) once(round int) (sample, error) {
	if c.before != nil {
		if err := c.before(round); err != nil {
			return sample{}, err
		}
	}
	cmd := c.command(round)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return sample{}, err
	}
	if cmd.ProcessState.ExitCode() != c.status {
		return sample{}, fmt.Errorf("status %d, want %d: %s", cmd.ProcessState.ExitCode(), c.status, said.String())
	}
	if c.check != nil {
		if err := c.check(round); err != nil {
			return sample{}, err
		}
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss}, nil
}

func (t *task) print() {
	fmt.Printf("\n| %s | wall ms (median, min to max) | ratio | CPU ms | peak MB |\n| --- | --- | --- | --- | --- |\n", t.name)
	base := median(t.contenders[0].samples, func(s sample) float64 { return ms(s.wall) })
	for _, c := range t.contenders {
		wall := func(s sample) float64 { return ms(s.wall) }
		low, high := extremes(c.samples, wall)
		m := median(c.samples, wall)
		fmt.Printf("| %s | %.1f (%.1f to %.1f) | %.2f | %.1f | %.0f |\n", c.name, m, low, high, m/base,
			median(c.samples, func(s sample) float64 { return ms(s.cpu) }),
			median(c.samples, func(s sample) float64 { return float64(s.peak) / 1024 }))
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func sorted(samples []sample, of func(sample) float64) []float64 {
	var v []float64
	for _, s := range samples {
		v = append(v, of(s))
	}
	slices.Sort(v)
	return v
}

func median(samples []sample, of func(sample) float64) float64 {
	v := sorted(samples, of)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func extremes(samples []sample, of func(sample) float64) (low, high float64) {
	v := sorted(samples, of)
	return v[0], v[len(v)-1]
}
