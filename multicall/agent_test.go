package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/wal"
	"pitr/backup/pg"
)

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pitr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestOnlyOurOwnDirectoryIsTrusted(t *testing.T) {
	dir := shortDir(t)
	at := func(name string) agentPlace { return agentPlace{dir: filepath.Join(dir, name), key: "k"} }
	if err := at("none").trusted(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is missing: %v", err)
	}
	if err := at("made").make(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(at("made").dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, error %v, want mode 0700", info.Mode(), err)
	}
	if err := at("made").make(); err != nil {
		t.Errorf("made twice: %v", err)
	}
	err := errors.Join(
		os.Mkdir(at("open").dir, 0o700), os.Chmod(at("open").dir, 0o770),
		os.Symlink(at("made").dir, at("link").dir),
		os.WriteFile(at("file").dir, nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	wrong := []string{"open", "link", "file"}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Mkdir(at("theirs").dir, 0o700), os.Chown(at("theirs").dir, 1234, -1)); err != nil {
			t.Fatal(err)
		}
		wrong = append(wrong, "theirs")
	}
	for _, name := range wrong {
		if err := at(name).make(); !errors.Is(err, errPlace) {
			t.Errorf("%s: got %v, want %v", name, err, errPlace)
		}
		if _, err := at(name).dial(t.Context()); !errors.Is(err, errPlace) {
			t.Errorf("dial in %s: got %v, want %v", name, err, errPlace)
		}
	}
}

// Who asks for the agent of another user is told that it is not to be known, and
// leaves that user's place alone.
func TestAgentsOfOtherUsersAreUnknown(t *testing.T) {
	pgdata := t.TempDir()
	id := agentIdentity{pgdata: pgdata}
	if p := id.place(""); p.dir != fmt.Sprintf("/tmp/pitr-%d", os.Geteuid()) || p.theirs {
		t.Errorf("ours: %+v", p)
	}
	if p := (agentIdentity{pgdata: filepath.Join(pgdata, "gone")}).place(""); p.dir != id.place("").dir || p.theirs {
		t.Errorf("without a data directory: %+v", p)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users: run it as root, as CI does")
	}
	const other = 54321
	if err := os.Chown(pgdata, other, -1); err != nil {
		t.Fatal(err)
	}
	p := id.place("")
	if p.dir != fmt.Sprintf("/tmp/pitr-%d", other) || !p.theirs {
		t.Errorf("theirs: %+v", p)
	}
	if named := id.place("/d"); named.dir != "/d" || named.theirs {
		t.Errorf("agent_dir: %+v", named)
	}
	p.dir = filepath.Join(shortDir(t), "a")
	c := &call{}
	if err := p.make(); !errors.Is(err, errPlace) {
		t.Errorf("got %v, want %v", err, errPlace)
	}
	if got := c.agentNow(t.Context(), p); got.Running || got.Problem != "" {
		t.Errorf("there is no place, and no agent: got %+v", got)
	}
	if err := errors.Join(os.Mkdir(p.dir, 0o700), os.Chown(p.dir, other, -1)); err != nil {
		t.Fatal(err)
	}
	fakeAgent(t, p, func(net.Conn) { t.Error("it was spoken to") })
	for _, op := range []string{opStatus, opStop} {
		if _, err := c.tellAgent(t.Context(), p, op); !errors.Is(err, errPlace) || !strings.Contains(strings.Join(hintsOf(err), " "), "run this as the user of PostgreSQL") {
			t.Errorf("%s: got %v, hints %q", op, err, hintsOf(err))
		}
	}
	agent := c.agentNow(t.Context(), p)
	s := observe(t, Config{Archive: archivesAt("/a")}, dataDirectoryOf(t, nil), agent, time.Now())
	if s.Result != warning || s.Findings[0].What != "agent" || !strings.Contains(s.Findings[0].Remedy, "run this as the user of PostgreSQL") || agent.line() == "none is running" {
		t.Errorf("got %+v, %q", s.Findings, agent.line())
	}
}

func TestOneAgentHoldsThePlace(t *testing.T) {
	p := agentPlace{dir: shortDir(t), key: "k"}
	release, err := p.hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.hold(); !errors.Is(err, errHeld) {
		t.Errorf("held twice: %v", err)
	}
	// The socket of one that was killed is in nobody's way.
	for range 2 {
		l, err := p.listen()
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(p.socket()); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, error %v, want mode 0600", info.Mode(), err)
		}
		c, err := p.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if pid, err := peer(c); err != nil || pid != os.Getpid() {
			t.Errorf("the other side is %d, error %v, want %d", pid, err, os.Getpid())
		}
		if err := errors.Join(c.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	release()
	if release, err = p.hold(); err != nil {
		t.Errorf("after its end: %v", err)
	} else {
		release()
	}
}

// An agent is known by its files; what the configuration says is compared.
func TestAgentsAreToldApart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pitr.ini")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	base := agentIdentity{configFile: file, pgdata: "/data", environ: []string{"PITR_STATE=online", "HOME=/x"}}
	digest := func(id agentIdentity) string {
		t.Helper()
		d, err := id.digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	same, key := digest(base), base.place("/d").key
	for what, other := range map[string]agentIdentity{
		"another file": {configFile: filepath.Join(dir, "."), pgdata: "/data"},
		"another data": {configFile: file, pgdata: "/data2"},
		"flags":        {configFile: file, pgdata: "/data", flags: []string{"--state=online"}},
	} {
		if other.place("/d").key == key {
			t.Errorf("%s: the same place", what)
		}
	}
	other := base
	other.environ = []string{"HOME=/y", "PITR_STATE=online", "PITR_CONFIG=/z", "PITR_DEBUG="}
	if digest(other) != same || other.place("/d").key != key {
		t.Error("what does not matter makes another agent")
	}
	other.environ = []string{"PITR_STATE=offline"}
	if digest(other) == same {
		t.Error("another environment goes unnoticed")
	}
	write("two")
	if digest(base) == same {
		t.Error("another content of the file goes unnoticed")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := base.digest(); err == nil {
		t.Error("a file that is gone goes unnoticed")
	}
}

func TestBuildIDIsTheLinkers(t *testing.T) {
	if id := buildID(); strings.Count(id, "/") < 2 || id != buildID() {
		t.Errorf("got %q, want what go tool buildid says", id)
	}
}

// What an agent tells ends in the same status and the same lines as if the call
// had come upon it itself.
func TestErrorsSurviveTheSocket(t *testing.T) {
	for _, err := range []error{
		nil,
		errors.New("some doubt"),
		hint(fmt.Errorf("push: %w", archive.ErrConflict), "look"),
		fmt.Errorf("%w: %w", archive.ErrForeign, errors.New("x")),
		archive.ErrIdentity, ErrOffline, ErrUsage,
		&ConfigError{[]error{errors.New("a"), hint(errors.New("b"), "do c")}},
		errors.Join(hint(errors.New("one"), "first"), hint(archive.ErrConflict, "second")),
		&panicked{"x", nil},
	} {
		got := hearErrors(tellErrors(err))
		for _, col := range []column{colArchiveCommand, colCmdArchiver, colPitr} {
			if statusOf(got, col) != statusOf(err, col) {
				t.Errorf("%v: status %d, want %d", err, statusOf(got, col), statusOf(err, col))
			}
		}
		var a, b strings.Builder
		report(&a, "x", got)
		report(&b, "x", err)
		if a.String() != b.String() {
			t.Errorf("got\n%swant\n%s", &a, &b)
		}
	}
}

// The short way understands only what the long way understands in the same way.
func TestPlainCommandLines(t *testing.T) {
	for _, tt := range []struct {
		name  string
		args  []string
		plain bool
	}{
		{"archive_command", []string{"pg_wal/0"}, true},
		{"archive_command", []string{"-C", "/f", "pg_wal/0"}, true},
		{"archive_command", []string{"pg_wal/0", "-C", "/f"}, false},
		{"archive_command", []string{"-C", "/f"}, false},
		{"archive_command", []string{"--help"}, false},
		{"archive_command", []string{"-C", "--help", "x"}, false},
		{"archive_command", []string{"-C", "", "x"}, false},
		{"archive_command", []string{""}, false},
		{"archive_command", []string{}, false},
		{"archive_command", []string{"--state=offline", "x"}, false},
		{"archive_command", []string{"-C", "/f", "-F", "x"}, false},
		{"cmd_archiver", []string{"-C", "/f", "-F", "x"}, true},
		{"cmd_archiver", []string{"-F", "x"}, false},
		{"cmd_archiver", []string{"-C", "/f", "x"}, false},
	} {
		c := &call{name: tt.name, args: tt.args, surroundings: surroundings{defaultFile: "/nonexistent"}, stdout: &output{w: io.Discard}, stderr: io.Discard}
		file, path, plain := c.plainPush()
		if plain != tt.plain {
			t.Errorf("%s %q: got %v, want %v", tt.name, tt.args, plain, tt.plain)
		}
		if !plain {
			continue
		}
		var cli archiveCommandCLI
		var other cmdArchiverCLI
		var err error
		if tt.name == "archive_command" {
			_, err = c.parse(&cli, "")
		} else {
			_, err = c.parse(&other, "")
			cli.settingFlags, cli.Path = other.settingFlags, strings.Join(other.File, "|")
		}
		wantFile := ""
		if cli.ConfigFile != nil {
			wantFile = *cli.ConfigFile
		}
		if err != nil || cli.Path != path || wantFile != file {
			t.Errorf("%s %q: %q %q, kong says %q %q, error %v", tt.name, tt.args, file, path, wantFile, cli.Path, err)
		}
	}
}

// fakeAgent answers one call.
func fakeAgent(t *testing.T, p agentPlace, serve func(net.Conn)) {
	t.Helper()
	l, err := p.listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serve(c)
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

func TestOnlyAWholeAnswerCounts(t *testing.T) {
	answer := func(lines ...string) func(net.Conn) {
		return func(c net.Conn) {
			var req agentRequest
			if receive(c, hear(c), silence, &req) == nil {
				_, _ = io.WriteString(c, strings.Join(lines, ""))
			}
		}
	}
	for what, tt := range map[string]struct {
		serve func(net.Conn)
		want  error // nil: the file is safe
	}{
		"yes":              {answer(`{"busy":true}`+"\n", `{"done":true}`+"\n"), nil},
		"no":               {answer(`{"done":true,"errors":[{"text":"x","classes":["conflict"]}]}` + "\n"), archive.ErrConflict},
		"not me":           {answer(`{"done":true,"declined":"another build"}` + "\n"), errNoAgent},
		"nothing":          {answer(), errNoAgent},
		"only busy":        {answer(`{"busy":true}` + "\n"), errNoAgent},
		"half":             {answer(`{"done":true`), errNoAgent},
		"rubbish":          {answer("done\n"), errNoAgent},
		"neither":          {answer("{}\n"), errNoAgent},
		"something else":   {answer(`{"done":false}` + "\n"), errNoAgent},
		"hangs up at once": {func(net.Conn) {}, errNoAgent},
	} {
		p := agentPlace{dir: shortDir(t), key: "k"}
		fakeAgent(t, p, tt.serve)
		var said strings.Builder
		c := &call{name: "archive_command", stderr: &said, log: slog.New(slog.DiscardHandler)}
		err := c.askAgent(t.Context(), agentIdentity{pgdata: "/data"}, p, "/data/pg_wal/x")
		if tt.want == nil && err != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", what, err, tt.want)
		}
	}
	err := new(call).askAgent(t.Context(), agentIdentity{}, agentPlace{dir: shortDir(t), key: "k"}, "x")
	if !errors.Is(err, errNoAgent) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestAnAgentsLogIsPrinted(t *testing.T) {
	p := agentPlace{dir: shortDir(t), key: "k"}
	fakeAgent(t, p, func(c net.Conn) {
		hear(c).Scan()
		_ = send(c, agentAnswer{Done: true, Log: []string{"agent: WARNING: a\n", "agent: b\x1b[31m\n"}}, silence)
	})
	var said strings.Builder
	c := &call{stderr: &said, log: slog.New(slog.DiscardHandler)}
	if err := c.askAgent(t.Context(), agentIdentity{}, p, "x"); err != nil {
		t.Fatal(err)
	}
	if want := "agent: WARNING: a\nagent: b\\x1b[31m\n"; said.String() != want {
		t.Errorf("got %q, want %q", said.String(), want)
	}
}

// TestAnAgentThatEndsIsNone: who asks how it is when it is killed is told of the
// next one, or that there is none.
func TestAnAgentThatEndsIsNone(t *testing.T) {
	dir := shortDir(t)
	last := agentPlace{dir: dir, key: "last"}
	fakeAgent(t, last, func(net.Conn) { _ = os.Remove(last.socket()) })
	if got, err := new(call).agentStatus(t.Context(), last); err != nil || got.Running {
		t.Errorf("got %+v, %v, want no agent", got, err)
	}
	one := agentPlace{dir: dir, key: "one"}
	fakeAgent(t, one, func(net.Conn) { // it ends without having read the question
		fakeAgent(t, one, func(c net.Conn) {
			hear(c).Scan()
			_ = send(c, agentAnswer{Done: true, Status: json.RawMessage(`{"running":true,"pid":7}`)}, silence)
		})
	})
	if got, err := new(call).agentStatus(t.Context(), one); err != nil || !got.Running || got.PID != 7 {
		t.Errorf("got %+v, %v, want the next agent", got, err)
	}
	bad := agentPlace{dir: dir, key: "bad"}
	l, err := bad.listen()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	defer l.Close()
	if _, err := new(call).agentStatus(t.Context(), bad); err == nil || errors.Is(err, errNoAgent) {
		t.Errorf("all of them hang up: got %v", err)
	}
}

// A call that is told to end does not wait for the agent.
func TestACallEndsWithItsContext(t *testing.T) {
	p := agentPlace{dir: shortDir(t), key: "k"}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := make(chan struct{})
	fakeAgent(t, p, func(net.Conn) { cancel(errStopping); <-over })
	c := &call{stderr: io.Discard, log: slog.New(slog.DiscardHandler)}
	err := c.askAgent(ctx, agentIdentity{}, p, "x")
	close(over)
	if !errors.Is(err, errStopping) || errors.Is(err, errNoAgent) {
		t.Errorf("got %v, want %v and no second try", err, errStopping)
	}
}

// postmaster writes postmaster.pid.
func postmaster(t *testing.T, pgdata string, pid int, started time.Time, status string) {
	t.Helper()
	text := fmt.Sprintf("%d\n%s\n%d\n5432\n/tmp\nlocalhost\n  1 2\n%s\n", pid, pgdata, started.Unix(), status)
	if err := os.WriteFile(filepath.Join(pgdata, "postmaster.pid"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAgentsAreStartedOnlyWhereThatIsSafe(t *testing.T) {
	// Stands in for the postmaster: a process that works in the data directory.
	server := func(dir string) int {
		cmd := exec.Command("sleep", "60")
		cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread()
		t.Cleanup(runtime.UnlockOSThread)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	for what, tt := range map[string]struct {
		pid    func(dir string) int
		status string
		may    bool
	}{
		"a server":                 {server, "ready", true},
		"a standby":                {server, "standby", true},
		"process 1":                {func(string) int { return 1 }, "ready", false},
		"nobody":                   {func(string) int { return 1 << 22 }, "ready", false},
		"a number that was reused": {func(string) int { return os.Getpid() }, "ready", false},
		"a server that stops":      {server, "stopping", false},
	} {
		dir := t.TempDir()
		postmaster(t, dir, tt.pid(dir), time.Now(), tt.status)
		if err := mayLeaveChild(dir); (err == nil) != tt.may {
			t.Errorf("%s: got %v, want allowed: %v", what, err, tt.may)
		}
	}
	if err := mayLeaveChild(t.TempDir()); !errors.Is(err, pg.ErrNotRunning) {
		t.Errorf("no server: %v", err)
	}
}

// While a server stops, its calls together have as long as pg_ctl stop can wait.
func TestStoppingServersDoNotWait(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for _, tt := range []struct {
		status string
		told   time.Duration // before the call
		want   time.Duration // 0: no end
	}{
		{"ready", 0, 0},
		{"stopping", 0, stoppingPatience},
		{"stopping", 2 * time.Second, stoppingPatience},
		{"stopping", 8 * time.Second, 2 * time.Second},
		{"stopping", time.Hour, stoppingLeast},
		{"stopping", -time.Hour, stoppingPatience}, // the clock was set
	} {
		postmaster(t, dir, os.Getpid(), now, tt.status)
		if err := os.Chtimes(filepath.Join(dir, "postmaster.pid"), now, now.Add(-tt.told)); err != nil {
			t.Fatal(err)
		}
		end, stopping := stoppingEnd(dir, now)
		if got := end.Sub(now).Round(time.Millisecond); stopping != (tt.want > 0) || stopping && got != tt.want {
			t.Errorf("%s, told %s ago: %s, %v; want %s", tt.status, tt.told, got, stopping, tt.want)
		}
	}
}

func TestCallsEndWhenTheServerStops(t *testing.T) {
	dir := t.TempDir()
	postmaster(t, dir, os.Getpid(), time.Now(), "stopping")
	began := time.Now()
	ctx, cancel := untilStopping(t.Context(), dir, began)
	defer cancel()
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if took := time.Since(began); took < stoppingPatience || !errors.Is(context.Cause(ctx), errStopping) {
		t.Errorf("it ended after %s with %v, want %s and %v", took, context.Cause(ctx), stoppingPatience, errStopping)
	}
}

// inState makes the data directory's pg_control say what its server does.
func inState(t *testing.T, pgdata string, state wal.State) {
	t.Helper()
	path := filepath.Join(pgdata, "global", "pg_control")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[16] = byte(state)
	const end = 288 // where the checksum of PostgreSQL 15's stands
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	_, _ = h.Write(b[:end])
	sum := h.Sum(nil)
	slices.Reverse(sum)
	copy(b[end:], sum)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := wal.ReadControl(pgdata); err != nil || c.State != state {
		t.Fatalf("got %v, error %v, want %v", c.State, err, state)
	}
}

// A server that was told to stop lives on while it serves its clients, or replays.
func TestSmartShutdownsLeaveCallsTheirTime(t *testing.T) {
	dir := dataDirectoryOf(t, nil)
	now := time.Now()
	control := filepath.Join(dir, "global", "pg_control")
	for _, tt := range []struct {
		status string
		state  wal.State
		told   time.Duration // before the call
		since  time.Duration // the same, of pg_control
		want   time.Duration // 0: no end
	}{
		{"stopping", wal.InProduction, 0, 0, 0},
		{"stopping", wal.InProduction, time.Hour, time.Minute, 0},
		{"stopping", wal.InArchiveRecovery, time.Hour, time.Minute, 0},
		{"stopping", wal.ShuttingDown, time.Hour, 0, stoppingPatience},
		{"stopping", wal.ShuttingDown, time.Hour, 8 * time.Second, 2 * time.Second},
		{"stopping", wal.ShutDown, time.Hour, 2 * time.Second, stoppingPatience},
		{"stopping", wal.ShutDown, time.Hour, time.Minute, stoppingLeast},
		{"stopping", wal.ShutDown, 8 * time.Second, time.Hour, 2 * time.Second},
		{"stopping", wal.ShutDown, time.Hour, -time.Hour, stoppingPatience}, // the clock was set
		{"stopping", wal.ShutDownInRecovery, time.Hour, 8 * time.Second, 2 * time.Second},
		{"ready", wal.ShutDown, time.Hour, time.Hour, 0},
	} {
		postmaster(t, dir, os.Getpid(), now, tt.status)
		inState(t, dir, tt.state)
		err := errors.Join(
			os.Chtimes(filepath.Join(dir, "postmaster.pid"), now, now.Add(-tt.told)),
			os.Chtimes(control, now, now.Add(-tt.since)),
		)
		if err != nil {
			t.Fatal(err)
		}
		end, stopping := stoppingEnd(dir, now)
		if got := end.Sub(now).Round(time.Millisecond); stopping != (tt.want > 0) || stopping && got != tt.want {
			t.Errorf("%s, %s, told %s ago, in that state for %s: %s, %v; want %s", tt.status, tt.state, tt.told, tt.since, got, stopping, tt.want)
		}
	}
	// What cannot be read does not hold up a server.
	if err := os.WriteFile(control, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	postmaster(t, dir, os.Getpid(), now, "stopping")
	if _, stopping := stoppingEnd(dir, now); !stopping {
		t.Error("without pg_control it goes on")
	}
}

// A call that begins while clients are served ends when the server does stop.
func TestCallsEndWhenASmartShutdownIsThrough(t *testing.T) {
	dir := dataDirectoryOf(t, nil)
	long := time.Now().Add(-time.Hour)
	postmaster(t, dir, os.Getpid(), long, "stopping")
	inState(t, dir, wal.InProduction)
	ctx, cancel := untilStopping(t.Context(), dir, time.Now())
	defer cancel()
	select {
	case <-ctx.Done():
		t.Fatal("it ends while the server lives")
	case <-time.After(stoppingLeast + 2*stoppingRound):
	}
	inState(t, dir, wal.ShutDown)
	// As if that were long ago, which makes the test a short one.
	err := errors.Join(
		os.Chtimes(filepath.Join(dir, "postmaster.pid"), long, long),
		os.Chtimes(filepath.Join(dir, "global", "pg_control"), long, long),
	)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if cause := context.Cause(ctx); !errors.Is(cause, errStopping) {
		t.Errorf("it ended with %v, want %v", cause, errStopping)
	}
}

func TestAMemoirForgetsTheOldest(t *testing.T) {
	m := newMemoir()
	for i := range mostTold + 3 {
		fmt.Fprintf(m, "%d\n", i)
	}
	got := m.take()
	if len(got) != mostTold || got[0] != "3\n" || len(m.take()) > 0 {
		t.Errorf("got %d lines from %q on, want %d from 3 on, once", len(got), got[0], mostTold)
	}
}

// A foreign user is turned away, whatever the file system let through.
func TestPeersOfOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users: run it as root, as CI does")
	}
	p := agentPlace{dir: shortDir(t), key: "k"}
	l, err := p.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := errors.Join(os.Chmod(p.dir, 0o755), os.Chmod(p.socket(), 0o666)); err != nil {
		t.Fatal(err)
	}
	// A child in another user's name connects; this side looks who it is.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := asUser(65534, func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: p.socket()}) }); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := peer(c); err == nil || !strings.Contains(err.Error(), strconv.Itoa(65534)) {
		t.Errorf("got %v, want to hear of user 65534", err)
	}
}

// asUser runs f on a thread of another user, which ends with it.
func asUser(uid int, f func() error) error {
	done := make(chan error)
	go func() {
		// The thread is not unlocked, so that it is not used for anything else.
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		if errno != 0 {
			done <- errno
			return
		}
		done <- f()
	}()
	return <-done
}

func TestSettingWordsMakeAnotherAgent(t *testing.T) {
	flags := &settingFlags{State: new("online"), PGData: new("/data"), CompressLevel: new("3")}
	if got, want := settingWords(flags), []string{"--compress-level=3", "--state=online"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
