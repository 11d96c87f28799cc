package multicall

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
	"pitr/archive/wal"
)

// text is what a checkup has found so far.
func (c *checkup) text() string {
	var b strings.Builder
	c.print(&b)
	return b.String()
}

func TestCheckJudgesTheRoomInSegments(t *testing.T) {
	const segment = 16 << 20
	for free, want := range map[int64]severity{
		0:               critical,
		16*segment - 1:  critical,
		16 * segment:    warning,
		256*segment - 1: warning,
		256 * segment:   fine,
	} {
		var c checkup
		c.room("archive", free, segment)
		if c.worst() != want {
			t.Errorf("%d bytes: want %s, got %s", free, want, c.text())
		}
	}
}

func TestCheckWantsOneArchiveOnAnotherDisk(t *testing.T) {
	pgdata := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(pgdata, &st); err != nil {
		t.Fatal(err)
	}
	same, other := uint64(st.Dev), uint64(st.Dev)+1
	for name, c := range map[string]struct {
		cfg    Config
		looked []lookedAt
		want   severity
	}{
		"on the disk of the data":           {Config{PGData: pgdata}, []lookedAt{{"a", "1", same}}, warning},
		"both there":                        {Config{PGData: pgdata}, []lookedAt{{"a", "1", same}, {"b", "2", same}}, warning},
		"the second elsewhere":              {Config{PGData: pgdata}, []lookedAt{{"a", "1", same}, {"b", "2", other}}, fine},
		"the first elsewhere":               {Config{PGData: pgdata}, []lookedAt{{"a", "1", other}, {"b", "2", same}}, fine},
		"none that answered":                {Config{PGData: pgdata}, nil, fine},
		"no data directory known":           {Config{}, []lookedAt{{"a", "1", same}}, fine},
		"one archive under two names":       {Config{PGData: pgdata}, []lookedAt{{"a", "1", other}, {"b", "1", other}}, critical},
		"a data directory that is not here": {Config{PGData: pgdata + "/none"}, []lookedAt{{"a", "1", same}}, fine},
	} {
		var got checkup
		got.apart(c.cfg, c.looked)
		if got.worst() != c.want {
			t.Errorf("%s: want %s, got %s", name, c.want, got.text())
		}
	}
}

// What was archived before this archive was made, or is older than everything in
// it, went elsewhere or was pruned.
func TestCheckLooksUpWhatTheServerTakesForArchived(t *testing.T) {
	segment := func(n wal.SegmentNumber) wal.Name { return wal.SegmentName(1, n, wal.DefaultSegmentSize) }
	made := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	before, after := made.Add(-time.Minute), made.Add(time.Minute)
	cover := archive.Coverage{
		Ranges:    []archive.Range{{Timeline: 1, First: segment(10), Last: segment(20)}},
		Partials:  []wal.Name{segment(21).Partial()},
		Histories: []wal.Name{wal.HistoryName(2)},
	}
	for name, c := range map[string]struct {
		cover archive.Coverage
		told  []acknowledged
		worst severity
		says  string
	}{
		"nothing":                        {cover, nil, fine, ""},
		"what is there":                  {cover, []acknowledged{{segment(10), after}, {segment(20), after}}, fine, "is here, up to " + segment(20).String()},
		"what is not there":              {cover, []acknowledged{{segment(20), after}, {segment(22), after}}, critical, segment(22).String() + " is archived (2026-11-24T12:01:00Z), and it is not here\n"},
		"two that are not there":         {cover, []acknowledged{{segment(22), after}, {segment(23), after}}, critical, "not here; nor are 1 more"},
		"from before the archive":        {cover, []acknowledged{{segment(22), before}}, fine, ""},
		"of the moment it was made":      {cover, []acknowledged{{segment(22), made}}, fine, ""},
		"older than everything in it":    {cover, []acknowledged{{segment(9), after}}, fine, ""},
		"there as .partial":              {cover, []acknowledged{{segment(21), after}}, fine, ""},
		"one of another timeline":        {cover, []acknowledged{{wal.SegmentName(2, 15, wal.DefaultSegmentSize), after}}, critical, "00000002000000000000000F"},
		"a history":                      {cover, []acknowledged{{wal.HistoryName(2), after}}, fine, ""},
		"a history that is not there":    {cover, []acknowledged{{wal.HistoryName(3), after}}, critical, "00000003.history"},
		"an archive with nothing in it":  {archive.Coverage{}, []acknowledged{{segment(9), after}}, critical, segment(9).String()},
		"an empty one, told before that": {archive.Coverage{}, []acknowledged{{segment(9), before}}, fine, ""},
	} {
		var got checkup
		got.acknowledged("archive", archive.Identity{Created: made}, c.cover, nil, c.told)
		if got.worst() != c.worst || !strings.Contains(got.text(), c.says) {
			t.Errorf("%s: want %s and %q, got:\n%s", name, c.worst, c.says, got.text())
		}
	}
}

// What waits in a slave's queue is not lost.
func TestCheckCountsWhatIsQueued(t *testing.T) {
	segment := func(n wal.SegmentNumber) wal.Name { return wal.SegmentName(1, n, wal.DefaultSegmentSize) }
	made := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	cover := archive.Coverage{Ranges: []archive.Range{{Timeline: 1, First: segment(10), Last: segment(20)}}}
	told := []acknowledged{{segment(20), made.Add(time.Minute)}, {segment(21), made.Add(time.Minute)}, {segment(22), made.Add(time.Minute)}}
	for queued, want := range map[*[]wal.Name]string{
		{segment(21), segment(22)}: "ok        slave one: what the server was told is archived is here or in its queue, up to " + segment(22).String(),
		{segment(22)}:              "critical  slave one: the server was told that " + segment(21).String(),
		{}:                         "critical  slave one: the server was told that " + segment(21).String() + " is archived (2026-11-24T12:01:00Z), and it is not here; nor are 1 more",
	} {
		var got checkup
		got.acknowledged("slave one", archive.Identity{Created: made}, cover, *queued, told)
		if !strings.Contains(got.text(), want) {
			t.Errorf("%v is queued: want %q, got:\n%s", *queued, want, got.text())
		}
	}
}

func TestCheckThatIsEndedHasNoResult(t *testing.T) {
	var out strings.Builder
	c := &call{name: "pitr", environ: []string{"PITR_ARCHIVE=file://" + t.TempDir()}, stdout: &output{w: &out}, stderr: t.Output()}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted(syscall.SIGTERM))
	for _, cmd := range []checkCmd{{}, {JSON: true}} {
		err := cmd.Run(ctx, c, &settingFlags{})
		if !errors.Is(err, interrupted(syscall.SIGTERM)) || out.Len() > 0 {
			t.Errorf("got %v and %q, want the signal and nothing printed", err, out.String())
		}
	}
}
