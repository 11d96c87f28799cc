package multicall

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLogLines(t *testing.T) {
	tests := []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("restored", "file", "0A", "after", 3*time.Second) }, "x: INFO: restored file=0A after=3s\n"},
		{"warning", func(l *slog.Logger) { l.Warn("in doubt, trying again") }, "x: WARNING: in doubt, trying again\n"},
		{"error", func(l *slog.Logger) { l.Error("gave up") }, "x: ERROR: gave up\n"},
		{"debug is off", func(l *slog.Logger) { l.Debug("step") }, ""},
		{"quoted", func(l *slog.Logger) {
			l.Info("m", "error", errors.New("no such file"), "e", "", "q", `a"b`, "n", "a\nb", "k", "a=b")
		}, `x: INFO: m error="no such file" e="" q="a\"b" n="a\nb" k="a=b"` + "\n"},
		{"a line stays a line", func(l *slog.Logger) { l.Info("two\nlines") }, `x: INFO: "two\nlines"` + "\n"},
		{"groups", func(l *slog.Logger) {
			l.With("a", 1).WithGroup("g").With("b", 2).Info("m", "c", 3, slog.Group("h", "d", 4), slog.Group("", "e", 5))
		}, "x: INFO: m a=1 g.b=2 g.c=3 g.h.d=4 g.e=5\n"},
		{"time", func(l *slog.Logger) { l.Info("m", "at", time.Unix(0, 0).UTC()) }, "x: INFO: m at=1970-01-01T00:00:00Z\n"},
		{"empty attribute", func(l *slog.Logger) { l.Info("m", slog.Attr{}) }, "x: INFO: m\n"},
	}
	for _, tt := range tests {
		var b strings.Builder
		tt.log(slog.New(newLineHandler(&b, "x", slog.LevelInfo)))
		if b.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, b.String(), tt.want)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestLogIntoNothingIsNoError(t *testing.T) {
	h := newLineHandler(brokenWriter{}, "x", slog.LevelInfo)
	if err := h.Handle(t.Context(), slog.Record{}); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}
