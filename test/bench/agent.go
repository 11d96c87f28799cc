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

// backlogSegments are as many as PostgreSQL's archiver takes in at once.
const backlogSegments = 64

// backlogName begins the names of the tasks that need so many.
const backlogName = "backlog of 64 segments, as the archiver drives it, "

// segmentsFor is how many segments the chosen tasks need.
func (b *bench) segmentsFor(c choice) int {
	for _, d := range distances {
		if c.tasks.MatchString(backlogName+where(d)) || c.tasks.MatchString(recoveryName+where(d)) {
			return max(backlogSegments, c.rounds+1)
		}
	}
	return c.rounds + 1 // one starts the agent
}

func where(d time.Duration) string {
	if d == 0 {
		return "loopback"
	}
	return fmt.Sprintf("%s away", d)
}

// agentTasks are those in which an agent helps. There is one only where a
// postmaster lives.
func (b *bench) agentTasks() (tasks []*task) {
	for _, d := range distances {
		tasks = append(tasks, b.backlog(d), b.fresh(d))
	}
	return append(tasks, b.published(), b.memory())
}

// withServer makes a task that has a server, and far sides that end with it.
func (b *bench) withServer(name string, setUp func(t *task, c choice, open func(shipper, time.Duration) (*far, error)) error) *task {
	t := &task{name: name}
	var server *postmaster
	var fars []*far
	open := func(s shipper, roundTrip time.Duration) (*far, error) {
		f, err := b.openFar(way{name: s.name, warm: s.warm, setUp: s.setUp}, roundTrip, b.measurerPath(), adoptArg)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		fars = append(fars, f)
		return f, nil
	}
	t.setUp = func(c choice) (err error) {
		if server, err = b.startServer(); err != nil {
			return err
		}
		return setUp(t, c, open)
	}
	t.tearDown = func() (err error) {
		for _, f := range fars {
			if _, e := os.Stat(f.agentFile()); e == nil {
				err = errors.Join(err, f.endAgent())
			}
			err = errors.Join(err, f.close())
		}
		if server != nil {
			err = errors.Join(err, server.stop())
		}
		return err
	}
	return t
}

// backlog is a queue of WAL that a server has to get rid of.
func (b *bench) backlog(roundTrip time.Duration) *task {
	t := b.withServer(backlogName+where(roundTrip), func(t *task, c choice, open func(shipper, time.Duration) (*far, error)) error {
		for _, s := range shippers {
			if !c.rivals.MatchString(s.name) {
				continue
			}
			f, err := open(s, roundTrip)
			if err != nil {
				return err
			}
			t.contenders = append(t.contenders, b.ships(s, f, b.segments[:backlogSegments]))
		}
		return nil
	})
	t.report = t.printBacklog
	return t
}

// ships is a contender that archives all of these segments. The far side's time
// is taken when its sessions are over: with an agent, when that has ended.
func (b *bench) ships(s shipper, f *far, segments []string) *contender {
	k := &contender{name: s.name}
	if s.warm {
		k.beside = f.masterTime
	}
	k.before = func(int) error {
		if s.agent {
			if pid, err := f.agentIs(); err != nil || pid != 0 {
				return errors.Join(err, fmt.Errorf("an agent is there before the run: %d", pid))
			}
		}
		return errors.Join(s.clear(f), b.waits(b.data(), segments), b.cool(b.inPGWAL(segments), b.pitr, "pgbackrest", "ssh", "scp", "dd"))
	}
	k.run = func(m measurer, _ int) (sample, error) {
		before, err := f.time()
		if err != nil {
			return sample{}, err
		}
		d := drive{Data: b.data(), Command: s.command(f)}
		if s.agent {
			d.Environ, d.Status, d.Stop = f.agentPlace(), f.agentStatus(), f.agent("stop")
		}
		done, err := d.run(b, m)
		if err != nil {
			return sample{}, err
		}
		if !s.warm {
			err = f.waitIdle()
		}
		after, e := f.time()
		done.There = after - before
		return done, errors.Join(err, e)
	}
	k.check = func(int) error {
		for _, segment := range segments {
			if err := s.stored(f, segment); err != nil {
				return err
			}
		}
		return nil
	}
	return k
}

// time is the CPU time of the far side's sshd and of all its sessions so far.
func (f *far) time() (time.Duration, error) {
	pid := f.server.PID()
	return timeOf(append(descendants(pid), pid))
}

