package multicall

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pitr/archive/wal"
)

// dataDirectoryOf is a data directory without a server, with what waits and what is
// done in archive_status.
func dataDirectoryOf(t *testing.T, marks map[string]time.Time) string {
	t.Helper()
	pgdata, real := t.TempDir(), filepath.Join("..", "archive", "wal", "testdata", "pg15")
	dir := filepath.Join(pgdata, "pg_wal", "archive_status")
	for _, err := range []error{
		os.MkdirAll(dir, 0o700), os.Mkdir(filepath.Join(pgdata, "global"), 0o700),
		copyFile(filepath.Join(real, "PG_VERSION"), filepath.Join(pgdata, "PG_VERSION")),
		copyFile(filepath.Join(real, "pg_control"), filepath.Join(pgdata, "global", "pg_control")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, at := range marks {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
	return pgdata
}

func observe(t *testing.T, cfg Config, pgdata string, agent agentStatus, now time.Time) status {
	t.Helper()
	cluster, err := clusterOf(pgdata)
	if err != nil {
		t.Fatal(err)
	}
	return newObserver(cfg, pgdata, cluster).look(t.Context(), agent, now)
}

func archivesAt(paths ...string) (all []*url.URL) {
	for _, p := range paths {
		all = append(all, &url.URL{Scheme: "file", Path: p})
	}
	return all
}

func TestStatusJudgesWhatTheAgentSays(t *testing.T) {
	now := time.Now()
	pgdata := dataDirectoryOf(t, map[string]time.Time{
		"000000010000000000000008.ready": now.Add(-20 * time.Second),
		"000000010000000000000009.ready": now.Add(-10 * time.Second),
	})
	cfg := Config{Archive: archivesAt("/a"), AlertAge: 15 * time.Minute}
	for _, c := range []struct {
		what   string
		agent  archiveStatus
		state  destinationState
		result severity
		lag    int
	}{
		{"nothing shipped yet", archiveStatus{}, stateUnknown, fine, 2},
		{"shipped", archiveStatus{Last: "000000010000000000000007", LastAt: now}, stateOK, fine, 2},
		{"ahead of PostgreSQL", archiveStatus{Last: "000000010000000000000008", LastAt: now}, stateOK, fine, 1},
		{"of another timeline", archiveStatus{Last: "000000020000000000000009", LastAt: now}, stateOK, fine, 2},
		{"mended", archiveStatus{Last: "000000010000000000000007", LastAt: now, Error: "x", ErrorAt: now.Add(-time.Hour)}, stateOK, fine, 2},
		{"failing", archiveStatus{Error: "x", ErrorAt: now, Failing: true}, stateFailed, critical, 2},
		{"down", archiveStatus{Error: "x", ErrorAt: now, Failing: true, Down: now.Add(-time.Minute)}, stateDown, critical, 2},
	} {
		c.agent.Archive = "file:///a"
		s := observe(t, cfg, pgdata, agentStatus{Running: true, Archives: []archiveStatus{c.agent}}, now)
		d := s.Destinations[0]
		if d.State != c.state || s.Result != c.result || d.Lag == nil || d.Lag.Files != c.lag {
			t.Errorf("%s: got %s, %s, %v, %v", c.what, d.State, s.Result, d.Lag, s.Findings)
		}
		if c.agent.Error != "" && d.Error != "x" {
			t.Errorf("%s: the last error is not told", c.what)
		}
	}
}

func TestStatusJudgesQueues(t *testing.T) {
	now := time.Now()
	queues := t.TempDir()
	waiting := filepath.Join(queues, "b")
	if err := os.Mkdir(waiting, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(waiting, "000000010000000000000003")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	note := `{"state":"queued","since":"2026-01-01T00:00:00Z","reason":"no route to host"}`
	if err := os.WriteFile(filepath.Join(waiting, ".state"), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	pgdata := dataDirectoryOf(t, map[string]time.Time{"000000010000000000000004.ready": now})
	for _, c := range []struct {
		what   string
		cfg    Config
		age    time.Duration
		result severity
		found  string
	}{
		{"not empty", Config{}, time.Second, warning, "slave b: behind: 1 file, 1MB"},
		{"over half", Config{QueueMax: 3 << 19}, time.Second, critical, "it takes no more"},
		{"with room", Config{QueueMax: 4 << 20}, time.Second, warning, "slave b: behind"},
		{"no room on the disk", Config{QueueMinFree: 1 << 60}, time.Second, critical, "it takes no more"},
		{"old", Config{AlertAge: time.Minute}, time.Hour, critical, "slave b: behind"},
	} {
		if err := os.Chtimes(file, now.Add(-c.age), now.Add(-c.age)); err != nil {
			t.Fatal(err)
		}
		c.cfg.Slaves, c.cfg.LArchiveDir = []string{"a", "b"}, queues
		s := observe(t, c.cfg, pgdata, agentStatus{}, now)
		if s.Result != c.result || !strings.Contains(s.summary(), c.found) {
			t.Errorf("%s: got %s: %s", c.what, s.Result, s.summary())
		}
		a, b := s.Destinations[0], s.Destinations[1]
		if a.State != stateUnknown || a.Lag.Files != 1 || b.State != stateBehind || b.Lag.Files != 2 || b.Error != "no route to host" {
			t.Errorf("%s: got %+v, %+v", c.what, a, b)
		}
	}
}

func TestStatusIsUnknownWhereItCannotLook(t *testing.T) {
	pgdata := dataDirectoryOf(t, nil)
	if err := os.RemoveAll(filepath.Join(pgdata, "pg_wal", "archive_status")); err != nil {
		t.Fatal(err)
	}
	s := observe(t, Config{Archive: archivesAt("/a")}, pgdata, agentStatus{Problem: "it does not answer"}, time.Now())
	if s.Result != warning || s.Waiting != nil || s.Destinations[0].State != stateUnknown || len(s.Findings) != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestStatusDoesNotWaitForAnAgentThatSaysNothing(t *testing.T) {
	p := agentPlace{dir: shortDir(t), key: "x"}
	fakeAgent(t, p, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	began := time.Now()
	got := (&call{}).agentNow(t.Context(), p)
	if got.Running || !strings.Contains(got.Problem, "does not answer") || time.Since(began) > 2*lookTime {
		t.Errorf("after %s: got %+v", time.Since(began), got)
	}
}

func TestLookThatHangsIsLeftAlone(t *testing.T) {
	var s single[int]
	hanging, begun := make(chan struct{}), 0
	look := func(context.Context) (int, error) {
		begun++
		if begun == 1 {
			<-hanging
		}
		return begun, nil
	}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := s.do(ctx, look); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	close(hanging)
	if got, err := s.do(t.Context(), look); got != 2 || err != nil {
		t.Errorf("got %d, %v, want a look of its own", got, err)
	}
}

func TestMetricsEscapeAndLeaveOutWhatIsNotKnown(t *testing.T) {
	s := status{
		Version: "v1", PGData: "/a\"b\\c\nd", Result: warning,
		Destinations: []destinationStatus{
			{Name: "x", Mode: modeQueued, State: stateBehind, LastAt: time.UnixMilli(1500), Queue: &queueStatus{backlog: backlog{Files: 2, Bytes: 1 << 40, Age: seconds(90 * time.Second)}}},
			{Name: "y", Mode: modeRequired, State: stateUnknown},
		},
	}
	var b strings.Builder
	s.writeMetrics(&b)
	const label = `pgdata="/a\"b\\c\nd"`
	for _, want := range []string{
		"# HELP pitr_status 0 is ok, 1 warning, 2 critical.\n# TYPE pitr_status gauge\npitr_status{" + label + "} 1\n",
		"pitr_build_info{" + label + `,version="v1"} 1` + "\n",
		"pitr_destination_up{" + label + `,destination="x",mode="queued"} 1` + "\n# ",
		"pitr_destination_last_shipped_timestamp_seconds{" + label + `,destination="x",mode="queued"} 1.5` + "\n",
		"pitr_queue_bytes{" + label + `,destination="x",mode="queued"} 1099511627776` + "\n",
		"pitr_queue_oldest_waiting_seconds{" + label + `,destination="x",mode="queued"} 90` + "\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	for _, absent := range []string{"pitr_wal_waiting_files", `destination="y"`, "start_timestamp"} {
		if strings.Contains(b.String(), absent) {
			t.Errorf("%q is in\n%s", absent, b.String())
		}
	}
}

func TestStatusCountsEverythingThatWaits(t *testing.T) {
	now := time.Now()
	marks := map[string]time.Time{}
	for n := range wal.SegmentNumber(10_000) {
		marks[wal.SegmentName(1, n+1, 1<<20).String()+".ready"] = now.Add(-time.Duration(n) * time.Millisecond)
	}
	s := observe(t, Config{Archive: archivesAt("/a")}, dataDirectoryOf(t, marks), agentStatus{}, now)
	if s.Waiting == nil || s.Waiting.Files != 10_000 || s.Waiting.Bytes != 10_000<<20 || s.Waiting.Oldest != wal.SegmentName(1, 10_000, 1<<20) {
		t.Errorf("got %+v", s.Waiting)
	}
}
