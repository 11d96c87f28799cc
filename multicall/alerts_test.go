package multicall

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"pitr/archive/ship"
	"pitr/archive/wal"
)

func TestAlertsAreGivenOnChanges(t *testing.T) {
	type step struct {
		at    time.Duration
		level severity
		told  string // what is told: "" is nothing
	}
	const minute = time.Minute
	for _, c := range []struct {
		what     string
		interval time.Duration
		patience time.Duration
		steps    []step
	}{
		{"nothing was ever wrong", time.Hour, 0, []step{{0, fine, ""}, {minute, fine, ""}}},
		{"wrong and right again", time.Hour, 0, []step{{0, critical, "critical"}, {minute, critical, ""}, {2 * minute, fine, "ok"}, {3 * minute, fine, ""}}},
		{"for long", time.Hour, 0, []step{{0, warning, "warning"}, {59 * minute, warning, ""}, {60 * minute, warning, "warning"}, {61 * minute, warning, ""}}},
		{"once is enough", 0, 0, []step{{0, warning, "warning"}, {1000 * minute, warning, ""}, {1001 * minute, fine, "ok"}, {1002 * minute, warning, "warning"}}},
		{"worse", time.Hour, 0, []step{{0, warning, "warning"}, {minute, critical, "critical"}, {2 * minute, warning, ""}, {3 * minute, critical, ""}, {4 * minute, fine, "ok"}}},
		{"back and forth", time.Hour, 0, []step{{0, critical, "critical"}, {minute, fine, "ok"}, {2 * minute, critical, ""}, {3 * minute, fine, ""}, {4 * minute, critical, ""}, {60 * minute, critical, "critical"}, {61 * minute, fine, "ok"}}},
		{"not for long", time.Hour, minute, []step{{0, critical, ""}, {minute / 2, critical, ""}, {minute, fine, ""}, {2 * minute, critical, ""}, {3 * minute, critical, "critical"}}},
	} {
		a, began := newAlerts(c.interval), time.Now()
		for _, s := range c.steps {
			told := ""
			for _, one := range a.next(began.Add(s.at), []condition{{kind: "down", destination: "x", level: s.level, patience: c.patience}}) {
				told += one.level.String()
			}
			if told != s.told {
				t.Errorf("%s, at %s: told %q, want %q", c.what, s.at, told, s.told)
			}
		}
	}
}

