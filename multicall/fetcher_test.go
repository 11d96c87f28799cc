package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
	"pitr/standby"
)

func TestAFetcherIsNoAgent(t *testing.T) {
	id := agentIdentity{configFile: "/f", pgdata: "/data"}
	other := id
	other.restores = true
	if id.place("/d").key == other.place("/d").key {
		t.Error("both are in one place")
	}
}

// What the archives say ends in the same budget and the same status as if the call
// had asked them itself.
func TestVerdictsSurviveTheSocket(t *testing.T) {
	two := func(a, b error) error { return archive.JoinVerdicts([]error{a, b}) }
	for _, err := range []error{
		nil,
		errors.New("some doubt"),
		fmt.Errorf("x: %w", archive.ErrAbsent),
		archive.WithHint(fmt.Errorf("x: %w", archive.ErrGap), "find it"),
		archive.ErrDamaged, archive.ErrIdentity, archive.ErrNoIdentity,
		two(archive.ErrGap, archive.ErrIdentity),
		two(archive.ErrGap, errors.New("away")),
		&panicked{"x", nil},
	} {
		got := hearVerdicts(tellVerdicts(err))
		for _, class := range []error{archive.ErrAbsent, archive.ErrGap, archive.ErrDamaged, archive.ErrIdentity, archive.ErrNoIdentity, errInternal} {
			if errors.Is(got, class) != errors.Is(err, class) {
				t.Errorf("%v: is it %v? %v", err, class, errors.Is(got, class))
			}
		}
		if len(archive.Verdicts(got)) != len(archive.Verdicts(err)) {
			t.Errorf("%v: %d verdicts", err, len(archive.Verdicts(got)))
		}
		var a, b strings.Builder
		report(&a, "x", got)
		report(&b, "x", err)
		if a.String() != b.String() {
			t.Errorf("got\n%swant\n%s", &a, &b)
		}
	}
}

// A push never ends in what only a restore can say.
func TestPushesHearNothingOfAbsence(t *testing.T) {
	if err := hearErrors(tellErrors(fmt.Errorf("x: %w", archive.ErrAbsent))); errors.Is(err, archive.ErrAbsent) {
		t.Errorf("got %v", err)
	}
}

// The short way understands only what the long way understands in the same way.
func TestPlainRestoreCommandLines(t *testing.T) {
	for _, tt := range []struct {
		args  []string
		plain bool
	}{
		{[]string{"000000010000000000000001", "pg_wal/RECOVERYXLOG"}, true},
		{[]string{"-C", "/f", "000000010000000000000001", "pg_wal/RECOVERYXLOG"}, true},
		{[]string{"000000010000000000000001", "pg_wal/RECOVERYXLOG", "000000010000000000000001"}, false},
		{[]string{"000000010000000000000001"}, false},
		{[]string{"-C", "/f", "000000010000000000000001"}, false},
		{[]string{"-C", "", "a", "b"}, false},
		{[]string{"-C", "-x", "a", "b"}, false},
		{[]string{"a", "b", "-C", "/f"}, false},
		{[]string{"a", ""}, false},
		{[]string{"--help", "b"}, false},
		{[]string{}, false},
	} {
		c := &call{name: "restore_command", args: tt.args, surroundings: surroundings{defaultFile: "/nonexistent"}, stdout: &output{w: io.Discard}, stderr: io.Discard}
		file, name, dest, plain := c.plainRestore()
		if plain != tt.plain {
			t.Errorf("%q: got %v, want %v", tt.args, plain, tt.plain)
		}
		if !plain {
			continue
		}
		var cli restoreCommandCLI
		_, err := c.parse(&cli, "")
		wantFile := ""
		if cli.ConfigFile != nil {
			wantFile = *cli.ConfigFile
		}
		if err != nil || cli.Name != name || cli.Dest != dest || wantFile != file {
			t.Errorf("%q: %q %q %q, kong says %q %q %q, error %v", tt.args, file, name, dest, wantFile, cli.Name, cli.Dest, err)
		}
	}
}

