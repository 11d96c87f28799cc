package multicall

import (
	"fmt"
	"slices"
	"time"
)

// condition is one thing that may be wrong, as it was found at one look. What
// could not be looked at has none, and stays what it was.
type condition struct {
	kind        string // down, conflict, identity, failing, late, age, bytes, timeline
	destination string // may be empty
	level       severity
	text        string // what is wrong, or that it is right again
	file        string // may be empty
	// patience is for how long it must be wrong before it is told.
	patience time.Duration
}

// alerts decides what is to be told: what has become wrong, what is worse than was
// told, and what is right again after it was told. The same thing is not told again
// within interval, while it lasts or when it comes back; it is then, if interval is
// not 0. It has no clock, and nothing but what it is given.
type alerts struct {
	interval time.Duration
	known    map[alertKey]alertState
}

// alertKey is what one thing is told apart by.
type alertKey struct{ kind, destination string }

type alertState struct {
	wrong time.Time // since when; zero: it is not
	told  severity  // of what is wrong now; fine: nothing was told
	at    time.Time // when something wrong was told last
}

func newAlerts(interval time.Duration) *alerts {
	return &alerts{interval: interval, known: map[alertKey]alertState{}}
}

// next takes what was found, and returns what of it is to be told.
func (a *alerts) next(now time.Time, found []condition) []condition {
	var tell []condition
	for _, c := range found {
		key := alertKey{c.kind, c.destination}
		was := a.known[key]
		is, worth := was.after(c, now, a.interval)
		a.known[key] = is
		if worth {
			tell = append(tell, c)
		}
	}
	return tell
}

// after is the state after a look, and whether that is to be told.
func (s alertState) after(c condition, now time.Time, interval time.Duration) (alertState, bool) {
	if c.level == fine {
		return alertState{at: s.at}, s.told > fine
	}
	if s.wrong.IsZero() {
		s.wrong = now
	}
	again := interval > 0 && now.Sub(s.at) >= interval
	switch {
	case now.Sub(s.wrong) < c.patience:
		return s, false
	case s.told == fine && !s.at.IsZero() && interval > 0 && !again:
		return s, false // it was told a while ago, and has come back
	case c.level > s.told || again:
		s.told, s.at = max(c.level, s.told), now
		return s, true
	}
	return s, false
}

// failingPatience is how long an archive that answers may fail before there is an
// alert: PostgreSQL asks again every minute.
const failingPatience = time.Minute

// conditions are what of a status an agent alerts of. Changes of a queue's state are
// told by notify, when they happen, and are not told twice.
func (s status) conditions(cfg Config) []condition {
	var all []condition
	if s.Waiting != nil {
		all = append(all, s.Waiting.ageCondition(cfg), s.Waiting.bytesCondition(cfg))
	}
	for _, d := range s.Destinations {
		_, known := s.Agent.of(d.Name)
		switch {
		case d.Queue != nil:
			all = append(all, d.lateCondition(cfg))
		case d.Mode == modeRequired && known:
			all = append(all, d.archiveConditions()...)
		}
	}
	return all
}

func (b backlog) ageCondition(cfg Config) condition {
	c := condition{kind: "age", text: "nothing has waited in pg_wal for longer than alert_age any more"}
	if cfg.tooLate(b.Age) {
		c.level, c.file = critical, b.Oldest.String()
		c.text = fmt.Sprintf("%s has waited in pg_wal for %s to be archived: a full pg_wal stops the server", b.Oldest, b.Age)
	}
	return c
}

func (b backlog) bytesCondition(cfg Config) condition {
	c := condition{kind: "bytes", text: "no more than alert_bytes waits in pg_wal any more"}
	if cfg.AlertBytes > 0 && b.Bytes > cfg.AlertBytes {
		c.level = critical
		c.text = fmt.Sprintf("%s wait in pg_wal to be archived, and alert_bytes is %s: a full pg_wal stops the server", formatSize(b.Bytes), formatSize(cfg.AlertBytes))
	}
	return c
}

func (d destinationStatus) lateCondition(cfg Config) condition {
	about := fmt.Sprintf("%s %s: ", d.Mode.noun(), d.Name)
	c := condition{kind: "late", destination: d.Name, text: about + "nothing has waited in its queue for longer than alert_age any more"}
	if cfg.tooLate(d.Queue.Age) {
		c.level, c.file = critical, d.Queue.Oldest.String()
		c.text = about + fmt.Sprintf("its queue holds %s", d.Queue)
	}
	return c
}

// archiveConditions are those of an archive that must have every file. While it is
// down nothing else of it is known.
func (d destinationStatus) archiveConditions() []condition {
	about := fmt.Sprintf("archive %s: ", d.Name)
	down := condition{kind: "down", destination: d.Name, text: about + "it answers again"}
	if d.State == stateDown {
		down.level = critical
		down.text = about + fmt.Sprintf("it has not answered since %s: %s", d.Since.Local().Format(time.DateTime), d.Error)
		return []condition{down}
	}
	all := []condition{down}
	wrong := d.whyFailed()
	for _, kind := range []string{"conflict", "identity", "failing"} {
		c := condition{kind: kind, destination: d.Name, text: about + "it takes files again"}
		if kind == wrong {
			c.level, c.text = critical, about+d.Error
		}
		if kind == "failing" {
			c.patience = failingPatience
		}
		all = append(all, c)
	}
	return all
}

// whyFailed is the kind of condition that a failure is; empty: it has not failed.
func (d destinationStatus) whyFailed() string {
	switch {
	case d.State != stateFailed:
		return ""
	case slices.Contains(d.Classes, "conflict"):
		return "conflict"
	case slices.Contains(d.Classes, "identity"):
		return "identity"
	}
	return "failing"
}
