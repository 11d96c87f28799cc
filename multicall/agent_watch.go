package multicall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/wal"
)

const (
	// watchRound is how often an agent looks whether something is to be told.
	watchRound = 5 * time.Second

	// metricsRound is how often it writes its figures down.
	metricsRound = 15 * time.Second

	// forkRound is how often it looks for other servers in its archives, and
	// forkTime how long that may take in each.
	forkRound = time.Minute
	forkTime  = 30 * time.Second
)

// watched is what an agent knows besides what its ways and queues do.
type watched struct {
	mu         sync.Mutex                  // guards the rest
	identities map[string]archive.Identity // of archives, by name
	last       map[string]lastShipped      // of queues, by folder
	forks      []condition
}

type lastShipped struct {
	name wal.Name
	at   time.Time
}

func (w *watched) identity(archive string) archive.Identity {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.identities[archive]
}

func (w *watched) setIdentity(name string, id archive.Identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.identities == nil {
		w.identities = map[string]archive.Identity{}
	}
	w.identities[name] = id
}

// delivered notes that a destination with a queue has a file.
func (w *watched) delivered(folder string, name wal.Name, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		w.last = map[string]lastShipped{}
	}
	if (name != wal.Name{}) {
		w.last[folder] = lastShipped{name, at}
	}
}

func (w *watched) lastOf(folder string) (lastShipped, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one, ok := w.last[folder]
	return one, ok
}

func (w *watched) setForks(all []condition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forks = all
}

func (w *watched) forkConditions() []condition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.forks
}

// watch tells what changes, and writes metrics_file, until ctx ends. A panic in it
// must not take shipping along.
func (a *agent) watch(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			a.log.Error("nobody watches any more", "error", &panicked{v, debug.Stack()})
		}
	}()
	o, told := newObserver(a.cfg, a.id.pgdata, a.cluster), newAlerts(a.cfg.AlertInterval)
	m := metricsFile{path: a.cfg.MetricsFile, log: a.log}
	last := status{Version: Version(), PGData: a.id.pgdata}
	tick := time.NewTicker(watchRound)
	defer tick.Stop()
	for {
		now := time.Now()
		if s := o.look(ctx, a.status(), now); ctx.Err() == nil {
			last = s
			a.raise(told.next(now, append(s.conditions(a.cfg), a.watched.forkConditions()...)))
			m.writeSometimes(ctx, s, now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last.Agent = agentStatus{}
			m.write(context.WithoutCancel(ctx), last)
			return
		}
	}
}

// raise logs conditions and has their commands run. It also logs what an earlier
// one came to.
func (a *agent) raise(all []condition) {
	report := filepath.Join(a.place.dir, a.place.key+failedAlert)
	within(grace, func() { a.sayFailedAlert(report) })
	for _, c := range all {
		p := map[severity]program{fine: a.cfg.NotifyOK, warning: a.cfg.NotifyWarning, critical: a.cfg.NotifyCritical}[c.level]
		if c.level == fine {
			a.log.Info(c.text)
		} else {
			a.log.Warn(c.text)
		}
		a.give(p, event{
			word: c.level.String(), message: "pitr: " + c.text, destination: c.destination, file: c.file,
			more: []string{"PITR_EVENT_KIND=" + c.kind},
		}, report)
	}
}

// watchForks looks into the required archives for the traces of another server,
// until ctx ends.
func (a *agent) watchForks(ctx context.Context) {
	defer func() {
		if v := recover(); v != nil {
			a.log.Error("nobody looks for other timelines any more", "error", &panicked{v, debug.Stack()})
		}
	}()
	if a.ahead == nil {
		return
	}
	f := newForkWatch()
	tick := time.NewTicker(forkRound)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.lookForForks(ctx, f, time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// lookForForks looks into each required archive that answers. One that does not is
// told about by others.
func (a *agent) lookForForks(ctx context.Context, f *forkWatch, now time.Time) {
	ours, writes := lineageOf(a.id.pgdata)
	if !writes {
		a.watched.setForks(f.end())
	}
	states := a.ahead.States()
	for i, w := range a.ahead.Ways {
		if !states[i].Down.IsZero() {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, forkTime, fmt.Errorf("%s are over", forkTime))
		id, err := w.Archive.Identity(ctx)
		if err == nil {
			a.watched.setIdentity(w.Archive.Name(), id)
		}
		var newest map[wal.TimelineID]wal.Name
		if err == nil && writes {
			newest, err = w.Archive.Newest(ctx)
		}
		cancel()
		switch {
		case err != nil:
			a.log.Debug("not looked for other timelines", "archive", w.Archive.Name(), "reason", err)
		case writes:
			f.look(w.Archive.Name(), newest, ours, now)
		}
	}
	if writes {
		a.watched.setForks(f.conditions(ours.timeline, now))
	}
}

// metricsFile is metrics_file.
type metricsFile struct {
	path    string // empty: none is wanted
	log     *slog.Logger
	at      time.Time // when it was written last, or should have been
	writing single[struct{}]
	failed  bool
}

func (m *metricsFile) writeSometimes(ctx context.Context, s status, now time.Time) {
	if now.Sub(m.at) >= metricsRound-watchRound/2 {
		m.at = now
		m.write(ctx, s)
	}
}

// write puts the figures into the file, whole and at once. That it cannot is said
// once.
func (m *metricsFile) write(ctx context.Context, s status) {
	if m.path == "" {
		return
	}
	var b bytes.Buffer
	s.writeMetrics(&b)
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("%s are over", lookTime))
	defer cancel()
	_, err := m.writing.do(ctx, func(context.Context) (struct{}, error) { return struct{}{}, replaceReadable(m.path, b.Bytes()) })
	if err != nil && !m.failed {
		m.log.Warn("metrics_file cannot be written", "reason", err)
	}
	m.failed = err != nil
}

// replaceReadable replaces a file by one that everybody may read. Nothing is
// synced: after a crash the agent writes it anew.
func replaceReadable(path string, text []byte) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	// One that died left it; whoever else writes here has another name.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}
