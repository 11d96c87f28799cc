package multicall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

// status is what is known of the way of the WAL, without asking any archive: see
// "Status" in docs/agent.md.
type status struct {
	Result   severity  `json:"result"`
	Findings []finding `json:"findings"` // what is not as it should be
	Version  string    `json:"version"`
	Time     time.Time `json:"time"`
	PGData   string    `json:"pgdata"`
	SystemID uint64    `json:"system_identifier,string"`
	Major    int       `json:"postgres_major"`
	// Agent is what the agent says of itself.
	Agent agentStatus `json:"agent"`
	// Waiting is what PostgreSQL wants archived; nil: it cannot be looked at.
	Waiting *backlog `json:"waiting,omitempty"`
	// Archived is what it took for archived last.
	Archived     wal.Name            `json:"archived,omitzero"`
	ArchivedAt   time.Time           `json:"archived_at,omitzero"`
	Destinations []destinationStatus `json:"destinations"`

	segment int64 // the size of one
}

// destinationStatus is what is known of one destination.
type destinationStatus struct {
	Name  string           `json:"name"`
	Mode  destinationMode  `json:"mode"`
	State destinationState `json:"state"`
	Since time.Time        `json:"since,omitzero"` // of State
	// Last is the last file that it has, as far as somebody knows.
	Last   wal.Name  `json:"last_shipped,omitzero"`
	LastAt time.Time `json:"last_shipped_at,omitzero"`
	// Lag is what it does not have: what waits in pg_wal and in its queue. nil:
	// that cannot be looked at.
	Lag     *backlog     `json:"lag,omitempty"`
	Queue   *queueStatus `json:"queue,omitempty"`
	Error   string       `json:"last_error,omitempty"`
	ErrorAt time.Time    `json:"last_error_at,omitzero"`
	Classes []string     `json:"last_error_classes,omitempty"`
	// Format and Major are those of the archive, if the agent knows them.
	Format int `json:"format,omitempty"`
	Major  int `json:"postgres_major,omitempty"`
}

// queueStatus is what is known of a queue.
type queueStatus struct {
	backlog
	Folder  string    `json:"folder"`
	State   string    `json:"state,omitempty"` // as it was written down; empty: it was not
	Since   time.Time `json:"since,omitzero"`  // of State
	Reason  string    `json:"reason,omitempty"`
	Max     int64     `json:"max_bytes,omitempty"` // 0: no limit
	Free    int64     `json:"free_bytes"`          // on its file system
	MinFree int64     `json:"min_free_bytes,omitempty"`
}

// destinationMode is when PostgreSQL may be told that a destination has a file.
type destinationMode string

const (
	modeRequired destinationMode = "required" // when it has it
	modeQueued   destinationMode = "queued"   // when its queue has it
	modeSlave    destinationMode = "slave"    // the same, by cmd_archiver
)

// destinationState is what a destination was last.
type destinationState string

const (
	stateUnknown destinationState = "unknown"
	stateOK      destinationState = "ok"
	stateBehind  destinationState = "behind" // something waits longer than it should
	stateDown    destinationState = "down"   // it does not answer
	stateFailed  destinationState = "failed" // somebody has to act
)

// backlog is what waits somewhere.
type backlog struct {
	Files  int       `json:"files"`
	Bytes  int64     `json:"bytes"`
	Oldest wal.Name  `json:"oldest,omitzero"`       // the one that has waited longest
	Since  time.Time `json:"oldest_since,omitzero"` // and since when
	Age    seconds   `json:"oldest_seconds"`
}

// seconds is a time.Duration that is printed as a number of them.
type seconds time.Duration

