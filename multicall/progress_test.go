package multicall

import (
	"strings"
	"testing"
	"time"
)

func TestProgressInALogIsALineNowAndThen(t *testing.T) {
	var out strings.Builder
	p := newProgress(&session{stderr: &out}, "verify a", "files")
	said := func(done, of int) string {
		out.Reset()
		p.step(done, of)
		return out.String()
	}
	if got := said(1, 100); got != "" {
		t.Errorf("at once: got %q, want nothing", got)
	}
	p.shown = p.shown.Add(-29 * time.Second)
	if got := said(2, 100); got != "" {
		t.Errorf("after 29 seconds: got %q, want nothing", got)
	}
	p.started, p.shown = time.Now().Add(-31*time.Second), time.Now().Add(-31*time.Second)
	if got := said(0, 0); got != "" {
		t.Errorf("of nothing: got %q, want nothing", got)
	}
	if got, want := said(25, 100), "verify a: 25 of 100 files, 1m33s left\n"; got != want {
		t.Errorf("after 31 seconds: got %q, want %q", got, want)
	}
	if got := said(26, 100); got != "" {
		t.Errorf("at once after a line: got %q, want nothing", got)
	}
	out.Reset()
	if p.end(); out.Len() > 0 {
		t.Errorf("at the end: got %q, want nothing", out.String())
	}
}

func TestProgressOnATerminalIsABar(t *testing.T) {
	var out strings.Builder
	p := progress{out: &out, what: "verify a", unit: "files", terminal: true, every: 100 * time.Millisecond}
	p.started = time.Now().Add(-10 * time.Second)
	p.step(20, 100)
	p.step(21, 100)
	const want = "\rverify a [######........................] 20 of 100 files, 40s left\x1b[K"
	if out.String() != want {
		t.Errorf("got %q, want %q, once", out.String(), want)
	}
}
