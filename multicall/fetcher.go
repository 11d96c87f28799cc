package multicall

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/prefetch"
	"pitr/archive/wal"
	"pitr/standby"
)

// fetcher is the process that reads ahead for the calls of restore_command: see
// docs/fetching.md.
type fetcher struct {
	*post
	reader *prefetch.Reader
	free   free

	mu   sync.Mutex // guards what follows
	at   int        // calls under way
	had  int        // and all that were
	last time.Time  // when the last one came to its end
}

const (
	// fetcherIdle is how long a fetcher keeps what nobody asks for. PostgreSQL may be
	// busy with one segment for minutes.
	fetcherIdle = 10 * time.Minute

	// mostThreads is more than a fetcher has unless its disk hangs, and keeps what was
	// asked of it for ever.
	mostThreads = 64

	// fetcherShare is which part of what is free in pg_wal a fetcher may take: one in
	// so many. PostgreSQL stops when pg_wal is full.
	fetcherShare = 4
)

// newFetcher prepares a fetcher. The lock is held when it returns.
func (c *call) newFetcher(cfg Config, id agentIdentity, place agentPlace) (*fetcher, func(), error) {
	p, release, err := c.newPost(cfg, id, place)
	if err != nil {
		return nil, nil, err
	}
	f := &fetcher{post: p, last: time.Now()}
	dir := filepath.Join(id.pgdata, "pg_wal")
	f.reader = &prefetch.Reader{
		Connect: func() prefetch.Source { return cfg.source(p.cluster, c.log) }, Size: p.cluster.SegmentSize, Log: c.log,
		Place: func() (*os.File, error) { return local.Unnamed(dir) },
		Room:  func(held int) int { return fetcherRoom(cfg.Prefetch, p.cluster.SegmentSize, f.free.bytes(), held) },
	}
	return f, release, nil
}

// source is the archives over connections of their own.
func (c Config) source(cluster archive.Cluster, log *slog.Logger) prefetch.Source {
	c.connections = new(connections)
	return prefetch.Source{Archives: c.archives(c.readFrom(), cluster, log), Close: c.connections.close}
}

// free is how much is free where pg_wal is. A disk that hangs must not hold up who
// wants to know: then nothing is.
type free struct {
	mu   sync.Mutex // guards the rest
	room int64
	at   time.Time
}

func (f *free) bytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) > silence {
		return 0
	}
	return f.room
}

// look looks. It may hang.
func (f *free) look(dir string) {
	room := freeIn(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room, f.at = room, time.Now()
}

// watch looks every second, until ctx ends.
func (f *free) watch(ctx context.Context, dir string) {
	for ctx.Err() == nil {
		f.look(dir)
		select {
		case <-time.After(agentRound):
		case <-ctx.Done():
		}
	}
}

// freeIn is how many bytes are free where a directory is; 0 if nobody knows.
func freeIn(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// fetcherRoom is how many segments may be held: as many as prefetch says, one at
// least, but not where that would take a large part of what is free.
func fetcherRoom(prefetch int64, size wal.SegmentSize, free int64, held int) int {
	if prefetch <= 0 {
		return 0
	}
	most := max(1, prefetch/int64(size))
	return int(min(most, (free/int64(size)+int64(held))/fetcherShare))
}

// run serves calls until the fetcher is to end. after is a segment that PostgreSQL
// has got already, or the zero Name.
func (f *fetcher) run(ctx context.Context, after wal.Name) error {
	debug.SetMemoryLimit(agentMemory)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go f.free.watch(ctx, filepath.Join(f.id.pgdata, "pg_wal"))
	go f.accept(ctx, f)
	if begin, ok := f.beginning(after); ok {
		f.free.look(filepath.Join(f.id.pgdata, "pg_wal"))
		f.reader.Start(begin)
	}
	f.calls.Go(func() { f.reader.Warm(ctx) })
	f.untilEnded(ctx, f.unwanted)
	cancel()
	within(silence, f.calls.Wait)
	within(silence, f.reader.Close)
	return nil
}

// beginning is the segment after which there is something to read ahead. A recovery
// asks for histories first, and then for the segment where the backup label or, if
// there is none, pg_control says that redo begins (InitWalRecovery in
// xlogrecovery.c).
func (f *fetcher) beginning(after wal.Name) (wal.Name, bool) {
	size := f.cluster.SegmentSize
	switch after.Kind() {
	case wal.KindSegment:
		return after, true
	case wal.KindHistory:
	default:
		return wal.Name{}, false
	}
	first, err := redoBegins(f.id.pgdata, size)
	number, numberErr := first.Number(size)
	if err = errors.Join(err, numberErr); err != nil || number == 0 {
		f.log.Debug("nothing tells where redo begins", "reason", err)
		return wal.Name{}, false
	}
	return wal.SegmentName(first.Timeline(), number-1, size), true
}

// redoBegins is the segment that a recovery of a data directory begins with.
func redoBegins(pgdata string, size wal.SegmentSize) (wal.Name, error) {
	label, err := os.ReadFile(filepath.Join(pgdata, "backup_label"))
	if err == nil {
		_, segment, err := wal.BackupStart(label)
		return segment, err
	}
	control, err := wal.ReadControl(pgdata)
	if err != nil {
		return wal.Name{}, err
	}
	return wal.SegmentName(control.Timeline, size.SegmentOf(control.Redo), size), nil
}

// unwanted is why the fetcher has to end, or nothing.
func (f *fetcher) unwanted() string {
	switch {
	case !f.owns():
		return "its socket is gone"
	case threads() > mostThreads:
		return "a disk hangs"
	case f.idle() < fetcherIdle:
	case f.follows:
		return "nobody asks for anything"
	default:
		f.reader.Forget()
	}
	switch {
	case !f.follows:
		return ""
	case standby.ModeOf(f.id.pgdata) == standby.Promotion:
		return "the server is not in recovery any more"
	}
	return f.serverGone()
}

// threads is how many threads this process has.
func threads() int {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0
	}
	return len(entries)
}

// idle is for how long nobody has asked for anything.
func (f *fetcher) idle() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at > 0 {
		return 0
	}
	return time.Since(f.last)
}