// MarshalJSON is for --json.
func (s seconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

func (b *backlog) add(name wal.Name, bytes int64, since time.Time) {
	if b.Files == 0 || since.Before(b.Since) {
		b.Oldest, b.Since = name, since
	}
	b.Files++
	b.Bytes += bytes
}

// with is what waits here and there.
func (b backlog) with(other backlog) backlog {
	if b.Files == 0 || other.Files > 0 && other.Since.Before(b.Since) {
		b.Oldest, b.Since = other.Oldest, other.Since
	}
	b.Files += other.Files
	b.Bytes += other.Bytes
	return b
}

// at is the backlog with its age. A clock that was set back makes nothing younger
// than new.
func (b backlog) at(now time.Time) backlog {
	if b.Files > 0 {
		b.Age = seconds(max(0, now.Sub(b.Since)))
	}
	return b
}

// observer looks at what a configuration ships, again and again. One goroutine
// uses it at a time.
type observer struct {
	cfg     Config
	pgdata  string
	cluster archive.Cluster

	pgwal  single[walSeen]
	queues []*single[queueSeen] // of each destination; those without a queue are nil
}

// lookTime bounds one look at everything on this machine.
const lookTime = 3 * time.Second

func newObserver(cfg Config, pgdata string, cluster archive.Cluster) *observer {
	o := &observer{cfg: cfg, pgdata: pgdata, cluster: cluster}
	for range cfg.destinationNames() {
		o.queues = append(o.queues, new(single[queueSeen]))
	}
	return o
}

// destinationName is a destination before anything is known of it.
type destinationName struct {
	name  string
	mode  destinationMode
	queue string // its folder, if it has one
}

// destinationNames are those of a configuration.
func (c Config) destinationNames() []destinationName {
	var all []destinationName
	for _, u := range c.Archive {
		d := destinationName{name: u.String(), mode: modeRequired}
		if names(c.Queued, u) {
			d.mode, d.queue = modeQueued, queueName(u)
		}
		all = append(all, d)
	}
	for _, slave := range c.Slaves {
		all = append(all, destinationName{slave, modeSlave, slave})
	}
	return all
}

// look puts together what the agent says and what the files here tell, within
// lookTime.
func (o *observer) look(ctx context.Context, agent agentStatus, now time.Time) status {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("%s are over", lookTime))
	defer cancel()
	all := o.cfg.destinationNames()
	s := status{Version: Version(), Time: now.UTC(), PGData: o.pgdata, SystemID: o.cluster.SystemID, Major: o.cluster.Major, Agent: agent, segment: int64(o.cluster.SegmentSize)}
	s.Findings = []finding{}
	seen, queues, err := o.everything(ctx, all, agent)
	if err != nil {
		s.add(warning, "pg_wal", firstHint(err, ""), "what waits cannot be looked at: %v", err)
	} else {
		waiting := seen.waiting.at(now)
		s.Waiting, s.Archived, s.ArchivedAt = &waiting, seen.done, seen.doneAt
	}
	for i, d := range all {
		to := destinationStatus{Name: d.name, Mode: d.mode, State: stateUnknown}
		if known, ok := agent.of(d.name); ok {
			to.learn(known)
		}
		if err == nil {
			lag := seen.lags[i]
			to.Lag = &lag
		}
		if d.queue != "" {
			s.queue(&to, o.cfg, d.queue, queues[i], now)
		}
		s.settle(&to, o.cfg, now)
		s.Destinations = append(s.Destinations, to)
	}
	s.judge(o.cfg)
	return s
}

// everything looks at pg_wal and at all queues, side by side.
func (o *observer) everything(ctx context.Context, all []destinationName, agent agentStatus) (seen walSeen, queues []queueSeen, err error) {
	queues = make([]queueSeen, len(all))
	var looks sync.WaitGroup
	looks.Go(func() {
		seen, err = o.pgwal.do(ctx, func(ctx context.Context) (walSeen, error) { return o.lookAtWAL(ctx, all, agent) })
	})
	for i, d := range all {
		if d.queue == "" {
			continue
		}
		looks.Go(func() {
			q, err := o.queues[i].do(ctx, func(ctx context.Context) (queueSeen, error) { return o.lookAtQueue(ctx, d.queue) })
			q.err = err
			queues[i] = q
		})
	}
	looks.Wait()
	return seen, queues, err
}

// walSeen is what archive_status tells.
type walSeen struct {
	waiting backlog
	lags    []backlog // of it, what each destination does not have yet
	done    wal.Name  // on the current timeline
	doneAt  time.Time
}

// lookAtWAL reads archive_status through. A segment counts as long as its name
// says.
func (o *observer) lookAtWAL(ctx context.Context, all []destinationName, agent agentStatus) (walSeen, error) {
	seen := walSeen{lags: make([]backlog, len(all))}
	last := make([]wal.Name, len(all))
	for i, d := range all {
		if known, ok := agent.of(d.name); ok {
			last[i], _ = wal.ParseName(known.Last)
		}
	}
	control, err := wal.ReadControl(o.pgdata)
	if err != nil {
		return walSeen{}, err
	}
	err = local.PGWAL{Dir: filepath.Join(o.pgdata, "pg_wal")}.Marks(ctx, func(m local.Mark) {
		if m.Done {
			if m.At.After(seen.doneAt) && m.Name.Timeline() == control.Timeline && !followsAnother(control) {
				seen.done, seen.doneAt = m.Name, m.At
			}
			return
		}
		bytes := int64(0)
		if m.Name.Kind() == wal.KindSegment || m.Name.Kind() == wal.KindPartial {
			bytes = int64(control.SegmentSize)
		}
		seen.waiting.add(m.Name, bytes, m.At)
		for i := range all {
			if !arrived(m.Name, last[i]) {
				seen.lags[i].add(m.Name, bytes, m.At)
			}
		}
	})
	return seen, err
}

