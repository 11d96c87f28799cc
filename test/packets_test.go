package test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pitr/test/proxy"
)

// bent is a push or a get over a network that fails after so many bytes.
type bent struct {
	*cluster // a likeness: what the commands see of a server
	archive  *archive
	route    *route
	segment  string
	sent     []byte
	command  func() *exec.Cmd
	result   string // the file that a call makes
	failure  int    // the only status besides 0
}

// TestFaultsAtEveryPacket cuts, stalls and delays a push and a get after n bytes, for
// many n: densely in the handshake and where a push publishes, and here and
// there between. Whatever is visible in the archive is whole; what
// restore_command leaves is whole or not there; each call ends in time, and the
// next one over a sound network does what this one could not.
func TestFaultsAtEveryPacket(t *testing.T) {
	t.Parallel()
	c := newCluster(t, pastVersion, pastSegmentMB)
	segment := c.oneSegment(500)
	base := newArchive(t, c, "--compress", "none")
	for _, call := range []string{"push", "get"} {
		for _, event := range []proxy.Event{proxy.Cut, proxy.Stall, proxy.Pause} {
			for _, direction := range []string{"up", "down"} {
				name := fmt.Sprintf("%s/%s %s", call, map[proxy.Event]string{proxy.Cut: "cut", proxy.Stall: "stalled", proxy.Pause: "delayed"}[event], direction)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					newBent(t, c, base, segment, call).tryAll(event, direction)
				})
			}
		}
	}
}

func newBent(t *testing.T, c *cluster, base *archive, segment, call string) *bent {
	t.Helper()
	b := &bent{cluster: likeness(t, c.data), archive: base.copyFor(t), route: newRoute(t), segment: segment, sent: readFile(t, c.walFile(segment))}
	writeFile(t, b.walFile(segment), string(b.sent))
	b.archive.route = b.route
	config := b.configure([]*archive{b.archive})
	b.command = func() *exec.Cmd { return b.push(config, segment) }
	b.result, b.failure = b.archive.stored(segment), 1
	if call == "push" {
		return b
	}
	if r := run(b.command()); r.status != 0 {
		t.Fatal(r)
	}
	b.command = func() *exec.Cmd { return b.get(config, segment) }
	b.result, b.failure = b.walFile(received), 255
	return b
}

const received = "RECOVERYXLOG"

// get is restore_command as PostgreSQL runs it.
func (c *cluster) get(config, name string) *exec.Cmd {
	cmd := home.command(home.applet("restore_command"), "-C", config, name, filepath.Join("pg_wal", received))
	cmd.Dir = c.data
	return cmd
}

// tryAll measures a call, then lets the network fail within it.
func (b *bent) tryAll(event proxy.Event, direction string) {
	b.t.Helper()
	up, down := b.mustWork()
	total, step := up, 1
	if direction == "down" {
		total = down
	}
	switch event {
	case proxy.Stall:
		step = 4 // each takes as long as a call may take
	case proxy.Pause:
		step = 8
	}
	tries, failures := 0, 0
	for i, n := range points(total) {
		if i%step != 0 {
			continue
		}
		flow := proxy.Flow{After: n, Then: event, For: pause}
		plan := proxy.Plan{Up: flow}
		if direction == "down" {
			plan = proxy.Plan{Down: flow}
		}
		tries++
		if !b.try(n, plan) {
			failures++
		}
	}
	if event == proxy.Pause {
		if failures > 0 {
			b.t.Errorf("%d of %d calls did not bear a pause of %s", failures, tries, pause)
		}
		return
	}
	if b.t.Logf("%d calls, %d failed", tries, failures); failures < tries/3 { // what is cut connects anew and may go on
		b.t.Errorf("only %d of %d calls noticed anything", failures, tries)
	}
}

// points are numbers of bytes up to a total.
func points(total int64) (all []int64) {
	const handshake, end = 10_000, 4_000
	for n := int64(0); n < min(handshake, total); n += 311 {
		all = append(all, n)
	}
	for n := int64(handshake); n < total-end; n += max(1, (total-end-handshake)/10) {
		all = append(all, n)
	}
	for n := max(handshake, total-end); n < total; n += 211 {
		all = append(all, n)
	}
	return all
}

// limits are those of a call that is bent: it is to give up soon, but not over a
// pause.
var limits = []string{"PITR_PUSH_TIMEOUT=1s", "PITR_RESTORE_RETRY=0", "PITR_SSH_TIMEOUT=1s"}

const pause = 300 * time.Millisecond

// try lets one call meet the fault, and the next one none. It tells whether the
// first one succeeded nevertheless.
func (b *bent) try(n int64, plan proxy.Plan) (succeeded bool) {
	b.t.Helper()
	const longest = 10 * time.Second // a second, and what a busy machine adds
	mend := b.route.goes(plan)
	cmd := b.command()
	if plan.Up.Then != proxy.Pause && plan.Down.Then != proxy.Pause {
		cmd.Env = append(cmd.Env, limits...)
	}
	began := time.Now()
	r := run(cmd)
	if took := time.Since(began); took > longest {
		b.t.Errorf("after %d bytes: it took %s: %s", n, took, r)
	}
	if r.status != 0 && r.status != b.failure {
		b.t.Errorf("after %d bytes: want status %d: %s", n, b.failure, r)
	}
	b.wantWhole(n, r)
	mend()
	b.mustWork()
	return r.status == 0
}

// wantWhole looks at what a call has left.
func (b *bent) wantWhole(n int64, r result) {
	b.t.Helper()
	b.archive.wantOnlyTemporary([]string{b.segment})
	made, err := os.ReadFile(b.result)
	switch {
	case err == nil && !bytes.Equal(made, b.sent):
		b.t.Fatalf("after %d bytes: %d bytes stand there that are not what was sent: %s", n, len(made), r)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		b.t.Fatal(err)
	case err != nil && r.status == 0:
		b.t.Fatalf("after %d bytes: success, and there is no file", n)
	}
}

// mustWork calls over a sound network, undoes what that did, and returns how
// many bytes it took.
func (b *bent) mustWork() (up, down int64) {
	b.t.Helper()
	upBefore, downBefore := b.route.proxy.Passed()
	if r := run(b.command()); r.status != 0 {
		b.t.Fatal(r)
	}
	if !bytes.Equal(readFile(b.t, b.result), b.sent) {
		b.t.Fatalf("%s is not what was sent", b.result)
	}
	check(b.t, os.Remove(b.result))
	up, down = b.route.proxy.Passed()
	return up - upBefore, down - downBefore
}