func TestRoomLeavesMostOfADisk(t *testing.T) {
	const mb, mb16, gb = 1 << 20, 16 << 20, 1 << 30
	for _, c := range []struct {
		prefetch   int64
		size       wal.SegmentSize
		free       int64
		held, want int
	}{
		{0, mb16, 100 * gb, 0, 0},
		{256 * mb, mb16, 100 * gb, 0, 16},
		{256 * mb, mb16, 100 * gb, 16, 16},
		{256 * mb, gb, 100 * gb, 0, 1},
		{256 * mb, mb, 100 * gb, 0, 256},
		{1, mb16, 100 * gb, 0, 1},
		{256 * mb, mb16, 256 * mb, 0, 4},
		{256 * mb, mb16, 192 * mb, 4, 4}, // the same disk
		{256 * mb, mb16, 63 * mb, 0, 0},
		{256 * mb, gb, 3 * gb, 0, 0},
		{256 * mb, mb16, 0, 0, 0}, // nobody knows
	} {
		if got := fetcherRoom(c.prefetch, c.size, c.free, c.held); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

// fileFor is what a fetcher hands over.
func fileFor(t *testing.T, content string) *os.File {
	t.Helper()
	f, err := local.Unnamed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// A file comes with an answer that says so. Everything else is no answer, and nothing
// is put in PostgreSQL's way.
func TestOnlyAFileAndItsAnswerMakeARestoredFile(t *testing.T) {
	done := agentAnswer{Done: true, From: "file:///a"}
	for _, tt := range []struct {
		what   string
		answer func(net.Conn, *os.File) error
		want   error // nil: the file is there
	}{
		{"a file", func(c net.Conn, f *os.File) error { return sendFile(c.(*net.UnixConn), done, f, silence) }, nil},
		{"busy first", func(c net.Conn, f *os.File) error {
			return errors.Join(send(c, agentAnswer{Busy: true}, silence), sendFile(c.(*net.UnixConn), done, f, silence))
		}, nil},
		{"no file", func(c net.Conn, f *os.File) error { return send(c, done, silence) }, errNoAgent},
		{"a file, and no answer", func(c net.Conn, f *os.File) error {
			return sendFile(c.(*net.UnixConn), agentAnswer{Busy: true}, f, silence)
		}, errNoAgent},
		{"a file, and an error", func(c net.Conn, f *os.File) error {
			return sendFile(c.(*net.UnixConn), agentAnswer{Done: true, Errors: tellVerdicts(archive.ErrGap)}, f, silence)
		}, archive.ErrGap},
		{"absent", func(c net.Conn, f *os.File) error {
			return send(c, agentAnswer{Done: true, Errors: tellVerdicts(archive.ErrAbsent)}, silence)
		}, archive.ErrAbsent},
		{"declined", func(c net.Conn, f *os.File) error {
			return send(c, agentAnswer{Done: true, Declined: "it is another build"}, silence)
		}, errNoAgent},
		{"nothing", func(c net.Conn, f *os.File) error { return nil }, errWentAway},
	} {
		p := agentPlace{dir: shortDir(t), key: "k"}
		f := fileFor(t, "content")
		fakeAgent(t, p, func(c net.Conn) {
			var req agentRequest
			if receive(c, hear(c), silence, &req) == nil {
				_ = tt.answer(c, f)
			}
		})
		before := openFiles(t)
		c := &call{log: slog.New(slog.DiscardHandler), stderr: io.Discard}
		dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
		from, err := c.askFetcher(t.Context(), agentIdentity{restores: true}, p, agentRequest{Op: opRestore, Name: "x"}, dest)
		got, readErr := os.ReadFile(dest)
		switch {
		case tt.want == nil && (err != nil || string(got) != "content" || from != done.From):
			t.Errorf("%s: got %q from %q, error %v", tt.what, got, from, err)
		case tt.want != nil && (!errors.Is(err, tt.want) || readErr == nil):
			t.Errorf("%s: got error %v and %q, want %v", tt.what, err, got, tt.want)
		}
		for end := time.Now().Add(time.Minute); openFiles(t) > before && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if now := openFiles(t); now > before {
			t.Errorf("%s: %d files are open, before it were %d", tt.what, now, before)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A call that was told to end puts nothing where PostgreSQL may want something else.
func TestAnEndedCallPutsNothing(t *testing.T) {
	p := agentPlace{dir: shortDir(t), key: "k"}
	ctx, cancel := context.WithCancelCause(t.Context())
	f := fileFor(t, "content")
	fakeAgent(t, p, func(c net.Conn) {
		var req agentRequest
		if receive(c, hear(c), silence, &req) == nil {
			cancel(errStopping)
			_ = sendFile(c.(*net.UnixConn), agentAnswer{Done: true}, f, silence)
		}
	})
	c := &call{log: slog.New(slog.DiscardHandler), stderr: io.Discard}
	dest := filepath.Join(t.TempDir(), "RECOVERYXLOG")
	if _, err := c.askFetcher(ctx, agentIdentity{}, p, agentRequest{Op: opRestore}, dest); !errors.Is(err, errStopping) {
		t.Errorf("got %v, want %v", err, errStopping)
	}
	if _, err := os.Stat(dest); err == nil {
		t.Error("there is a file")
	}
}

// A recovery begins where its backup label says, and without one where pg_control
// does.
func TestReadingAheadBeginsWhereRedoDoes(t *testing.T) {
	dir := dataDirectoryOf(t, nil)
	control, err := wal.ReadControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &fetcher{post: &post{call: &call{log: slog.New(slog.DiscardHandler)}, id: agentIdentity{pgdata: dir}, cluster: archive.Cluster{SegmentSize: control.SegmentSize}}}
	redo := control.SegmentSize.SegmentOf(control.Redo)
	for _, tt := range []struct {
		label, after, want string
	}{
		{"", "00000002.history", wal.SegmentName(control.Timeline, redo-1, control.SegmentSize).String()},
		{"START WAL LOCATION: 0/500028 (file 000000030000000000000005)\nrest\n", "00000004.history", "000000030000000000000004"},
		{"START WAL LOCATION: 0/28 (file 000000010000000000000000)\n", "00000002.history", ""},
		{"nonsense", "00000002.history", ""},
		{"", "000000030000000000000007", "000000030000000000000007"},
		{"", "000000030000000000000007.partial", ""},
	} {
		label := filepath.Join(dir, "backup_label")
		if err := os.WriteFile(label, []byte(tt.label), 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.label == "" {
			if err := os.Remove(label); err != nil {
				t.Fatal(err)
			}
		}
		after, err := wal.ParseName(tt.after)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := f.beginning(after)
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("label %q, after %s: got %s, %v, want %q", tt.label, tt.after, got, ok, tt.want)
		}
	}
}

func TestModesAreKnownByName(t *testing.T) {
	for _, m := range []standby.Mode{standby.Recovery, standby.Standby, standby.Promotion} {
		if got := modeCalled(m.String()); got != m {
			t.Errorf("%q: got %v", m, got)
		}
	}
	if got := modeCalled("x"); got != standby.Recovery {
		t.Errorf("got %v", got)
	}
}
