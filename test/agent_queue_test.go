package test

import (
	"testing"
	"time"

	"pitr/test/proxy"
)

// silentHost accepts connections and never says a word.
var silentHost = proxy.Silent()

// TestAgentEmptiesQueues: of two slaves one is away for 20 segments. The other one
// never waits for it; and when it is back, the agent brings it everything, in
// order, although PostgreSQL archives nothing any more.
func TestAgentEmptiesQueues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		make func(*testing.T) *slave
		away func(*slave) (back func())
	}{
		{"connection refused", newSlave, (*slave).goesDown},
		{"silent", newFarSlave, (*slave).fallsSilent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			wantQueueEmptied(t, 20, tt.make, tt.away)
		})
	}
}

func (s *slave) goesDown() (back func()) {
	s.stop()
	return s.start
}

// fallsSilent lets also the agent's connection, which is there already, end.
func (s *slave) fallsSilent() (back func()) {
	s.proxy.Set(silentHost)
	s.proxy.Drop()
	return func() {
		s.proxy.Set(proxy.Plan{})
		s.proxy.Drop()
	}
}

func wantQueueEmptied(t *testing.T, segments int, newFar func(*testing.T) *slave, away func(*slave) (back func())) {
	near, far := newSlave(t), newFar(t)
	s := newShipping(t, 15, []*slave{far, near}, "ssh_timeout: 10", "ssh_timeout: 10\n    queue_wait: 1", "debug: on", "debug: off",
		withoutAgent, "\n    agent: auto\n    agent_dir: "+newDirectory(t, "g")+"\n")
	s.endsAgents()
	s.observe()
	s.primary.start()
	s.primary.switchWAL()
	agent := s.waitAgent()

	back := away(far)
	s.primary.switches(segments)
	s.primary.waitArchived()
	if n := len(s.waiting(far)); n < segments {
		t.Errorf("only %d files wait for the slave that is away", n)
	}
	calls := len(s.called())
	back()
	eventually(t, "the queue is empty", func() bool { return len(s.waiting(far)) == 0 })
	if now := len(s.called()); now != calls {
		t.Errorf("there were %d more calls", now-calls)
	}
	if got := s.waitAgent(); got != agent {
		t.Errorf("agent %d is now %d", agent, got)
	}

	s.wantQuick(near, 5*time.Second) // that is half of ssh_timeout: who waits for the other slave waits longer
	for _, slave := range s.slaves {
		if n := slave.wantAcknowledged(s.primary); n <= segments {
			t.Errorf("%s: only %d files are there", slave.host, n)
		}
		slave.wantInOrder(t, slave.host, s.primary.status(".done"))
	}
	s.wantAlerts(far.host, "WARNING", "OK")
}

// endsAgents ends the agents that the calls have started, with the test.
func (s *shipping) endsAgents() {
	s.t.Helper()
	c := s.primary
	s.t.Cleanup(func() {
		c.kill()
		for _, a := range agentsLeft(c.dir) {
			c.kills(a.pid)
		}
	})
}

func (s *shipping) waitAgent() int {
	s.t.Helper()
	var pid int
	eventually(s.t, "there is an agent", func() bool {
		status := s.primary.agentOf(s.config)
		pid = status.PID
		return status.Running
	})
	return pid
}
