package multicall

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		err  string // part of it
	}{
		{"0", 0, ""},
		{"90", 90 * time.Second, ""},
		{" 90 ", 90 * time.Second, ""},
		{"90s", 90 * time.Second, ""},
		{"500ms", 500 * time.Millisecond, ""},
		{"10m", 10 * time.Minute, ""},
		{"10 min", 10 * time.Minute, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"1h 30m", 90 * time.Minute, ""},
		{"2d", 48 * time.Hour, ""},
		{"2D", 48 * time.Hour, ""},
		{"", 0, "empty"},
		{"-1", 0, "negative"},
		{"-5m", 0, "negative"},
		{"1.5h", 0, "expected"},
		{"m", 0, "expected a number"},
		{"10x", 0, `unknown unit "x"`},
		{"10m 30", 0, "expected a unit"},
		{"10 20", 0, "expected a unit"},
		{"99999999999999999999", 0, "too large"},
		{"200000d", 0, "too large"},
		{"100000d100000d", 0, "too large"},
		{"10MB", 0, "unknown unit"},
	}
	for _, tt := range tests {
		got, err := parseDuration(tt.in)
		if !fits(err, tt.err) || got != tt.want {
			t.Errorf("%q: got %v, %v, want %v, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestParseSize(t *testing.T) {
	tests := []struct {
		in   string
		want int64
		err  string
	}{
		{"0", 0, ""},
		{"4096", 4096, ""},
		{"16MB", 16 << 20, ""},
		{"16 MB", 16 << 20, ""},
		{"16mb", 16 << 20, ""},
		{"64kB", 64 << 10, ""},
		{"1GB", 1 << 30, ""},
		{"2TB", 2 << 40, ""},
		{"1GB 1B", 1<<30 + 1, ""},
		{"8388607TB", 8388607 << 40, ""},
		{"8388608TB", 0, "too large"},
		{"-1", 0, "negative"},
		{"1MiB", 0, `unknown unit "MiB"`},
		{"16M", 0, `unknown unit "M"`},
		{"", 0, "empty"},
	}
	for _, tt := range tests {
		got, err := parseSize(tt.in)
		if !fits(err, tt.err) || got != tt.want {
			t.Errorf("%q: got %v, %v, want %v, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestParseBool(t *testing.T) {
	for word, want := range map[string]bool{"on": true, "Yes": true, "TRUE": true, "1": true, "off": false, "no": false, "False": false, "0": false} {
		if got, err := parseBool(word); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", word, got, err, want)
		}
	}
	for _, word := range []string{"", "y", "t", "enabled", "2"} {
		if _, err := parseBool(word); err == nil {
			t.Errorf("%q: got no error", word)
		}
	}
}

// fits tells whether err is what a test expects: none, or one with that text in
// it or in its hints.
func fits(err error, want string) bool {
	if want == "" || err == nil {
		return want == "" && err == nil
	}
	return strings.Contains(err.Error()+"\n"+strings.Join(hintsOf(err), "\n"), want)
}

func FuzzUnits(f *testing.F) {
	f.Add("1h 30m")
	f.Add("16MB")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil && d < 0 {
			t.Errorf("%q: got %v", s, d)
		}
		if n, err := parseSize(s); err == nil && n < 0 {
			t.Errorf("%q: got %v", s, n)
		}
	})
}
