package proxy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a client's connection, and the one to the server in its name.
type conn struct {
	client *net.TCPConn
	ended  chan struct{} // closed by end

	mu     sync.Mutex // guards what follows
	over   bool
	server *net.TCPConn
}

// chunk is some bytes that came at once. None is the end of the direction.
type chunk struct {
	data []byte
	due  time.Time // when they arrive
}

// end closes both connections. It may be called more than once.
func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	close(c.ended)
	c.client.Close()
	if c.server != nil {
		c.server.Close()
	}
}

// attach takes the connection to the server over, and tells whether anybody
// still wants it.
func (c *conn) attach(server *net.TCPConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		server.Close()
		return false
	}
	c.server = server
	return true
}

// sleep tells whether the connection outlived it.
func (c *conn) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ended:
		return false
	}
}

// underWay is how many chunks a direction may hold: more than a fast line sends
// within the delays that are of use.
const underWay = 4096

// carry moves one direction's bytes, from reading them to their arrival.
func (c *conn) carry(to, from *net.TCPConn, f Flow, passed *atomic.Int64) {
	line := make(chan chunk, underWay)
	var reader sync.WaitGroup
	reader.Go(func() { c.take(from, f, line) })
	c.deliver(to, f, line, passed)
	reader.Wait()
}

// take reads until the end, or until what shall pass has been read.
func (c *conn) take(from *net.TCPConn, f Flow, line chan<- chunk) {
	defer close(line)
	left := f.After
	for f.Then == Nothing || left > 0 || f.Then == Pause {
		if f.Then == Pause && left <= 0 {
			f.Then = Nothing
			if !c.sleep(f.For) {
				return
			}
		}
		size := int64(32 << 10)
		if f.Then != Nothing {
			size = min(size, left)
		}
		buffer := make([]byte, size)
		n, err := from.Read(buffer)
		left -= int64(n)
		if n > 0 && !c.send(line, chunk{buffer[:n], time.Now().Add(f.Delay)}) {
			return
		}
		if err != nil {
			c.send(line, chunk{nil, time.Now().Add(f.Delay)})
			return
		}
	}
}

func (c *conn) send(line chan<- chunk, k chunk) bool {
	select {
	case line <- k:
		return true
	case <-c.ended:
		return false
	}
}

// deliver writes chunks when they are due, and does then what is planned.
func (c *conn) deliver(to *net.TCPConn, f Flow, line <-chan chunk, passed *atomic.Int64) {
	for k := range line {
		if !c.sleep(time.Until(k.due)) {
			return
		}
		if k.data == nil {
			to.CloseWrite() // the other direction goes on
			return
		}
		if !c.write(to, k.data, f.Rate, passed) {
			c.end()
			return
		}
	}
	switch f.Then {
	case Cut:
		c.end()
	case Stall:
		<-c.ended
	}
}

// write writes at a rate, in steps of a hundredth of a second.
func (c *conn) write(to *net.TCPConn, data []byte, rate int64, passed *atomic.Int64) bool {
	for len(data) > 0 {
		step := len(data)
		if rate > 0 {
			step = min(step, max(1, int(rate/100)))
		}
		n, err := to.Write(data[:step])
		passed.Add(int64(n))
		data = data[n:]
		if err != nil {
			return false
		}
		if rate > 0 && !c.sleep(time.Duration(n)*time.Second/time.Duration(rate)) {
			return false
		}
	}
	return true
}
