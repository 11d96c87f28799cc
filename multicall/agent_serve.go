package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"
)

// worker does what calls ask for.
type worker interface {
	// answer does what is asked. The file goes with the answer, or is nil.
	answer(ctx context.Context, req agentRequest) (agentAnswer, *os.File)
	// patience is how long a call can wait; 0: as long as it takes.
	patience(req agentRequest) time.Duration
}

// accept takes calls until the listener is closed.
func (p *post) accept(ctx context.Context, w worker) {
	for {
		conn, err := p.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors: others end theirs
			select {
			case <-time.After(agentRound):
				continue
			case <-p.ending:
				return
			}
		}
		p.calls.Go(func() {
			defer conn.Close()
			p.serve(ctx, conn, w)
		})
	}
}

// reply is an answer and the file that goes with it.
type reply struct {
	agentAnswer
	file *os.File
}

// close closes what was not sent, or was.
func (r reply) close() {
	if r.file != nil {
		_ = r.file.Close()
	}
}

// serve answers one call.
func (p *post) serve(ctx context.Context, conn *net.UnixConn, w worker) {
	if _, err := peer(conn); err != nil {
		p.log.Warn("a call was turned away", "reason", err)
		return
	}
	from := hear(conn)
	var req agentRequest
	if err := receive(conn, from, silence, &req); err != nil {
		p.log.Debug("a call said nothing that makes sense", "reason", err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := p.work(ctx, req, w)
	gone := make(chan struct{})
	go func() { // nothing more is said by the caller: its end is all that can come
		_ = conn.SetReadDeadline(time.Time{})
		from.Scan()
		close(gone)
	}()
	sent := p.keepWaiting(conn, done, gone, w.patience(req))
	cancel()
	if !sent { // what is still under way may end with a file
		p.calls.Go(func() { (<-done).close() })
	}
}

// work begins what is asked for.
func (p *post) work(ctx context.Context, req agentRequest, w worker) <-chan reply {
	done := make(chan reply, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				done <- reply{agentAnswer{Errors: tellErrors(&panicked{cause, debug.Stack()})}, nil}
			}
		}()
		answer, f := w.answer(ctx, req)
		done <- reply{answer, f}
	}()
	return done
}

// keepWaiting tells a call that its answer is being worked at, until it is there,
// and sends it; false if it is not there in time.
func (p *post) keepWaiting(conn *net.UnixConn, done <-chan reply, gone <-chan struct{}, patience time.Duration) bool {
	var overdue <-chan time.Time
	if patience > 0 { // a call does not wait for what outlives its time: it hears nothing any more
		overdue = time.After(patience + 2*heartbeat)
	}
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-overdue:
			return false
		case <-gone:
			return false // a file stays under way: PostgreSQL asks again
		case r := <-done:
			r.Done = true
			if err := sendFile(conn, r.agentAnswer, r.file, silence); err != nil {
				p.told.putBack(r.Log)
			}
			r.close()
			return true
		case <-tick.C:
			if err := send(conn, agentAnswer{Busy: true}, silence); err != nil {
				return false
			}
		}
	}
}

// answer does what is asked.
func (a *agent) answer(ctx context.Context, req agentRequest) (agentAnswer, *os.File) {
	switch req.Op {
	case opStop:
		a.end("it was told to")
		return agentAnswer{}, nil
	case opStatus:
		text, err := json.Marshal(a.status())
		return agentAnswer{Status: text, Errors: tellErrors(err)}, nil
	case opPush:
	default:
		return agentAnswer{Declined: fmt.Sprintf("it does not know %q", req.Op)}, nil
	}
	if why := a.declines(req); why != "" {
		return agentAnswer{Declined: why}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.patience(req), fmt.Errorf("push_timeout of %s is over", a.cfg.PushTimeout))
	defer cancel()
	a.count(1)
	defer a.count(-1)
	err := a.push(ctx, req.Path)
	if err != nil && a.interrupted() {
		return agentAnswer{Declined: "it was told to end"}, nil // the call ships by itself
	}
	return agentAnswer{Errors: tellErrors(err), Log: a.told.take()}, nil
}

// count counts the calls that push.
func (a *agent) count(n int) {
	a.pushing.Lock()
	defer a.pushing.Unlock()
	a.pushing.n += n
}

// patience is how long a call can wait.
func (a *agent) patience(req agentRequest) time.Duration {
	if req.Patience > 0 {
		return min(a.cfg.PushTimeout, time.Duration(req.Patience)*time.Millisecond)
	}
	return a.cfg.PushTimeout
}

// declines is why a file is not for this agent. One that is out of date ends.
func (a *agent) declines(req agentRequest) string {
	if why := a.outdated(req); why != "" {
		return why
	}
	if !sameDirectory(filepath.Dir(req.Path), filepath.Join(a.id.pgdata, "pg_wal")) {
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
	if err := a.cfg.mustBeOnline(path); err != nil {
		return err
	}
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
