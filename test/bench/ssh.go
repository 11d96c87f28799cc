package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// distances are the round trips at which everything is measured.
var distances = []time.Duration{0, 20 * time.Millisecond}

// sshTasks are those with a far side.
func (b *bench) sshTasks() (tasks []*task) {
	for _, d := range distances {
		where := "loopback"
		if d > 0 {
			where = fmt.Sprintf("%s away", d)
		}
		tasks = append(tasks,
			b.sshTask("archive_command cold over SSH, one 16 MB segment, "+where, d, b.pushOver),
			b.sshTask("restore_command over SSH, one 16 MB segment, "+where, d, b.getOver))
	}
	return tasks
}

// sshTask makes a task whose contenders have a far side each.
func (b *bench) sshTask(name string, roundTrip time.Duration, over func(way, *far, choice) (*contender, error)) *task {
	t := &task{name: name}
	var all []*far
	t.setUp = func(c choice) error {
		for _, w := range ways {
			if !c.rivals.MatchString(w.name) || strings.HasPrefix(w.name, "sshfs") && !b.canMount() {
				continue
			}
			f, err := b.openFar(w, roundTrip)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			all = append(all, f)
			k, err := over(w, f, c)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if k != nil {
				t.contenders = append(t.contenders, k)
			}
		}
		return nil
	}
	t.tearDown = func() (err error) {
		for _, f := range all {
			err = errors.Join(err, f.close())
		}
		return err
	}
	return t
}

// openFar is a far side as a way wants it.
func (b *bench) openFar(w way, roundTrip time.Duration, under ...string) (*far, error) {
	f, err := b.newFar(roundTrip, under...)
	if err != nil {
		return nil, err
	}
	if err := w.setUp(f); err != nil {
		return nil, errors.Join(err, f.close())
	}
	if w.warm {
		if err := f.keepConnection(); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

func (b *bench) pushOver(w way, f *far, _ choice) (*contender, error) {
	c := &contender{
		name:    w.name,
		command: func(n int) *exec.Cmd { return w.put(f, b.segments[n]) },
		check:   func(n int) error { return w.stored(f, b.segments[n]) },
		syncs:   func() (string, error) { return b.countSyncs(w) },
	}
	if w.warm {
		c.beside = f.masterTime
	}
	return c, nil
}

// getOver stores what will be asked for before anything is measured.
func (b *bench) getOver(w way, f *far, choice choice) (*contender, error) {
	if w.get == nil {
		return nil, nil
	}
	for n := range choice.rounds {
		if err := silent(w.put(f, b.segments[n])); err != nil {
			return nil, err
		}
	}
	restored := f.path("restored")
	c := &contender{
		name:    w.name,
		before:  func(int) error { return ignoreAbsent(os.Remove(restored)) },
		command: func(n int) *exec.Cmd { return w.get(f, filepath.Base(b.segments[n]), restored) },
		check:   func(n int) error { return same(b.segments[n], restored) },
	}
	if w.warm {
		c.beside = f.masterTime
	}
	return c, nil
}