func TestAlertsTellThingsApart(t *testing.T) {
	a, now := newAlerts(time.Hour), time.Now()
	down := condition{kind: "down", destination: "x", level: critical}
	other := condition{kind: "down", destination: "y", level: critical}
	if got := a.next(now, []condition{down}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	// What is not looked at is neither told nor forgotten.
	if got := a.next(now.Add(time.Minute), []condition{other}); len(got) != 1 || got[0].destination != "y" {
		t.Errorf("got %v", got)
	}
	down.level = fine
	if got := a.next(now.Add(2*time.Minute), []condition{down, other}); len(got) != 1 || got[0].destination != "x" {
		t.Errorf("got %v", got)
	}
}

// wrongIn are the kinds of conditions that are wrong, each with its destination.
func wrongIn(all []condition) string {
	var kinds []string
	for _, c := range all {
		if c.level > fine {
			kinds = append(kinds, c.level.String()+" "+c.kind+" "+c.destination)
		}
	}
	return strings.Join(kinds, ", ")
}

func TestConditionsOfAStatus(t *testing.T) {
	cfg := Config{AlertAge: time.Minute, AlertBytes: 100}
	required := func(state destinationState, classes ...string) status {
		return status{
			Agent:        agentStatus{Running: true, Archives: []archiveStatus{{Archive: "a"}}},
			Destinations: []destinationStatus{{Name: "a", Mode: modeRequired, State: state, Classes: classes, Error: "why"}},
		}
	}
	queued := func(age time.Duration) status {
		return status{Destinations: []destinationStatus{{Name: "q", Mode: modeQueued, State: stateFailed, Queue: &queueStatus{backlog: backlog{Files: 1, Age: seconds(age)}}}}}
	}
	for _, c := range []struct {
		what string
		s    status
		want string
	}{
		{"all is well", required(stateOK), ""},
		{"an error of the past", required(stateOK, "conflict"), ""},
		{"down", required(stateDown, "conflict"), "critical down a"},
		{"conflict", required(stateFailed, "conflict"), "critical conflict a"},
		{"another cluster's", required(stateFailed, "identity"), "critical identity a"},
		{"full disk", required(stateFailed), "critical failing a"},
		{"no agent knows it", status{Destinations: required(stateFailed).Destinations}, ""},
		{"a queue's state is told by others", queued(time.Second), ""},
		{"old in a queue", queued(time.Hour), "critical late q"},
		{"old", status{Waiting: &backlog{Files: 1, Age: seconds(time.Hour)}}, "critical age "},
		{"much", status{Waiting: &backlog{Files: 9, Bytes: 101}}, "critical bytes "},
		{"at the limits", status{Waiting: &backlog{Files: 9, Bytes: 100, Age: seconds(time.Minute)}}, ""},
	} {
		if got := wrongIn(c.s.conditions(cfg)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
	if got := wrongIn(status{Waiting: &backlog{Files: 1, Bytes: 1 << 50, Age: seconds(1000 * time.Hour)}}.conditions(Config{})); got != "" {
		t.Errorf("without limits: got %q", got)
	}
}

func TestDownArchiveKeepsWhatWasWrong(t *testing.T) {
	d := destinationStatus{Name: "a", Mode: modeRequired, State: stateFailed, Classes: []string{"conflict"}, Error: "x"}
	a, now := newAlerts(time.Hour), time.Now()
	for i, want := range []string{"critical conflict a", "critical down a", ""} {
		d.State = []destinationState{stateFailed, stateDown, stateFailed}[i]
		if got := wrongIn(a.next(now.Add(time.Duration(i)*time.Second), d.archiveConditions())); got != want {
			t.Errorf("%d: got %q, want %q", i, got, want)
		}
	}
}

func TestForkIsATimelineThatGrowsBesideOurs(t *testing.T) {
	const size = wal.SegmentSize(1 << 20)
	history, err := wal.ParseHistory(3, []byte("1\t0/500010\tx\n2\t0/800000\tx\n"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(timeline wal.TimelineID, n wal.SegmentNumber) wal.Name { return wal.SegmentName(timeline, n, size) }
	third := lineage{timeline: 3, history: history, size: size}
	for _, c := range []struct {
		what          string
		ours          lineage
		before, after []wal.Name
		want          string
	}{
		{"ours", third, []wal.Name{at(3, 9)}, []wal.Name{at(3, 10)}, ""},
		{"nothing new", third, []wal.Name{at(1, 20)}, []wal.Name{at(1, 20)}, ""},
		{"our past, late", third, []wal.Name{at(2, 6)}, []wal.Name{at(2, 7)}, ""},
		{"the segment of the fork", third, []wal.Name{at(1, 4)}, []wal.Name{at(1, 5)}, ""},
		{"our past goes on", third, []wal.Name{at(1, 5)}, []wal.Name{at(1, 6)}, "warning timeline 1 a"},
		{"from the fork on", third, []wal.Name{at(2, 7)}, []wal.Name{at(2, 8)}, "warning timeline 2 a"},
		{"a new one", third, nil, []wal.Name{at(4, 9)}, "warning timeline 4 a"},
		{"on the first timeline", lineage{timeline: 1, size: size}, []wal.Name{at(1, 9)}, []wal.Name{at(1, 10), at(2, 8)}, "warning timeline 2 a"},
		{"with a history that is not there", lineage{timeline: 3, size: size}, []wal.Name{at(1, 9)}, []wal.Name{at(1, 10)}, ""},
	} {
		f, now := newForkWatch(), time.Now()
		f.look("a", byTimeline(c.before), c.ours, now)
		if got := f.conditions(c.ours.timeline, now); len(got) != 0 {
			t.Errorf("%s: the first look came to %v", c.what, got)
		}
		f.look("a", byTimeline(c.after), c.ours, now.Add(time.Minute))
		if got := wrongIn(f.conditions(c.ours.timeline, now.Add(time.Minute))); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
		f.look("a", byTimeline(c.after), c.ours, now.Add(2*time.Minute))
		if got := wrongIn(f.conditions(c.ours.timeline, now.Add(forkQuiet+2*time.Minute))); got != "" {
			t.Errorf("%s: long after got %q", c.what, got)
		}
	}
}

// A server that does not write any more has nobody beside it.
func TestForkEndsWithTheServer(t *testing.T) {
	const size = wal.SegmentSize(1 << 20)
	ours, now := lineage{timeline: 1, size: size}, time.Now()
	f, a := newForkWatch(), newAlerts(time.Hour)
	for n := range wal.SegmentNumber(2) {
		f.look("a", byTimeline([]wal.Name{wal.SegmentName(2, 8+n, size)}), ours, now)
	}
	if told := a.next(now, f.conditions(1, now)); len(told) != 1 || told[0].level != warning {
		t.Fatalf("told %+v", told)
	}
	of := &agent{post: &post{call: &call{log: slog.New(slog.DiscardHandler)}, id: agentIdentity{pgdata: dataDirectoryOf(t, nil)}}, ahead: new(ship.Ahead)}
	of.lookForForks(t.Context(), f, now)
	if told := a.next(now, of.watched.forkConditions()); len(told) != 1 || told[0].level != fine {
		t.Errorf("in the end told %+v", told)
	}
	of.lookForForks(t.Context(), f, now)
	if left := append(of.watched.forkConditions(), f.conditions(1, now)...); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
}

func byTimeline(all []wal.Name) map[wal.TimelineID]wal.Name {
	newest := map[wal.TimelineID]wal.Name{}
	for _, n := range all {
		newest[n.Timeline()] = n
	}
	return newest
}

func TestForksAreLookedForOnlyWhereAServerWrites(t *testing.T) {
	if l, ok := lineageOf(dataDirectoryOf(t, nil)); ok {
		t.Errorf("without a server: got %v", l)
	}
}
