package multicall

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// late is after how long a file that waits is worth a warning: half of alert_age.
func (c Config) late() time.Duration {
	if c.AlertAge == 0 {
		return overdue
	}
	return c.AlertAge / 2
}

// tooLate tells whether a file that waits so long is critical.
func (c Config) tooLate(age seconds) bool { return c.AlertAge > 0 && time.Duration(age) > c.AlertAge }

func (s *status) add(worst severity, what, remedy, format string, args ...any) {
	s.Findings = append(s.Findings, finding{worst, what, fmt.Sprintf(format, args...), remedy})
}

// judge finds what is not as it should be, the worst of it first.
func (s *status) judge(cfg Config) {
	if cfg.State == "offline" {
		s.add(warning, "state", "set state: online", "archiving is switched off: every file is refused, and pg_wal grows")
	}
	switch {
	case s.Agent.Problem != "":
		s.add(warning, "agent", "run this as the user of PostgreSQL; if the agent's process is stopped, end it by hand", "%s", s.Agent.Problem)
	case cfg.Agent == "external" && !s.Agent.Running:
		s.add(warning, "agent", "start the service that runs pitr agent run", "agent is external, and none is running")
	}
	if s.Waiting != nil {
		s.judgeWaiting(cfg)
	}
	for _, d := range s.Destinations {
		s.judgeDestination(cfg, d)
	}
	slices.SortStableFunc(s.Findings, func(a, b finding) int { return cmp.Compare(b.Severity, a.Severity) })
	if len(s.Findings) > 0 {
		s.Result = s.Findings[0].Severity
	}
}

func (s *status) judgeWaiting(cfg Config) {
	const what, remedy = "pg_wal", "the server's log has the reason; a full pg_wal stops the server"
	w := *s.Waiting
	switch {
	case cfg.tooLate(w.Age):
		s.add(critical, what, remedy, "%s has waited for %s to be archived", w.Oldest, w.Age)
	case time.Duration(w.Age) > cfg.late():
		s.add(warning, what, remedy, "%s has waited for %s to be archived", w.Oldest, w.Age)
	}
	switch {
	case cfg.AlertBytes == 0:
	case w.Bytes > cfg.AlertBytes:
		s.add(critical, what, remedy, "%s wait to be archived, and alert_bytes is %s", formatSize(w.Bytes), formatSize(cfg.AlertBytes))
	case w.Bytes > cfg.AlertBytes/2:
		s.add(warning, what, remedy, "%s wait to be archived, more than half of alert_bytes", formatSize(w.Bytes))
	}
}

func (s *status) judgeDestination(cfg Config, d destinationStatus) {
	what := d.Mode.noun() + " " + d.Name
	switch d.State {
	case stateDown:
		s.add(critical, what, "", "it has not answered since %s: %s", d.Since.Local().Format(time.DateTime), d.Error)
	case stateFailed:
		s.add(critical, what, "", "%s", cmp.Or(d.Error, "it failed"))
	case stateBehind:
		worst := warning
		if d.Lag != nil && cfg.tooLate(d.Lag.Age) {
			worst = critical
		}
		s.add(worst, what, "", "%s", d.behind())
	}
	switch q := d.Queue; {
	case q == nil:
	case q.full(s.segment):
		s.add(critical, "queue of "+d.Name, "mend the destination, or raise queue_max, or make room in l_archivedir", "it takes no more: %s", q)
	case q.overHalf():
		s.add(warning, "queue of "+d.Name, "", "more than half of queue_max is taken: %s", q)
	}
}

// behind says what a destination does not have.
func (d destinationStatus) behind() string {
	switch {
	case d.Queue != nil && d.Queue.Files > 0:
		return "behind: " + d.Queue.String()
	case d.Lag != nil && d.Lag.Files > 0:
		return "behind: " + d.Lag.String()
	}
	return "it was away when it was asked last: " + cmp.Or(d.Error, "the reason is not known")
}

// noun is what a destination of a mode is.
func (m destinationMode) noun() string {
	if m == modeSlave {
		return "slave"
	}
	return "archive"
}

// full tells whether the queue takes no further segment (ship.Limit).
func (q *queueStatus) full(segment int64) bool {
	return q.Max > 0 && q.Bytes+segment > q.Max || q.MinFree > 0 && q.Free-segment < q.MinFree
}

func (q *queueStatus) overHalf() bool { return q.Max > 0 && q.Bytes > q.Max/2 }

// String says how much waits, and for how long.
func (b backlog) String() string {
	if b.Files == 0 {
		return "nothing waits"
	}
	return fmt.Sprintf("%s, %s, waiting for up to %s", count(b.Files, "file"), formatSize(b.Bytes), b.Age)
}

// String is for people, who need no fractions.
func (s seconds) String() string { return time.Duration(s).Round(time.Second).String() }