func (f *fetcher) count(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.had, f.last = f.at+n, f.had+max(n, 0), time.Now()
}

// patience is none: who asks says in docs/exit-codes.md how long it waits.
func (f *fetcher) patience(agentRequest) time.Duration { return 0 }

// answer does what is asked.
func (f *fetcher) answer(ctx context.Context, req agentRequest) (agentAnswer, *os.File) {
	switch req.Op {
	case opStop:
		f.end("it was told to")
		return agentAnswer{}, nil
	case opStatus:
		text, err := json.Marshal(f.status())
		return agentAnswer{Status: text, Errors: tellErrors(err)}, nil
	case opRestore:
	default:
		return agentAnswer{Declined: fmt.Sprintf("it does not know %q", req.Op)}, nil
	}
	if why := f.outdated(req); why != "" {
		return agentAnswer{Declined: why}, nil
	}
	name, err := wal.ParseName(req.Name)
	if err != nil {
		return agentAnswer{Declined: err.Error()}, nil
	}
	f.count(1)
	defer f.count(-1)
	if modeCalled(req.Mode) == standby.Recovery {
		f.reader.Ending(name)
	}
	got, from, err := f.reader.Get(ctx, name, f.patienceFor(req, name))
	if why := f.reason(); err != nil && (why != "" || ctx.Err() != nil) {
		return agentAnswer{Declined: cmp.Or(why, "it was told to end")}, nil // the call fetches by itself
	}
	return agentAnswer{From: from, Errors: tellVerdicts(err), Log: f.told.take()}, got
}

// patienceFor is how long a call waits for the next byte of a file.
func (f *fetcher) patienceFor(req agentRequest, name wal.Name) time.Duration {
	if req.Patience > 0 {
		return time.Duration(req.Patience) * time.Millisecond
	}
	r := standby.Restore{Mode: modeCalled(req.Mode), Retry: f.cfg.RestoreRetry}
	return r.Patience(name)
}

// modeCalled is the mode by its name; the most patient one if it is unknown.
func modeCalled(word string) standby.Mode {
	for _, m := range []standby.Mode{standby.Standby, standby.Promotion} {
		if m.String() == word {
			return m
		}
	}
	return standby.Recovery
}

// fetcherStatus is what a fetcher says of itself.
type fetcherStatus struct {
	Running bool      `json:"running"`
	PID     int       `json:"pid,omitempty"`
	Build   string    `json:"build,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	// Asked is how many files PostgreSQL has asked for, Taken how many of them were
	// ready or under way, and Held how many are now.
	Asked int `json:"asked"`
	Taken int `json:"taken"`
	Held  int `json:"held"`
}

func (f *fetcher) status() fetcherStatus {
	s := fetcherStatus{Running: true, PID: os.Getpid(), Build: Version(), Since: f.began.UTC()}
	s.Held, s.Taken = f.reader.Held()
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Asked = f.had
	return s
}
