package fusefs

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"pitr/archive"
)

// counters count what was done since the mount.
type counters struct {
	lookups, listings, opens, reads    atomic.Int64
	hits, fetches, ahead, fetchedBytes atomic.Int64
	damaged, retries, failures         atomic.Int64
}

// health is what is known of the archives.
type health struct {
	log *slog.Logger
	now func() time.Time
	counters

	mu       sync.Mutex // guards the rest
	archives []*archiveHealth
	failing  time.Time // since when nothing could be had; zero while all is well
}

// archiveHealth is what is known of one archive.
type archiveHealth struct {
	Name        string     `json:"name"`
	Up          bool       `json:"up"`
	LastSuccess *time.Time `json:"last_success"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

// watch reports what becomes of the questions to the archives. A gap is none of the
// mount's business: whoever recovers decides what it takes for the end.
func (h *health) watch(set archive.Set, pin archive.Cluster) archive.Set {
	var watched archive.Set
	for _, a := range set {
		state := &archiveHealth{Name: a.Name()}
		h.archives = append(h.archives, state)
		watched = append(watched, a.With(func(o *archive.Options) {
			o.Cluster, o.GapIsEnd = pin, false
			o.Report = func(err error) { h.asked(state, err) }
		}))
	}
	return watched
}

// asked notes how a question ended. That a file is not there is an answer.
func (h *health) asked(a *archiveHealth, err error) {
	if errors.Is(err, errClosed) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	a.Up = err == nil || errors.Is(err, archive.ErrAbsent) || errors.Is(err, archive.ErrGap) || errors.Is(err, archive.ErrDamaged)
	if a.Up {
		a.LastSuccess = &now
	}
	if err != nil && !errors.Is(err, archive.ErrAbsent) {
		a.LastError, a.LastErrorAt = err.Error(), &now
	}
}

// wait says that a reader has to wait, once for all of them.
func (h *health) wait(what string, err error) {
	h.retries.Add(1)
	h.mu.Lock()
	first := h.failing.IsZero()
	if first {
		h.failing = h.now()
	}
	h.mu.Unlock()
	if first {
		h.log.Warn("no answer: readers wait", "asked", what, "error", err)
	}
}

// well says that an answer came.
func (h *health) well() {
	h.mu.Lock()
	since := h.failing
	h.failing = time.Time{}
	h.mu.Unlock()
	if !since.IsZero() {
		h.log.Info("answers again", "after", h.now().Sub(since).Round(time.Millisecond))
	}
}

// report is .pitr/health.json.
type report struct {
	Healthy    bool             `json:"healthy"`
	Time       time.Time        `json:"time"`
	Since      *time.Time       `json:"failing_since,omitempty"`
	Archives   []archiveHealth  `json:"archives"`
	CacheBytes int64            `json:"cache_bytes"`
	CacheLimit int64            `json:"cache_limit_bytes"`
	Counters   map[string]int64 `json:"counters"`
}

func (h *health) report(c *cache) report {
	r := report{CacheBytes: c.held(), CacheLimit: c.limit, Counters: map[string]int64{}}
	for _, m := range h.metrics() {
		r.Counters[m.name] = m.value
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.Time, r.Healthy = h.now(), h.failing.IsZero()
	if since := h.failing; !since.IsZero() {
		r.Since = &since
	}
	for _, a := range h.archives {
		r.Archives = append(r.Archives, *a)
	}
	return r
}

// metric is one counter with its name and what it counts.
type metric struct {
	name, help string
	value      int64
}

func (h *health) metrics() []metric {
	return []metric{
		{"lookups", "Names that were looked for in the archives.", h.lookups.Load()},
		{"listings", "Listings of the archives.", h.listings.Load()},
		{"opens", "Files that were opened.", h.opens.Load()},
		{"reads", "Reads that the kernel did not answer by itself.", h.reads.Load()},
		{"cache_hits", "Files that were opened from the cache.", h.hits.Load()},
		{"fetches", "Files that were fetched whole.", h.fetches.Load()},
		{"fetches_ahead", "Of these, fetched before they were asked for.", h.ahead.Load()},
		{"fetched_bytes", "Raw bytes that were fetched and verified.", h.fetchedBytes.Load()},
		{"damaged", "Reads and opens refused because the archive's copy is damaged.", h.damaged.Load()},
		{"retries", "Questions that got no answer, and were to be asked again.", h.retries.Load()},
		{"failures", "Requests that ended with EIO.", h.failures.Load()},
	}
}

// healthJSON is the content of .pitr/health.json.
func (h *health) healthJSON(c *cache) []byte { return asJSON(h.report(c)) }

// metricsText is the content of .pitr/metrics, in the text format of Prometheus.
func (h *health) metricsText(c *cache) []byte {
	var b strings.Builder
	r := h.report(c)
	for _, m := range h.metrics() {
		fmt.Fprintf(&b, "# HELP pitr_mount_%s_total %s\n# TYPE pitr_mount_%[1]s_total counter\npitr_mount_%[1]s_total %[3]d\n", m.name, m.help, m.value)
	}
	gauge := func(name, help string) {
		fmt.Fprintf(&b, "# HELP pitr_mount_%s %s\n# TYPE pitr_mount_%[1]s gauge\n", name, help)
	}
	gauge("cache_bytes", "Bytes in the cache, with what is being fetched.")
	fmt.Fprintf(&b, "pitr_mount_cache_bytes %d\n", r.CacheBytes)
	gauge("cache_limit_bytes", "How many there may be.")
	fmt.Fprintf(&b, "pitr_mount_cache_limit_bytes %d\n", r.CacheLimit)
	gauge("archive_up", "Whether the archive answered when it was last asked.")
	for _, a := range r.Archives {
		up := 0
		if a.Up {
			up = 1
		}
		fmt.Fprintf(&b, "pitr_mount_archive_up{archive=%q} %d\n", a.Name, up)
	}
	return []byte(b.String())
}

func asJSON(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return []byte("{}\n") // what is written here can be encoded
	}
	return append(b, '\n')
}
