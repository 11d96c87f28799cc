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

	"pitr/archive"
)

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
		a.calls.Go(func() {
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
	// A call does not wait for what outlives its time: it hears nothing any more.
	overdue := time.After(a.patience(req) + 2*heartbeat)
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-overdue:
			return
		case answer := <-done:
			answer.Done = true
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
	ctx, cancel := context.WithTimeoutCause(ctx, a.patience(req), fmt.Errorf("push_timeout of %s is over", a.cfg.PushTimeout))
	defer cancel()
	a.count(1)
	defer a.count(-1)
	err := a.push(ctx, req.Path)
	if err != nil && a.interrupted() {
		return agentAnswer{Declined: "it was told to end"} // the call ships by itself
	}
	return agentAnswer{Errors: tellErrors(err), Log: a.told.take()}
}

// count counts the calls that push.
func (a *agent) count(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at += n
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
	switch {
	case req.Version != agentVersion, req.Build != a.build:
		a.end("a call came from another build")
		return "it is another build"
	case req.Config != a.digest:
		a.end("the configuration has changed")
		return "its configuration is another one"
	case a.reason() != "":
		return "it is ending"
	case a.cluster != a.clusterNow():
		a.end("the data directory is another cluster's now")
		return "it serves another cluster"
	case !sameDirectory(filepath.Dir(req.Path), filepath.Join(a.id.pgdata, "pg_wal")):
		return "the file is not in pg_wal"
	}
	return ""
}

// clusterNow is the cluster in the data directory: after initdb or a restore in its
// place it is another one.
func (a *agent) clusterNow() archive.Cluster {
	now, err := clusterOf(a.id.pgdata)
	if err != nil {
		return archive.Cluster{}
	}
	return now
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
