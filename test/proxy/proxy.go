package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Event is what happens to a direction after so many bytes.
type Event int

const (
	Nothing Event = iota
	Cut           // both directions end, as when a host closes a connection
	Stall         // nothing is read or written any more, and nobody is told
	Pause         // nothing is read for a while, and then everything goes on
)

// Flow is one direction of a connection.
type Flow struct {
	Delay time.Duration // how long a byte is under way
	Rate  int64         // bytes a second; 0 is no limit
	After int64         // bytes that pass before Then
	Then  Event
	For   time.Duration // how long a Pause is
}

// Plan is what a connection goes through: Up is what the client sends.
type Plan struct{ Up, Down Flow }

// Distance is a server that is a round trip away.
func Distance(roundTrip time.Duration) Plan {
	return Plan{Up: Flow{Delay: roundTrip / 2}, Down: Flow{Delay: roundTrip / 2}}
}

// Silent is a host that accepts connections and never says a word.
func Silent() Plan { return Plan{Up: Flow{Then: Stall}, Down: Flow{Then: Stall}} }

// Proxy listens on a loopback address. Goroutines may share it.
type Proxy struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup
	closed   chan struct{} // closed by Close
	up, down atomic.Int64

	mu    sync.Mutex // guards what follows
	plan  Plan
	conns map[*conn]bool
}

// Listen starts a proxy in front of a TCP address. The caller closes it.
func Listen(target string, plan Plan) (*Proxy, error) {
	return ListenAt("127.0.0.1:0", target, plan)
}

// ListenAt does so at an address of the caller's choice.
func ListenAt(addr, target string, plan Plan) (*Proxy, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: l, closed: make(chan struct{}), plan: plan, conns: map[*conn]bool{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where clients connect: host and port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set changes what connections made from now on go through.
func (p *Proxy) Set(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// Passed is how many bytes went to the server and came from it, in all
// connections so far.
func (p *Proxy) Passed() (up, down int64) { return p.up.Load(), p.down.Load() }

// Drop ends all connections that there are, also stalled ones.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.end()
	}
}

// Close ends everything and waits until it has ended. It must be called once.
func (p *Proxy) Close() error {
	close(p.closed)
	err := p.listener.Close()
	p.Drop()
	p.running.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client was quicker to go
		}
		p.running.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

// serve takes one connection to its end.
func (p *Proxy) serve(client *net.TCPConn) {
	c, plan := p.enter(client)
	defer p.leave(c)
	// SYN, SYN and ACK, ACK: three times the way before a server says a word.
	if !c.sleep(2*plan.Up.Delay + plan.Down.Delay) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil || !c.attach(server.(*net.TCPConn)) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.carry(c.server, c.client, plan.Up, &p.up) })
	both.Go(func() { c.carry(c.client, c.server, plan.Down, &p.down) })
	both.Wait()
}

func (p *Proxy) enter(client *net.TCPConn) (*conn, Plan) {
	c := &conn{client: client, ended: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	select {
	case <-p.closed:
		c.end()
	default:
	}
	return c, p.plan
}

func (p *Proxy) leave(c *conn) {
	c.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}
