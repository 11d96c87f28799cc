package remote

import (
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// pipes let something stand between a channel and a server.
type pipes struct {
	fromClient *io.PipeReader
	toServer   *io.PipeWriter

	mu sync.Mutex // held while an answer is written
}

func newPipes() *pipes {
	p := &pipes{}
	p.fromClient, p.toServer = io.Pipe()
	return p
}

// run runs OpenSSH's server, which reads what is let through.
func (p *pipes) run(ch ssh.Channel) error {
	err := openSSH(serverSide{ch, p})
	_ = p.fromClient.Close()
	return err
}

// serverSide is the channel as the server sees it.
type serverSide struct {
	ssh.Channel
	p *pipes
}

func (s serverSide) Read(buf []byte) (int, error) { return s.p.fromClient.Read(buf) }

func (s serverSide) Write(buf []byte) (int, error) { return s.p.write(s.Channel, buf) }

func (p *pipes) write(w io.Writer, buf []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return w.Write(buf)
}
