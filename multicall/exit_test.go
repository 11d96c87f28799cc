package multicall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pitr/archive"
	"pitr/standby"
)

// documented reads the first table of docs/exit-codes.md.
func documented(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// happenings are errors for each row of the documentation, by its first words.
func happenings() map[string][]error {
	return map[string][]error{
		"done":                         {nil},
		"absent, with proof":           {archive.ErrAbsent},
		"usage or configuration error": {ErrUsage, ErrConfig, usagef("x"), &ConfigError{}},
		"conflict":                     {archive.ErrConflict},
		"refused":                      {archive.ErrForeign, archive.ErrIdentity, ErrOffline},
		"doubt":                        {errors.New("x"), archive.ErrGap, archive.ErrDamaged, archive.ErrNoIdentity, os.ErrNotExist},
		"no process can be started":    {errNoChild, classed{os.ErrPermission, errNoChild}},
		"SIGTERM":                      {interrupted(syscall.SIGTERM)},
		"SIGINT":                       {interrupted(syscall.SIGINT)},
		"SIGQUIT":                      {interrupted(syscall.SIGQUIT)},
		"SIGHUP":                       {interrupted(syscall.SIGHUP)},
		"internal error":               {&panicked{}},
	}
}

func TestExitCodesAreTheDocumentedOnes(t *testing.T) {
	rows := documented(t)
	for i, name := range rows[0][1:] {
		if a, _ := findApplet(name); a.column != column(i) {
			t.Errorf("column %d is %s, which has column %d", i, name, a.column)
		}
	}
	seen := 0
	for _, row := range rows[2:] {
		what, errs := happening(row[0])
		if errs == nil {
			t.Errorf("row %q is not tested", row[0])
			continue
		}
		seen++
		for col := range columns {
			want := documentedStatus(t, rows, row, col)
			for _, err := range errs {
				if got := statusOf(wrapped(err), col); got != want {
					t.Errorf("%s, %s, %v: got %d, want %d", what, rows[0][col+1], err, got, want)
				}
			}
		}
	}
	if seen != len(happenings()) {
		t.Errorf("got %d rows, want %d", seen, len(happenings()))
	}
}

func happening(cell string) (string, []error) {
	for what, errs := range happenings() {
		if strings.HasPrefix(cell, what) {
			return what, errs
		}
	}
	return "", nil
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("push 000000010000000000000001: %w", hint(err, "look"))
}

func documentedStatus(t *testing.T, rows [][]string, row []string, col column) int {
	t.Helper()
	switch cell := row[col+1]; cell {
	case "standby mode 1, else 255":
		return 255
	case "-", "see doubt":
		for _, r := range rows {
			if strings.HasPrefix(r[0], "doubt") {
				return documentedStatus(t, rows, r, col)
			}
		}
		t.Fatal("no row for doubt")
		return 0
	default:
		n, err := strconv.Atoi(cell)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func TestDoubtCarriesItsOwnStatus(t *testing.T) {
	for mode, want := range map[standby.Mode]int{standby.Standby: 1, standby.Recovery: 255} {
		err := wrapped(&standby.Doubt{Mode: mode, Err: archive.ErrIdentity})
		if got := statusOf(err, colRestoreCommand); got != want {
			t.Errorf("%s: got %d, want %d", mode, got, want)
		}
	}
}

func TestStatusThatAnErrorBringsAlong(t *testing.T) {
	tests := []struct {
		status int
		col    column
		want   int
	}{
		{6, colPitr, 6},
		{125, colArchiveCommand, 125},
		{126, colArchiveCommand, 1}, // would restart the archiver
		{255, colArchiveCommand, 1},
		{125, colCmdArchiver, 125},
		{126, colCmdArchiver, 1},
		{0, colPitr, 1}, // an error is no success
		{256, colPitr, 1},
		{-1, colRestoreCommand, 255},
		{3, colPgStandby, 3},
	}
	for _, tt := range tests {
		err := wrapped(withStatus(errors.New("x"), tt.status))
		if got := statusOf(err, tt.col); got != tt.want {
			t.Errorf("%d in column %d: got %d, want %d", tt.status, tt.col, got, tt.want)
		}
	}
}

// A proof of absence joined with any other class is no proof.
func TestAbsenceComesLast(t *testing.T) {
	for _, other := range []error{ErrConfig, ErrUsage, interrupted(syscall.SIGTERM), &panicked{}} {
		if got := statusOf(errors.Join(archive.ErrAbsent, other), colRestoreCommand); got < 126 {
			t.Errorf("absent and %v: got %d", other, got)
		}
	}
}

// What an applet says to a signal is text: the status is the signal's, unless all
// was done.
func TestEndBySignalIsNotTheAppletsOwn(t *testing.T) {
	const sig = syscall.SIGTERM
	tests := []struct {
		name   string
		err    error
		status int
		says   string
	}{
		{"success", nil, 0, ""},
		{"help", errDone, 0, ""},
		{"a status that was told already", statusTold(1), 143, ""},
		{"the signal", interrupted(sig), 143, "ended by SIGTERM"},
		{"a context that ended", fmt.Errorf("read: %w", context.Canceled), 143, "ended by SIGTERM"},
		{"the signal, in other words", fmt.Errorf("push A: %w", interrupted(sig)), 143, "push A: ended by SIGTERM"},
		{"absence", fmt.Errorf("A: %w", archive.ErrAbsent), 143, "ended by SIGTERM: A: not in the archive"},
		{"a status of its own", withStatus(errors.New("x"), 1), 143, "ended by SIGTERM: x"},
	}
	for _, tt := range tests {
		err := endedBy(sig, tt.err)
		if errors.Is(err, errDone) {
			err = nil // as start does
		}
		var b strings.Builder
		report(&b, "restore_command", err)
		if got := strings.TrimPrefix(strings.TrimSpace(b.String()), "restore_command: "); got != tt.says {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.says)
		}
		if got := statusOf(err, colRestoreCommand); got != tt.status {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.status)
		}
	}
}

func TestVerificationEndsWithWhatItFound(t *testing.T) {
	for name, tt := range map[string]struct {
		found verified
		want  int
	}{
		"all sound":                     {verified{Files: 3}, 0},
		"one damaged":                   {verified{Damaged: 1}, 6},
		"one missing":                   {verified{Missing: 1}, 6},
		"one not readable":              {verified{Unread: 1}, 1},
		"one damaged, one not readable": {verified{Damaged: 1, Unread: 1}, 6},
	} {
		if got := statusOf(tt.found.verdict(), colPitr); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	plain := errors.New("no space left on device")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"nothing", nil, ""},
		{"told already", statusTold(3), ""},
		{"plain", fmt.Errorf("push 0A: %w", plain), "archive_command: push 0A: no space left on device\n"},
		{"hint once", fmt.Errorf("a: %w", hint(hint(plain, "make room"), "make room")), "archive_command: a: no space left on device\nHINT: make room\n"},
		{"usage text is not named twice", usagef("no such flag"), "archive_command: no such flag\n"},
		{
			"joined, each with its hint", errors.Join(hint(errors.New("a"), "A"), errors.New("b"), hint(errors.New("c"), "C")),
			"archive_command: a\nHINT: A\narchive_command: b\narchive_command: c\nHINT: C\n",
		},
		{"wrapping two is one line", fmt.Errorf("%w: %w", archive.ErrForeign, hint(plain, "H")), "archive_command: refused: no space left on device\nHINT: H\n"},
		{
			"many problems", &ConfigError{[]error{errors.New("1"), errors.New("2"), errors.New("3"), errors.New("4"), errors.New("5")}},
			"archive_command: 1\narchive_command: 2\narchive_command: 3\narchive_command: the configuration has 2 more problems\nHINT: pitr config check shows all of them.\n",
		},
		{"panic", &panicked{"oh", []byte("goroutine 1\n")}, "archive_command: internal error: oh; please report this, with the lines below\ngoroutine 1\n"},
	}
	for _, tt := range tests {
		var b strings.Builder
		report(&b, "archive_command", tt.err)
		if b.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, b.String(), tt.want)
		}
	}
}
