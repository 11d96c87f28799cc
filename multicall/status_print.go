package multicall

import (
	"fmt"
	"io"
	"strings"
	"time"

	"pitr/archive/wal"
)

// print writes the status for people. The first line is for Nagios.
func (s status) print(w io.Writer) {
	fmt.Fprintf(w, "PITR %s - %s%s\n", strings.ToUpper(s.Result.String()), visible(s.summary()), s.performance())
	for _, f := range s.Findings {
		fmt.Fprintf(w, "%-8s  %s: %s\n", f.Severity, f.What, visible(f.Found))
		if f.Remedy != "" {
			fmt.Fprintf(w, "          HINT: %s\n", visible(f.Remedy))
		}
	}
	fmt.Fprintf(w, "cluster: %s, PostgreSQL %d, system identifier %d; pitr %s\n", s.PGData, s.Major, s.SystemID, s.Version)
	fmt.Fprintf(w, "agent: %s\n", s.Agent.line())
	if s.Waiting != nil {
		fmt.Fprintf(w, "pg_wal: %s%s\n", s.Waiting, s.told("; archived last: ", s.Archived, s.ArchivedAt))
	}
	for _, d := range s.Destinations {
		s.printDestination(w, d)
	}
}

// summary is what matters most, in one line.
func (s status) summary() string {
	if len(s.Findings) == 0 {
		return fmt.Sprintf("%s, %s", count(len(s.Destinations), "destination"), s.Waiting)
	}
	f := s.Findings[0]
	text := f.What + ": " + f.Found
	if more := len(s.Findings) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	// What follows a bar Nagios takes for figures.
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "/")
}

// performance is the same in figures, as Nagios reads them.
func (s status) performance() string {
	if s.Waiting == nil {
		return ""
	}
	return fmt.Sprintf(" | waiting=%d waiting_bytes=%dB oldest=%.0fs", s.Waiting.Files, s.Waiting.Bytes, time.Duration(s.Waiting.Age).Seconds())
}

func (s status) printDestination(w io.Writer, d destinationStatus) {
	fmt.Fprintf(w, "%s (%s): %s\n", d.Name, d.Mode, d.State)
	if last := s.told("last shipped ", d.Last, d.LastAt); last != "" {
		fmt.Fprintf(w, "  %s\n", last)
	}
	if d.Lag != nil && d.Lag.Files > 0 {
		fmt.Fprintf(w, "  lag: %s\n", d.Lag)
	}
	if d.Queue != nil {
		fmt.Fprintf(w, "  queue: %s\n", d.Queue)
	}
	if d.Error != "" {
		fmt.Fprintf(w, "  last error, at %s: %s\n", d.ErrorAt.Local().Format(time.DateTime), visible(d.Error))
	}
	if d.Format > 0 {
		fmt.Fprintf(w, "  archive of format %d, PostgreSQL %d\n", d.Format, d.Major)
	}
}

// told names a file, and when it was shipped.
func (s status) told(what string, name wal.Name, at time.Time) string {
	if name == (wal.Name{}) {
		return ""
	}
	return fmt.Sprintf("%s%s at %s", what, name, at.Local().Format(time.DateTime))
}

// line says in words what an agent says of itself.
func (s agentStatus) line() string {
	switch {
	case s.Problem != "":
		return "nothing is known of it"
	case !s.Running:
		return "none is running"
	}
	return fmt.Sprintf("process %d, %s, since %s", s.PID, s.Build, s.Since.Local().Format(time.DateTime))
}
