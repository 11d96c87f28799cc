package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// contender is one way to do a task.
type contender struct {
	name    string
	before  func(round int) error
	command func(round int) *exec.Cmd
	run     func(m measurer, round int) (sample, error) // instead of command: what is more than one call
	check   func(round int) error
	beside  func() (time.Duration, error) // CPU time so far of a process that helps all calls; nil if there is none
	syncs   func() (string, error)        // counts those of one call; nil if nobody asks
	status  int
	samples []sample
	counted string
}

// task is something that several contenders do; the first one is the yardstick.
type task struct {
	name       string
	contenders []*contender
	setUp      func(choice) error // makes the contenders
	tearDown   func() error
	report     func() // prints what came out; nil is print
}

// run measures a task and prints what came out.
func (t *task) run(c choice) (err error) {
	if t.tearDown != nil {
		defer func() { err = errors.Join(err, t.tearDown()) }()
	}
	if t.setUp != nil {
		if err := t.setUp(c); err != nil {
			return err
		}
	}
	t.contenders = slices.DeleteFunc(t.contenders, func(k *contender) bool { return !c.rivals.MatchString(k.name) })
	if len(t.contenders) == 0 {
		return nil
	}
	for round := range c.rounds {
		for i := range t.contenders {
			k := t.contenders[(i+round)%len(t.contenders)]
			s, err := k.once(c.measurer, round)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			k.samples = append(k.samples, s)
		}
	}
	for _, k := range t.contenders {
		if k.syncs == nil {
			continue
		}
		if k.counted, err = k.syncs(); err != nil {
			return fmt.Errorf("%s: count syncs: %w", k.name, err)
		}
	}
	if t.report != nil {
		t.report()
		return nil
	}
	t.print()
	return nil
}

func (c *contender) once(m measurer, round int) (sample, error) {
	if c.before != nil {
		if err := c.before(round); err != nil {
			return sample{}, err
		}
	}
	helped, err := c.helped()
	if err != nil {
		return sample{}, err
	}
	s, err := c.measured(m, round)
	if err != nil {
		return sample{}, err
	}
	if s.Status != c.status {
		return sample{}, fmt.Errorf("status %d, want %d: %s", s.Status, c.status, s.Said)
	}
	help, err := c.helped()
	if err != nil {
		return sample{}, err
	}
	s.CPU += help - helped
	if c.check != nil {
		return s, c.check(round)
	}
	return s, nil
}

func (c *contender) measured(m measurer, round int) (sample, error) {
	if c.run != nil {
		return c.run(m, round)
	}
	return m.run(c.command(round))
}

func (c *contender) helped() (time.Duration, error) {
	if c.beside == nil {
		return 0, nil
	}
	return c.beside()
}

func (t *task) print() {
	columns, rule := "| %s | wall ms (median, min to max) | ratio | CPU ms | peak MB |", "| --- | --- | --- | --- | --- |"
	counted := t.contenders[0].counted != ""
	if counted {
		columns, rule = columns+" syncs here / there |", rule+" --- |"
	}
	fmt.Printf("\n"+columns+"\n"+rule+"\n", t.name)
	wall := func(s sample) float64 { return ms(s.Wall) }
	base := median(t.contenders[0].samples, wall)
	for _, c := range t.contenders {
		low, high := extremes(c.samples, wall)
		m := median(c.samples, wall)
		fmt.Printf("| %s | %.1f (%.1f to %.1f) | %.2f | %.1f | %.0f |", c.name, m, low, high, m/base,
			median(c.samples, func(s sample) float64 { return ms(s.CPU) }),
			median(c.samples, func(s sample) float64 { return float64(s.Peak) / 1024 }))
		if counted {
			fmt.Printf(" %s |", c.counted)
		}
		fmt.Println()
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
