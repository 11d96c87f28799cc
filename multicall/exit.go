package multicall

import (
	"errors"
	"fmt"
	"syscall"

	"pitr/archive"
)

// What a command can come to before any archive is asked. Match them with
// errors.Is.
var (
	// ErrUsage: the command line cannot be understood.
	ErrUsage = errors.New("usage error")

	// ErrConfig: the configuration cannot be used. *ConfigError matches it.
	ErrConfig = errors.New("configuration error")

	// ErrOffline: the configuration says `state: offline`.
	ErrOffline = errors.New("state is offline")

	// errInternal: a panic. *panicked matches it.
	errInternal = errors.New("internal error")

	// errDone: the command line asked for help or for the version, and got it.
	errDone = errors.New("done")
)

// column is an applet's column in docs/exit-codes.md.
type column int

const (
	colRestoreCommand column = iota
	colArchiveCommand
	colPgStandby
	colPgArchivecleanup
	colCmdArchiver
	colMount
	colPitr
	columns
)

// never stands where docs/exit-codes.md has "-" or "see doubt": if it happens
// all the same, the outcome is a doubt.
const never = -1

// outcome is a row of docs/exit-codes.md.
type outcome struct {
	what   string
	errs   []error
	status [columns]int
}

// outcomes is the one table from what happened to a status. The first row that
// matches decides, so proven absence, the dangerous answer, stands last.
func outcomes() []outcome {
	return []outcome{
		{"SIGTERM", []error{interrupted(syscall.SIGTERM)}, [columns]int{143, 143, 143, 143, 143, 143, 143}},
		{"SIGINT", []error{interrupted(syscall.SIGINT)}, [columns]int{130, 130, 1, 130, 130, 8, 130}},
		{"SIGQUIT", []error{interrupted(syscall.SIGQUIT)}, [columns]int{131, 131, 131, 131, 131, 131, 131}},
		{"SIGHUP", []error{interrupted(syscall.SIGHUP)}, [columns]int{129, 129, 129, 129, 129, 129, 129}},
		{"internal error", []error{errInternal}, [columns]int{255, 1, 255, 1, 1, 4, 1}},
		{"usage or configuration error", []error{ErrUsage, ErrConfig}, [columns]int{255, 2, 2, 2, 2, 1, 2}},
		{"conflict", []error{archive.ErrConflict}, [columns]int{never, 4, never, never, 4, never, 4}},
		{"refused", []error{archive.ErrForeign, archive.ErrIdentity, ErrOffline}, [columns]int{never, 5, never, never, 5, never, 5}},
		{"no process can be started", []error{errNoChild}, [columns]int{never, never, never, never, never, 2, never}},
		{"absent, with proof", []error{archive.ErrAbsent}, [columns]int{1, never, 1, never, never, never, 3}},
	}
}

// doubts is the row for everything else. restore_command has the answer of
// recovery here; standby.Doubt brings the one of standby mode along.
func doubts() [columns]int { return [columns]int{255, 1, 1, 1, 1, 32, 1} }

// statusOf is what the process says about err. An error in the tree that has a
// method ExitStatus() int decides before the table does.
func statusOf(err error, col column) int {
	if err == nil {
		return 0
	}
	var own interface{ ExitStatus() int }
	if errors.As(err, &own) && permitted(own, col) {
		return own.ExitStatus()
	}
	for _, row := range outcomes() {
		if row.matches(err) && row.status[col] != never {
			return row.status[col]
		}
	}
	return doubts()[col]
}

func (o outcome) matches(err error) bool {
	for _, e := range o.errs {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// permitted keeps a status that some error brings along from meaning something
// else to PostgreSQL: success never comes with an error, and above 125 its
// archiver process would be restarted. What a signal means is in the table.
func permitted(own interface{ ExitStatus() int }, col column) bool {
	if _, ok := own.(interrupted); ok {
		return false
	}
	status := own.ExitStatus()
	return status > 0 && status <= 255 && (col != colArchiveCommand && col != colCmdArchiver || status <= 125)
}

// statusError is an error that knows its exit status.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error   { return e.error }
func (e statusError) ExitStatus() int { return e.status }

// withStatus makes the process end with status, whatever class err is of.
func withStatus(err error, status int) error {
	if err == nil {
		return nil
	}
	return statusError{err, status}
}

// told is the status of a program that has printed its own messages.
type told int

func (t told) Error() string   { return fmt.Sprintf("exit status %d", int(t)) }
func (t told) ExitStatus() int { return int(t) }

// statusTold is what an applet returns that decides its status by itself.
func statusTold(status int) error {
	if status == 0 {
		return nil
	}
	return told(status)
}

// usagef is an error of the command line. It matches ErrUsage.
func usagef(format string, args ...any) error {
	return classed{fmt.Errorf(format, args...), ErrUsage}
}

// classed gives an error a class without changing its text.
type classed struct {
	error
	class error
}

func (c classed) Unwrap() []error { return []error{c.error, c.class} }
