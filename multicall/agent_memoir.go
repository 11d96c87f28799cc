package multicall

import (
	"context"
	"log/slog"
	"sync"
)

// memoir keeps what an agent has to say until a call takes it into PostgreSQL's
// log. When there is too much the oldest goes.
type memoir struct {
	mu    sync.Mutex // guards what follows
	lines []string
}

// mostTold bounds a memoir, in lines.
const mostTold = 200

func newMemoir() *memoir { return &memoir{} }

// Write keeps a line.
func (m *memoir) Write(line []byte) (int, error) {
	m.putBack([]string{string(line)})
	return len(line), nil
}

// take returns what nobody was told yet.
func (m *memoir) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := m.lines
	m.lines = nil
	return lines
}

// putBack keeps lines that could not be told.
func (m *memoir) putBack(lines []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, lines...)
	m.lines = m.lines[max(0, len(m.lines)-mostTold):]
}

// teeHandler gives each record to two handlers.
type teeHandler struct{ one, other slog.Handler }

func newTeeHandler(one, other slog.Handler) slog.Handler { return teeHandler{one, other} }

// Enabled if one of them is.
func (t teeHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return t.one.Enabled(ctx, level) || t.other.Enabled(ctx, level)
}

// Handle hands a record on; handlers of lines never fail.
func (t teeHandler) Handle(ctx context.Context, r slog.Record) error {
	_ = t.one.Handle(ctx, r.Clone())
	return t.other.Handle(ctx, r)
}

// WithAttrs adds attributes to both.
func (t teeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return teeHandler{t.one.WithAttrs(attrs), t.other.WithAttrs(attrs)}
}

// WithGroup adds a group to both.
func (t teeHandler) WithGroup(name string) slog.Handler {
	return teeHandler{t.one.WithGroup(name), t.other.WithGroup(name)}
}