// followsAnother tells whether this is a standby: what it has marked as done
// somebody else archived.
func followsAnother(c wal.Control) bool {
	return c.State == wal.InArchiveRecovery || c.State == wal.ShutDownInRecovery
}

// arrived tells whether a file is one of those before the last one that an archive
// has: the agent is ahead of PostgreSQL's asking.
func arrived(name, last wal.Name) bool {
	return last != wal.Name{} && name.Timeline() == last.Timeline() && (name.Kind() == wal.KindHistory) == (last.Kind() == wal.KindHistory) &&
		wal.CompareArchiving(name, last) <= 0
}

// queueSeen is what a look at a queue came to.
type queueSeen struct {
	ship.Queue
	free int64
	err  error
}

func (o *observer) lookAtQueue(ctx context.Context, folder string) (queueSeen, error) {
	disk := local.New(o.cfg.LArchiveDir)
	free, _, err := disk.Space()
	if err != nil {
		return queueSeen{}, fmt.Errorf("the queues' directory: %w", err)
	}
	q, err := ship.Look(ctx, disk, folder)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // nothing has been queued yet
	}
	return queueSeen{Queue: q, free: free}, err
}

// queue adds what its queue tells of a destination.
func (s *status) queue(to *destinationStatus, cfg Config, folder string, q queueSeen, now time.Time) {
	if q.err != nil {
		to.Lag = nil
		if errors.Is(q.err, fs.ErrNotExist) { // nothing goes past it
			to.State, to.Error, to.ErrorAt = stateFailed, q.err.Error(), now
			return
		}
		s.add(warning, "queue of "+to.Name, firstHint(q.err, ""), "it cannot be looked at: %v", q.err)
		return
	}
	waits := backlog{Files: q.Files, Bytes: q.Bytes, Oldest: q.First, Since: q.Oldest}
	to.Queue = &queueStatus{
		backlog: waits.at(now), Folder: folder, State: string(q.State), Since: q.Since, Reason: q.Reason,
		Max: cfg.QueueMax, Free: q.free, MinFree: cfg.QueueMinFree,
	}
	if to.Lag != nil {
		lag := to.Lag.with(waits)
		to.Lag = &lag
	}
	switch {
	case q.State == ship.Failed:
		to.State = stateFailed
	case q.Files > 0 || q.State == ship.Behind:
		to.State = stateBehind
	case q.State == ship.OK:
		to.State = stateOK
	}
	to.Since = q.Since
	if q.Reason != "" && to.Error == "" {
		to.Error, to.ErrorAt = q.Reason, q.Since
	}
}

// learn takes over what the agent knows of an archive.
func (to *destinationStatus) learn(known archiveStatus) {
	to.Last, _ = wal.ParseName(known.Last)
	to.LastAt = known.LastAt
	to.Error, to.ErrorAt, to.Classes = known.Error, known.ErrorAt, known.Classes
	to.Format, to.Major = known.Format, known.Major
	switch {
	case !known.Down.IsZero():
		to.State, to.Since = stateDown, known.Down
	case known.Failing:
		to.State, to.Since = stateFailed, known.ErrorAt
	case known.Last != "":
		to.State = stateOK
	}
}

// settle completes what is known of a destination with what was archived.
func (s *status) settle(to *destinationStatus, cfg Config, now time.Time) {
	if to.Lag == nil {
		return
	}
	lag := to.Lag.at(now)
	to.Lag = &lag
	quiet := to.State == stateOK || to.State == stateUnknown
	if to.Last == (wal.Name{}) && quiet && (to.Queue == nil || to.Queue.Files == 0) {
		to.Last, to.LastAt = s.Archived, s.ArchivedAt
	}
	switch {
	case !quiet:
	case time.Duration(lag.Age) > cfg.late():
		to.State, to.Since = stateBehind, lag.Since
	case to.Last != wal.Name{}:
		to.State = stateOK
	}
}

// of is what the agent knows of an archive.
func (s agentStatus) of(name string) (archiveStatus, bool) {
	for _, a := range s.Archives {
		if a.Archive == name {
			return a, true
		}
	}
	return archiveStatus{}, false
}
