package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// recoverySegments are as many as a recovery replays.
const recoverySegments = 64

// recoveryName begins the names of the tasks that need so many.
const recoveryName = "recovery of 64 segments, "

func (b *bench) recoveryTasks() (tasks []*task) {
	for _, d := range distances {
		tasks = append(tasks, b.recovery(d))
	}
	for _, d := range distances {
		tasks = append(tasks, b.reading(d))
	}
	return append(tasks, b.ahead())
}

// recovery is a base backup and the WAL that came after it, up to the end of the
// archive. Each has a fresh copy of the backup, and the far side out of the cache.
func (b *bench) recovery(roundTrip time.Duration) *task {
	t := &task{name: recoveryName + where(roundTrip)}
	var fars []*far
	t.setUp = func(c choice) error {
		if err := b.directory(b.path("recovered")); ignoreExists(err) != nil {
			return err
		}
		var first string // what the first of them has recovered
		for _, r := range restorers {
			if !c.rivals.MatchString(r.name) || r.fuse && !b.canMount() {
				continue
			}
			f, err := b.openFar(way{name: r.name, warm: r.warm, setUp: r.setUp}, roundTrip, b.measurerPath(), adoptArg)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			fars = append(fars, f)
			if err := r.store(f, b.segments[:recoverySegments]); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			t.contenders = append(t.contenders, b.recovers(r, f, &first))
		}
		return nil
	}
	t.tearDown = func() (err error) {
		for _, f := range fars {
			err = errors.Join(err, f.close())
		}
		return err
	}
	t.report = t.printRecovery
	return t
}

func ignoreExists(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// recovers is a contender that recovers a server.
func (b *bench) recovers(r restorer, f *far, first *string) *contender {
	data := b.path("recovered", "d")
	k := &contender{name: r.name}
	if r.warm {
		k.beside = f.masterTime
	}
	k.before = func(int) error {
		if r.clear != nil {
			if err := r.clear(f); err != nil {
				return err
			}
		}
		if err := b.freshCopy(data, r.command(f, data)); err != nil {
			return err
		}
		near, err := filesIn(data)
		if err != nil {
			return err
		}
		return b.cool(near, filepath.Join(b.server, "postgres"), filepath.Join(b.server, "psql"), b.pitr, "pgbackrest", "ssh", "scp", "sshfs", "cp", "sh")
	}
	k.run = func(m measurer, _ int) (sample, error) {
		before, err := f.time()
		if err != nil {
			return sample{}, err
		}
		todo := recovery{Server: b.server, Data: data, At: f.path("mount"), Query: "SELECT count(*), sum(delta) FROM pgbench_history"}
		if r.mount != nil {
			todo.Mount = r.mount(f)
		}
		done, err := todo.run(b, m, f.agentPlace())
		if err != nil {
			return sample{}, err
		}
		if !r.warm {
			err = f.waitIdle()
		}
		after, e := f.time()
		done.There = after - before
		if *first == "" {
			*first = done.Said
		}
		return done, errors.Join(err, e, b.isWhole(done.Said, *first))
	}
	return k
}

// isWhole tells whether a recovery has gone to the end of the last segment, and
// recovered what the first one did.
func (b *bench) isWhole(said, first string) error {
	_, lsn, _ := strings.Cut(said, " ")
	high, low, _ := strings.Cut(lsn, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("recovered %q: %w", said, err)
	}
	last := filepath.Base(b.segments[recoverySegments-1])
	if at := fmt.Sprintf("%s%08X%08X", last[:8], h, l>>24); at != last || said != first || strings.HasPrefix(said, "0|") {
		return fmt.Errorf("recovered %q, want %q, which ends in %s", said, first, last)
	}
	return nil
}

func filesIn(dir string) (paths []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}

func (t *task) printRecovery() {
	wall := func(s sample) float64 { return s.Wall.Seconds() }
	inside := func(s sample) float64 { return s.Restoring.Seconds() }
	fmt.Printf("\n| %s | s (median, min to max) | of cp's | s in restore_command (median, min to max) | of pgBackRest's | of its with 1 GiB | of sshfs's | median call, ms | CPU s here + there | largest helper, MB |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", t.name)
	for _, k := range t.contenders {
		low, high := extremes(k.samples, wall)
		least, most := extremes(k.samples, inside)
		fmt.Printf("| %s | %.2f (%.2f to %.2f) | %s | %.2f (%.2f to %.2f) | %s | %s | %s | %.0f | %.1f + %.1f | %.0f |\n", k.name,
			median(k.samples, wall), low, high, t.ratio(k, plainCopy, wall), median(k.samples, inside), least, most,
			t.ratio(k, pgBackRest, inside), t.ratio(k, pgBackRestGB, inside), t.ratio(k, rivalSSHFS, inside),
			median(k.samples, func(s sample) float64 { return ms(s.Call) }),
			median(k.samples, func(s sample) float64 { return s.CPU.Seconds() }), median(k.samples, func(s sample) float64 { return s.There.Seconds() }),
			median(k.samples, func(s sample) float64 { return float64(s.Helper) / 1024 }))
	}
}

// ratio is a contender beside the one of that name, if there is one.
func (t *task) ratio(k *contender, to string, of func(sample) float64) string {
	for _, other := range t.contenders {
		if other.name == to {
			return fmt.Sprintf("%.2f", median(k.samples, of)/median(other.samples, of))
		}
	}
	return ""
}