func (t *task) printBacklog() {
	fmt.Printf("\n| %s | s (median, min to max) | segments/s | ratio | CPU s here + there | ratio | peak MB, largest process | the agent |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n", t.name)
	wall := func(s sample) float64 { return s.Wall.Seconds() }
	cpu := func(s sample) float64 { return (s.CPU + s.There).Seconds() }
	base := t.contenders[0].samples
	for _, k := range t.contenders {
		low, high := extremes(k.samples, wall)
		m := median(k.samples, wall)
		agent := ""
		if _, most := extremes(k.samples, func(s sample) float64 { return float64(s.Agent) / 1024 }); most > 0 {
			agent = fmt.Sprintf("%.0f MB, CPU %.2f s", most, median(k.samples, func(s sample) float64 { return s.ByIt.Seconds() }))
		}
		fmt.Printf("| %s | %.2f (%.2f to %.2f) | %.1f | %.2f | %.2f + %.2f | %.2f | %.0f | %s |\n", k.name, m, low, high, backlogSegments/m, median(base, wall)/m,
			median(k.samples, func(s sample) float64 { return s.CPU.Seconds() }), median(k.samples, func(s sample) float64 { return s.There.Seconds() }),
			median(k.samples, cpu)/median(base, cpu), median(k.samples, func(s sample) float64 { return float64(s.Peak) / 1024 }), agent)
	}
}

func find(name string) shipper {
	for _, s := range shippers {
		if s.name == name {
			return s
		}
	}
	panic("no shipper " + name)
}

// ship is one call of archive_command, without the shell.
func (b *bench) ship(s shipper, f *far, segment string) *exec.Cmd {
	cmd := f.withAgent(strings.Fields(strings.NewReplacer("%p", filepath.Join("pg_wal", filepath.Base(segment)), "%f", filepath.Base(segment)).Replace(s.command(f)))...)
	cmd.Dir = b.data()
	return cmd
}

// done is what the archiver does after a call.
func (b *bench) done(segment string) error {
	name := filepath.Base(segment)
	return os.Rename(statusFile(b.data(), name, ".ready"), statusFile(b.data(), name, ".done"))
}

// startAgent lets a first call start the agent, and waits until it is there.
func (b *bench) startAgent(s shipper, f *far, segment string) error {
	if err := silent(b.ship(s, f, segment)); err != nil {
		return err
	}
	return errors.Join(b.done(segment), waitUntil("the agent is there", func() (bool, error) {
		pid, err := f.agentIs()
		return pid != 0, err
	}))
}

// fresh is a segment that nobody has seen before it is asked for, with what is
// warm: an agent, and OpenSSH's ControlMaster.
func (b *bench) fresh(roundTrip time.Duration) *task {
	return b.withServer("fresh segment with everything warm, "+where(roundTrip), func(t *task, c choice, open func(shipper, time.Duration) (*far, error)) error {
		for _, name := range []string{rivalSCP, ours} {
			if !c.rivals.MatchString(name) {
				continue
			}
			s := find(name)
			f, err := open(s, roundTrip)
			if err != nil {
				return err
			}
			k := &contender{name: name, beside: f.masterTime}
			if s.agent {
				k.beside = f.agentTime
				if err := errors.Join(b.waits(b.data(), b.segments[c.rounds:c.rounds+1]), b.startAgent(s, f, b.segments[c.rounds])); err != nil {
					return err
				}
			}
			k.before = func(n int) error { return b.waits(b.data(), b.segments[n:n+1]) }
			k.command = func(n int) *exec.Cmd { return b.ship(s, f, b.segments[n]) }
			k.check = func(n int) error { return errors.Join(b.done(b.segments[n]), s.stored(f, b.segments[n])) }
			t.contenders = append(t.contenders, k)
		}
		return nil
	})
}

// published is the question for a segment that the agent has settled before it
// was asked. All of them wait from the beginning, in order.
func (b *bench) published() *task {
	return b.withServer("published: a segment that the agent has settled already", func(t *task, c choice, open func(shipper, time.Duration) (*far, error)) error {
		t.contenders = []*contender{{
			name: "a Go program that exits", status: 1,
			command: func(int) *exec.Cmd { return exec.Command(b.path("nothing")) },
		}}
		if !c.rivals.MatchString(ours) {
			return nil
		}
		s := find(ours)
		f, err := open(s, 0)
		if err != nil {
			return err
		}
		first, rest := b.segments[0], b.segments[1:c.rounds+1]
		if err := errors.Join(b.waits(b.data(), b.segments[:c.rounds+1]), b.startAgent(s, f, first)); err != nil {
			return err
		}
		// The call that starts an agent ships by itself. This one is the agent's.
		second := rest[0]
		if err := silent(b.ship(s, f, second)); err != nil {
			return err
		}
		t.contenders = append(t.contenders, &contender{
			name:    ours,
			before:  func(n int) error { return b.settled(f, rest[n]) },
			command: func(n int) *exec.Cmd { return b.ship(s, f, rest[n]) },
			check:   func(n int) error { return errors.Join(b.done(rest[n]), s.stored(f, rest[n])) },
		})
		return nil
	})
}

// settled waits until a segment is in the archive, and as long again as settling
// it takes at most: nobody tells when that is over.
func (b *bench) settled(f *far, segment string) error {
	name := filepath.Base(segment)
	err := waitUntil(name+" is published", func() (bool, error) {
		_, err := os.Stat(filepath.Join(f.path("archive"), "wal", name[:16], name+".zst"))
		if os.IsNotExist(err) {
			return false, nil
		}
		return err == nil, err
	})
	time.Sleep(300 * time.Millisecond)
	return err
}
