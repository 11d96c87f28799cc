package multicall

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// metric is a family of figures in Prometheus' text format.
type metric struct {
	name, help string
	of         func(s status) []sample
}

// sample is one figure, with the labels that it has besides pgdata.
type sample struct {
	labels []string // name, value, name, value, ...
	value  float64
}

// writeMetrics writes the status in Prometheus' text exposition format, version
// 0.0.4. Files of several agents may be read together: each figure says whose it is.
func (s status) writeMetrics(w io.Writer) {
	for _, m := range metrics() {
		all := m.of(s)
		if len(all) == 0 {
			continue
		}
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n", m.name, m.help, m.name)
		for _, one := range all {
			labels := append([]string{"pgdata", s.PGData}, one.labels...)
			fmt.Fprintf(w, "%s%s %s\n", m.name, labelsText(labels), strconv.FormatFloat(one.value, 'f', -1, 64))
		}
	}
}

func labelsText(labels []string) string {
	// As the format has it: these three and no other.
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var parts []string
	for i := 0; i+1 < len(labels); i += 2 {
		parts = append(parts, fmt.Sprintf(`%s="%s"`, labels[i], escape.Replace(strings.ToValidUTF8(labels[i+1], "?"))))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// metrics are the figures that there are. One that is not known is left out.
func metrics() []metric {
	return []metric{
		{"pitr_build_info", "The version of pitr.", func(s status) []sample { return []sample{{[]string{"version", s.Version}, 1}} }},
		{"pitr_status", "0 is ok, 1 warning, 2 critical.", func(s status) []sample { return only(float64(s.Result)) }},
		{"pitr_agent_running", "1 if the agent runs.", func(s status) []sample { return only(oneIf(s.Agent.Running)) }},
		{"pitr_agent_start_timestamp_seconds", "When the agent began.", func(s status) []sample { return when(s.Agent.Since) }},
		{"pitr_wal_waiting_files", "Files of pg_wal that wait to be archived.", ofWaiting(func(b backlog) float64 { return float64(b.Files) })},
		{"pitr_wal_waiting_bytes", "Their size.", ofWaiting(func(b backlog) float64 { return float64(b.Bytes) })},
		{"pitr_wal_oldest_waiting_seconds", "How long the oldest of them has waited.", ofWaiting(backlog.seconds)},
		{"pitr_wal_last_archived_timestamp_seconds", "When PostgreSQL was told last that a file is archived.", func(s status) []sample { return when(s.ArchivedAt) }},
		{"pitr_destination_up", "1 if the destination takes WAL, 0 if it is down or failed.", ofDestinations(destinationStatus.up)},
		{"pitr_destination_last_shipped_timestamp_seconds", "When the destination got the last file.", ofDestinations(func(d destinationStatus) []sample { return when(d.LastAt) })},
		{"pitr_destination_last_error_timestamp_seconds", "When a file could not be shipped last.", ofDestinations(func(d destinationStatus) []sample { return when(d.ErrorAt) })},
		{"pitr_destination_lag_files", "Files that the destination does not have.", ofLag(func(b backlog) float64 { return float64(b.Files) })},
		{"pitr_destination_lag_bytes", "Their size.", ofLag(func(b backlog) float64 { return float64(b.Bytes) })},
		{"pitr_destination_lag_seconds", "How long the oldest of them has waited.", ofLag(backlog.seconds)},
		{"pitr_queue_files", "Files in the destination's queue.", ofQueues(func(q queueStatus) float64 { return float64(q.Files) })},
		{"pitr_queue_bytes", "Their size.", ofQueues(func(q queueStatus) float64 { return float64(q.Bytes) })},
		{"pitr_queue_oldest_waiting_seconds", "How long the oldest of them has waited.", ofQueues(func(q queueStatus) float64 { return q.seconds() })},
		{"pitr_queue_max_bytes", "What the queue may hold; 0 is no limit.", ofQueues(func(q queueStatus) float64 { return float64(q.Max) })},
		{"pitr_queue_free_bytes", "What is free on the queue's file system.", ofQueues(func(q queueStatus) float64 { return float64(q.Free) })},
	}
}

func only(v float64) []sample { return []sample{{value: v}} }

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// when is a time, if it is known.
func when(t time.Time) []sample {
	if t.IsZero() {
		return nil
	}
	return []sample{{value: float64(t.UnixMilli()) / 1000}}
}

func (b backlog) seconds() float64 { return time.Duration(b.Age).Seconds() }

func (d destinationStatus) up() []sample {
	if d.State == stateUnknown {
		return nil
	}
	return only(oneIf(d.State == stateOK || d.State == stateBehind))
}

func ofWaiting(figure func(backlog) float64) func(status) []sample {
	return func(s status) []sample {
		if s.Waiting == nil {
			return nil
		}
		return only(figure(*s.Waiting))
	}
}

func ofDestinations(figures func(destinationStatus) []sample) func(status) []sample {
	return func(s status) []sample {
		var all []sample
		for _, d := range s.Destinations {
			for _, one := range figures(d) {
				one.labels = append([]string{"destination", d.Name, "mode", string(d.Mode)}, one.labels...)
				all = append(all, one)
			}
		}
		return all
	}
}

func ofLag(figure func(backlog) float64) func(status) []sample {
	return ofDestinations(func(d destinationStatus) []sample {
		if d.Lag == nil {
			return nil
		}
		return only(figure(*d.Lag))
	})
}

func ofQueues(figure func(queueStatus) float64) func(status) []sample {
	return ofDestinations(func(d destinationStatus) []sample {
		if d.Queue == nil {
			return nil
		}
		return only(figure(*d.Queue))
	})
}
