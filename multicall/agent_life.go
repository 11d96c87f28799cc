package multicall

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// agentRound is how often an agent looks whether it is still wanted.
const agentRound = time.Second

// agentMemory is what its memory is kept near.
const agentMemory = 40 << 20

// run serves calls until the agent is to end, and then finishes what is under way.
func (a *agent) run(ctx context.Context) error {
	// Two cores' worth of buffers, and no garbage beyond that.
	debug.SetMemoryLimit(agentMemory)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go a.accept(ctx, a)
	if a.drainer != nil {
		drained := make(chan struct{})
		go func() { defer close(drained); a.drainer.Run(ctx) }()
		defer func() { cancel(); <-drained }()
	}
	var watching sync.WaitGroup
	watching.Go(func() { a.watch(ctx) })
	watching.Go(func() { a.watchForks(ctx) })
	defer func() { cancel(); within(2*lookTime, watching.Wait) }()
	a.untilEnded(ctx, a.unwanted)
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

// unwanted is why the agent has to end, or nothing.
func (a *agent) unwanted() string {
	if !a.owns() {
		return "its socket is gone"
	}
	if !a.follows || a.busy() || a.drainer != nil && a.waiting() {
		return ""
	}
	return a.serverGone()
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
	a.pushing.Lock()
	n := a.pushing.n
	a.pushing.Unlock()
	return n > 0 || a.ahead != nil && a.ahead.Busy()
}
