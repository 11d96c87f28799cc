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
