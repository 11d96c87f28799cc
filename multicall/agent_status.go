package multicall

import (
	"os"
	"time"

	"pitr/archive/ship"
)

// agentStatus is what an agent says of itself.
type agentStatus struct {
	Running  bool            `json:"running"`
	PID      int             `json:"pid,omitempty"`
	Build    string          `json:"build,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	Busy     bool            `json:"busy"`
	Archives []archiveStatus `json:"archives,omitempty"`
	// Problem is why it could not be asked, if somebody is there.
	Problem string `json:"problem,omitempty"`
}

// archiveStatus is what an agent knows of a destination.
type archiveStatus struct {
	Archive string    `json:"archive"` // an archive's URL, a slave's name
	Last    string    `json:"last,omitempty"`
	LastAt  time.Time `json:"last_at,omitzero"`
	Error   string    `json:"error,omitempty"` // the last one
	ErrorAt time.Time `json:"error_at,omitzero"`
	Classes []string  `json:"error_classes,omitempty"`
	Failing bool      `json:"failing,omitempty"` // nothing has succeeded since
	Down    time.Time `json:"down_since,omitzero"`
	Format  int       `json:"format,omitempty"` // of the archive, once it has said it
	Major   int       `json:"postgres_major,omitempty"`
}

func (a *agent) status() agentStatus {
	s := agentStatus{Running: true, PID: os.Getpid(), Build: Version(), Since: a.began.UTC(), Busy: a.busy()}
	if a.ahead != nil {
		for _, w := range a.ahead.States() {
			s.Archives = append(s.Archives, a.requiredStatus(w))
		}
	}
	for _, d := range a.cfg.destinationNames() {
		if d.queue != "" {
			s.Archives = append(s.Archives, a.queuedStatus(d))
		}
	}
	return s
}

func (a *agent) requiredStatus(w ship.WayState) archiveStatus {
	id := a.watched.identity(w.Archive)
	one := archiveStatus{Archive: w.Archive, LastAt: w.LastAt, Down: w.Down, Failing: w.Failing, Format: id.Format, Major: id.Major}
	if !w.LastAt.IsZero() {
		one.Last = w.Last.String()
	}
	if w.Err != nil {
		one.Error, one.ErrorAt, one.Classes = w.Err.Error(), w.ErrAt, classesOf(w.Err)
	}
	return one
}

// queuedStatus is what an agent knows of a destination with a queue. The rest is
// written down beside the queue.
func (a *agent) queuedStatus(d destinationName) archiveStatus {
	one := archiveStatus{Archive: d.name}
	if last, ok := a.watched.lastOf(d.queue); ok {
		one.Last, one.LastAt = last.name.String(), last.at
	}
	return one
}
