package multicall

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows how far a long step has come: a bar on a terminal, now and
// then a line in a log, on standard error in either case.
type progress struct {
	out      io.Writer
	what     string
	unit     string
	terminal bool
	every    time.Duration
	started  time.Time
	shown    time.Time
}

func newProgress(s *session, what, unit string) *progress {
	p := &progress{out: s.stderr, what: what, unit: unit, every: 30 * time.Second, started: time.Now()}
	if f, ok := s.stderr.(*os.File); ok && isTerminal(f) {
		p.terminal, p.every = true, 100*time.Millisecond
	}
	p.shown = p.started
	return p
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// step shows that done of all are done, if it is time to.
func (p *progress) step(done, of int) {
	now := time.Now()
	if now.Sub(p.shown) < p.every || of == 0 {
		return
	}
	p.shown = now
	left := time.Duration(float64(now.Sub(p.started)) / float64(done) * float64(of-done)).Round(time.Second)
	if !p.terminal {
		fmt.Fprintf(p.out, "%s: %d of %d %s, %s left\n", p.what, done, of, p.unit, left)
		return
	}
	const width = 30
	full := width * done / of
	fmt.Fprintf(p.out, "\r%s [%s%s] %d of %d %s, %s left\x1b[K", p.what, strings.Repeat("#", full), strings.Repeat(".", width-full), done, of, p.unit, left)
}

// end takes the bar away; the next step brings it back.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
