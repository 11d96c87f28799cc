package multicall

import (
	"bytes"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"sync"
	"time"
)

// junction is a writer that can be turned to another one.
type junction struct {
	mu sync.Mutex // guards to
	to io.Writer
}

// Write writes to where it is turned.
func (j *junction) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.to.Write(p)
}

func (j *junction) turn(to io.Writer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.to = to
}

// openLog is where a mount in the background tells what happens: the file that
// was named, else syslog, where there is one. The file is for what is written
// past that.
func (m mounting) openLog() (io.Writer, *os.File, error) {
	if m.flags.Log != "" {
		f, err := os.OpenFile(m.flags.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("the log: %w", err)
		}
		return stamped{f}, f, nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "pitr")
	if err != nil {
		return io.Discard, null, nil // containers have none; .pitr/health.json is there always
	}
	return ranked{w}, null, nil
}

// stamped puts the time before each line: a file has none of its own.
type stamped struct{ w io.Writer }

// Write writes one record, which may have several lines.
func (s stamped) Write(p []byte) (int, error) {
	now := time.Now().Format("2006-01-02 15:04:05.000 MST ")
	var b bytes.Buffer
	for line := range bytes.Lines(p) {
		b.WriteString(now)
		b.Write(line)
	}
	if _, err := s.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ranked gives syslog the rank that a line says it has.
type ranked struct{ w *syslog.Writer }

// Write writes one record.
func (r ranked) Write(p []byte) (int, error) {
	tell := r.w.Info
	switch {
	case bytes.Contains(p, []byte(": ERROR: ")):
		tell = r.w.Err
	case bytes.Contains(p, []byte(": WARNING: ")):
		tell = r.w.Warning
	case bytes.Contains(p, []byte(": DEBUG: ")):
		tell = r.w.Debug
	}
	if err := tell(string(bytes.TrimSpace(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
