package multicall

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// lineHandler writes records as lines for PostgreSQL's log:
//
//	restore_command: WARNING: in doubt, trying again file=0000000200000000000000A3 for=10m0s
//
// There is no time: PostgreSQL's log and systemd's have their own. Each record
// is one write, so that lines of several processes do not mix. That stderr is
// gone is no reason to fail.
type lineHandler struct {
	name  string
	level slog.Leveler
	given string // attributes of With, formatted
	group string // prefix of the keys to come

	mu *sync.Mutex // guards w
	w  io.Writer
}

var _ slog.Handler = lineHandler{}

func newLineHandler(w io.Writer, name string, level slog.Leveler) lineHandler {
	return lineHandler{name: name, level: level, mu: new(sync.Mutex), w: w}
}

// Enabled follows the setting `debug`.
func (h lineHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

// Handle writes one line. It never fails.
func (h lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s%s", h.name, levelWord(r.Level), oneLine(r.Message), h.given)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.group, a)
		return true
	})
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = io.WriteString(h.w, b.String())
	return nil
}

// WithAttrs keeps attributes for every later line.
func (h lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, h.group, a)
	}
	h.given += b.String()
	return h
}

// WithGroup prefixes the keys to come.
func (h lineHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "."
	}
	return h
}

// levelWord is PostgreSQL's word for a level.
func levelWord(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}

func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range v.Group() {
			writeAttr(b, group, inner)
		}
		return
	}
	if a.Key == "" {
		return
	}
	fmt.Fprintf(b, " %s=%s", oneLine(group+a.Key), quoted(valueText(v)))
}

func valueText(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().Format(time.RFC3339)
	}
	return v.String()
}

// quoted quotes what would not read back as one word.
func quoted(s string) string {
	odd := func(r rune) bool { return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	if s == "" || strings.ContainsFunc(s, odd) {
		return strconv.Quote(s)
	}
	return s
}

// oneLine keeps a line break out of the log.
func oneLine(s string) string {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return strconv.Quote(s)
	}
	return s
}
