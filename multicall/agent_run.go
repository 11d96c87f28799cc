package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/ship"
	"pitr/archive/wal"
	"pitr/backup/pg"
)

// agent is the process that ships for the calls of archive_command.
type agent struct {
	*call
	cfg     Config
	place   agentPlace
	id      agentIdentity
	build   string
	digest  string
	cluster archive.Cluster
	// follows: it ends with its postmaster.
	follows bool
	ahead   *ship.Ahead // nil: no archive must have it
	way     delivery
	drainer *ship.Drainer // nil: there are no queues
	told    *memoir
	watched watched
	began   time.Time

	listener *net.UnixListener
	socket   fs.FileInfo // of what it listens on
	calls    sync.WaitGroup

	mu     sync.Mutex // guards the rest
	why    string     // why it ends; empty: it does not
	ending chan struct{}
	at     int // calls under way
}

// agentRound is how often an agent looks whether it is still wanted.
const agentRound = time.Second

// agentMemory is what its memory is kept near.
const agentMemory = 40 << 20

// newAgent prepares an agent. The lock is held when it returns.
func (c *call) newAgent(cfg Config, id agentIdentity, place agentPlace) (*agent, func(), error) {
	cluster, err := clusterOf(id.pgdata)
	if err != nil {
		return nil, nil, err
	}
	digest, err := id.digest()
	if err != nil {
		return nil, nil, err
	}
	if err := place.make(); err != nil {
		return nil, nil, err
	}
	release, err := place.hold()
	if err != nil {
		return nil, nil, err
	}
	a := &agent{
		call: c, cfg: cfg, id: id, place: place, build: buildID(), digest: digest, cluster: cluster,
		told: newMemoir(), began: time.Now(), ending: make(chan struct{}),
	}
	if a.listener, err = place.listen(); err == nil {
		a.socket, err = os.Lstat(place.socket())
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	c.log = slog.New(newTeeHandler(newLineHandler(a.told, "agent", c.level), c.log.Handler()))
	a.prepare()
	return a, release, nil
}

// prepare makes the ways to all destinations. Nothing is connected yet.
func (a *agent) prepare() {
	if len(a.cfg.Required()) > 0 {
		a.ahead = a.newAhead()
	}
	a.way.required = func(ctx context.Context, name wal.Name, _ archive.Source) ([]archive.Pushed, error) {
		if a.ahead == nil {
			return nil, nil
		}
		return a.ahead.Push(ctx, name)
	}
	if len(a.cfg.Queued) == 0 && len(a.cfg.Slaves) == 0 {
		return
	}
	a.way.queues = a.shipper(a.cfg, a.cluster)
	a.drainer = &ship.Drainer{
		Shipper: a.way.queues, Workers: a.cfg.MaxQueueWorkers, Wait: a.cfg.QueueWait, Budget: a.cfg.PushTimeout,
		Changed: func(r ship.Result) { a.tell([]ship.Result{r}) },
	}
}

// tell logs what became of a file in queues, and alerts.
func (a *agent) tell(results []ship.Result) {
	for _, r := range results {
		if r.Outcome == ship.Delivered {
			a.watched.delivered(r.Destination, r.File, time.Now())
		}
	}
	a.sayShipped(a.cfg, results)
	a.notify(a.cfg, results)
}

// newAhead is the way of the required archives.
func (a *agent) newAhead() *ship.Ahead {
	ahead := &ship.Ahead{
		WAL:    pgWAL{local.PGWAL{Dir: filepath.Join(a.id.pgdata, "pg_wal")}},
		Budget: a.cfg.PushTimeout, Patience: a.cfg.SSHTimeout, Log: a.log,
	}
	for _, u := range a.cfg.Required() {
		dir := a.cfg.filesAt(u, a.log)
		store := files.NewStore(dir, local.Writer())
		one := a.cfg.archiveOf(store, u, a.cluster, a.log)
		ahead.Ways = append(ahead.Ways, ship.Way{Archive: one, Intake: archive.NewIntake(one, store)})
	}
	return ahead
}

// pgWAL is pg_wal as package ship wants it.
type pgWAL struct{ local.PGWAL }

func (w pgWAL) Open(name wal.Name) (ship.File, error) {
	f, err := w.PGWAL.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// run serves calls until the agent is to end, and then finishes what is under way.
func (a *agent) run(ctx context.Context) error {
	// Two cores' worth of buffers, and no garbage beyond that.
	debug.SetMemoryLimit(agentMemory)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go a.accept(ctx)
	if a.drainer != nil {
		drained := make(chan struct{})
		go func() { defer close(drained); a.drainer.Run(ctx) }()
		defer func() { cancel(); <-drained }()
	}
	var watching sync.WaitGroup
	watching.Go(func() { a.watch(ctx) })
	watching.Go(func() { a.watchForks(ctx) })
	defer func() { cancel(); within(2*lookTime, watching.Wait) }()
	tick := time.NewTicker(agentRound)
	defer tick.Stop()
	for a.reason() == "" {
		select {
		case <-ctx.Done():
			a.end(context.Cause(ctx).Error())
		case <-a.ending:
		case <-tick.C:
			if why := a.unwanted(); why != "" {
				a.end(why)
			}
		}
	}
	a.log.Debug("the agent ends", "reason", a.reason())
	a.close()
	return nil
}

// close ends the agent's own work: calls that are under way get their answers.
func (a *agent) close() {
	within(a.cfg.PushTimeout, a.calls.Wait)
	if a.ahead != nil {
		ctx, cancel := context.WithTimeout(context.Background(), silence)
		defer cancel()
		a.ahead.Close(ctx)
	}
}

// end takes no call any more.
func (a *agent) end(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.why != "" {
		return
	}
	a.why = why
	close(a.ending)
	// The socket first: whoever finds none ships by itself.
	if a.owns() {
		_ = os.Remove(a.place.socket())
	}
	_ = a.listener.Close()
}

func (a *agent) reason() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why
}

// owns tells whether the socket at the agent's place is its own.
func (a *agent) owns() bool {
	there, err := os.Lstat(a.place.socket())
	return err == nil && os.SameFile(there, a.socket)
}

// unwanted is why the agent has to end, or nothing.
func (a *agent) unwanted() string {
	if !a.owns() {
		return "its socket is gone"
	}
	if !a.follows || a.busy() || a.drainer != nil && a.waiting() {
		return ""
	}
	p, err := pg.ReadPostmaster(a.id.pgdata)
	switch {
	case errors.Is(err, pg.ErrNotRunning):
		return "the server has ended"
	case err == nil && !lives(p):
		return "the server is gone"
	}
	return ""
}

// waiting tells whether a queue holds something, as far as its disk tells.
func (a *agent) waiting() bool {
	ctx, cancel := context.WithTimeout(context.Background(), agentRound)
	defer cancel()
	answer := make(chan bool, 1)
	go func() {
		// Without its directory nobody knows what waits, and nobody can send it.
		_, err := os.Stat(a.cfg.LArchiveDir)
		answer <- !errors.Is(err, fs.ErrNotExist) && a.drainer.Waiting(ctx)
	}()
	select {
	case waits := <-answer:
		return waits
	case <-ctx.Done():
		return true
	}
}

// busy tells whether a call or a file is under way.
func (a *agent) busy() bool {
	a.mu.Lock()
	at := a.at
	a.mu.Unlock()
	return at > 0 || a.ahead != nil && a.ahead.Busy()
}

// accept takes calls until the listener is closed.
func (a *agent) accept(ctx context.Context) {
	for {
		conn, err := a.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors: others end theirs
			select {
			case <-time.After(agentRound):
				continue
			case <-a.ending:
				return
			}
		}
		a.mu.Lock()
		a.at++
		a.mu.Unlock()
		a.calls.Go(func() {
			defer func() { a.mu.Lock(); a.at--; a.mu.Unlock() }()
			defer conn.Close()
			a.serve(ctx, conn)
		})
	}
}

// serve answers one call.
func (a *agent) serve(ctx context.Context, conn *net.UnixConn) {
	if _, err := peer(conn); err != nil {
		a.log.Warn("a call was turned away", "reason", err)
		return
	}
	from := hear(conn)
	var req agentRequest
	if err := receive(conn, from, silence, &req); err != nil {
		a.log.Debug("a call said nothing that makes sense", "reason", err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan agentAnswer, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- agentAnswer{Errors: tellErrors(&panicked{p, debug.Stack()})}
			}
		}()
		done <- a.answer(ctx, req)
	}()
	gone := make(chan struct{})
	go func() { // nothing more is said by the caller: its end is all that can come
		_ = conn.SetReadDeadline(time.Time{})
		from.Scan()
		close(gone)
	}()
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case answer := <-done:
			answer.Done = true
			answer.Log = append(a.told.take(), answer.Log...)
			if err := send(conn, answer, silence); err != nil {
				a.told.putBack(answer.Log)
			}
			return
		case <-gone:
			return // the file stays under way: PostgreSQL asks again
		case <-tick.C:
			if err := send(conn, agentAnswer{Busy: true}, silence); err != nil {
				return
			}
		}
	}
}

// answer does what is asked.
func (a *agent) answer(ctx context.Context, req agentRequest) agentAnswer {
	switch req.Op {
	case opStop:
		a.end("it was told to")
		return agentAnswer{}
	case opStatus:
		text, err := json.Marshal(a.status())
		return agentAnswer{Status: text, Errors: tellErrors(err)}
	case opPush:
	default:
		return agentAnswer{Declined: fmt.Sprintf("it does not know %q", req.Op)}
	}
	if why := a.declines(req); why != "" {
		return agentAnswer{Declined: why}
	}
	patience := a.cfg.PushTimeout
	if req.Patience > 0 {
		patience = min(patience, time.Duration(req.Patience)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("push_timeout of %s is over", a.cfg.PushTimeout))
	defer cancel()
	return agentAnswer{Errors: tellErrors(a.push(ctx, req.Path))}
}

// declines is why a file is not for this agent. One that is out of date ends.
func (a *agent) declines(req agentRequest) string {
	switch {
	case req.Version != agentVersion, req.Build != a.build:
		a.end("a call came from another build")
		return "it is another build"
	case req.Config != a.digest:
		a.end("the configuration has changed")
		return "its configuration is another one"
	case a.reason() != "":
		return "it is ending"
	case !sameDirectory(filepath.Dir(req.Path), filepath.Join(a.id.pgdata, "pg_wal")):
		return "the file is not in pg_wal"
	}
	return ""
}

func sameDirectory(one, other string) bool {
	if one == other {
		return true
	}
	a, err := os.Stat(one)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

// push brings a file where it has to be.
func (a *agent) push(ctx context.Context, path string) error {
	f, err := openWAL(path)
	if err != nil {
		return err
	}
	defer f.Close()
	stored, shipped, err := a.way.run(ctx, f)
	a.tell(shipped)
	if err != nil {
		return err
	}
	sayPushed(a.log, f.name, stored)
	return nil
}

// agentStatus is what an agent says of itself.
type agentStatus struct {
	Running  bool            `json:"running"`
	PID      int             `json:"pid,omitempty"`
	Build    string          `json:"build,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	Busy     bool            `json:"busy"`
	Archives []archiveStatus `json:"archives,omitempty"`
	// Problem is why it could not be asked, if somebody is there.
	Problem string `json:"problem,omitempty"`
}

// archiveStatus is what an agent knows of a destination.
type archiveStatus struct {
	Archive string    `json:"archive"` // an archive's URL, a slave's name
	Last    string    `json:"last,omitempty"`
	LastAt  time.Time `json:"last_at,omitzero"`
	Error   string    `json:"error,omitempty"` // the last one
	ErrorAt time.Time `json:"error_at,omitzero"`
	Classes []string  `json:"error_classes,omitempty"`
	Failing bool      `json:"failing,omitempty"` // nothing has succeeded since
	Down    time.Time `json:"down_since,omitzero"`
	Format  int       `json:"format,omitempty"` // of the archive, once it has said it
	Major   int       `json:"postgres_major,omitempty"`
}

func (a *agent) status() agentStatus {
	s := agentStatus{Running: true, PID: os.Getpid(), Build: Version(), Since: a.began.UTC(), Busy: a.busy()}
	if a.ahead != nil {
		for _, w := range a.ahead.States() {
			s.Archives = append(s.Archives, a.requiredStatus(w))
		}
	}
	for _, d := range a.cfg.destinationNames() {
		if d.queue != "" {
			s.Archives = append(s.Archives, a.queuedStatus(d))
		}
	}
	return s
}

func (a *agent) requiredStatus(w ship.WayState) archiveStatus {
	id := a.watched.identity(w.Archive)
	one := archiveStatus{Archive: w.Archive, LastAt: w.LastAt, Down: w.Down, Failing: w.Failing, Format: id.Format, Major: id.Major}
	if !w.LastAt.IsZero() {
		one.Last = w.Last.String()
	}
	if w.Err != nil {
		one.Error, one.ErrorAt, one.Classes = w.Err.Error(), w.ErrAt, classesOf(w.Err)
	}
	return one
}

// queuedStatus is what an agent knows of a destination with a queue. The rest is
// written down beside the queue.
func (a *agent) queuedStatus(d destinationName) archiveStatus {
	one := archiveStatus{Archive: d.name}
	if last, ok := a.watched.lastOf(d.queue); ok {
		one.Last, one.LastAt = last.name.String(), last.at
	}
	return one
}
