package standby

import (
	"context"
	"errors"
	"os"
	"time"

	"pitr/archive/wal"
)

// ErrFailoverSignal is the cause with which SIGUSR1 and SIGINT end the context
// of PgStandby: recovery is to end now.
//
// Package multicall wires the signals, for pg_standby alone:
//
//	SIGUSR1, SIGINT  cancel(standby.ErrFailoverSignal)
//	SIGTERM          cancel with a cause that has ExitStatus() int, 143
//	SIGQUIT          likewise, 131, or end the process at once
//
// SIGINT is caught even if it was ignored at the start, as the original does.
// What matters is that SIGQUIT and SIGTERM never become 1: PostgreSQL sends
// them to stop, and would take 1 for the end of WAL and open the database.
var ErrFailoverSignal = errors.New("signaled to exit: fast failover")

// PgStandby is one call of pg_standby, the restore_command that waits, without
// the program's name in args. It follows pg_standby.c of PostgreSQL 13 in its
// command line, its messages and its exit status: 0 the file is restored, 1
// recovery should end, 2 usage, 3 the file is larger than a segment.
//
// A file appears under XLOGFILEPATH whole or not at all: it is copied to a
// temporary name beside it and renamed. Like the original it does not sync:
// after a crash PostgreSQL asks again.
//
// Beyond the original it refuses, with 255, an archive of layout tree, where no
// file would ever be found. When ctx ends it removes its temporary file and
// returns 1 for ErrFailoverSignal, otherwise the status that the cause has in a
// method ExitStatus() int, else 143.
func PgStandby(ctx context.Context, args []string, std StandardIO) int {
	if std.inform(args, "pg_standby", pgStandbyHelp) {
		return 0
	}
	p := pgStandby{std: std, pause: 5 * time.Second, retries: 3}
	if err := p.parse(args); err != nil {
		std.warnf("%v\n", err)
		return usageStatus(err)
	}
	p.describe()
	if isKind(p.next, wal.KindHistory) {
		return p.restoreHistory(ctx)
	}
	return p.waitAndRestore(ctx)
}

// pgStandby is a command line of pg_standby and what was found out since.
type pgStandby struct {
	std            StandardIO
	debug          bool
	keep           int // segments to keep in the archive; 0 keeps all
	retries        int // further attempts to copy
	pause, maxWait time.Duration
	trigger        string // "" for none

	archive, next, target string
	restart               string
	hasRestart            bool // "" is a RESTARTWALFILE too

	size   wal.SegmentSize // 0 until a header told it
	cutoff string          // the first segment to stay; "" cleans nothing up
	said   string          // the last complaint of this wait
}

// failover is how recovery is to end.
type failover int

const (
	noFailover    failover = iota
	smartFailover          // when the archive has no more
	fastFailover           // at once
)

// source is the file to restore.
func (p *pgStandby) source() string { return p.archive + "/" + p.next }

// restoreHistory never waits for the file: PostgreSQL asks for timelines that
// nobody may ever create.
func (p *pgStandby) restoreHistory(ctx context.Context) int {
	if p.restore(ctx) {
		return 0
	}
	if ctx.Err() != nil {
		return p.interrupted(ctx)
	}
	p.debugf("history file not found\n")
	return 1
}

// waitAndRestore looks at the trigger and for the file, by turns.
func (p *pgStandby) waitAndRestore(ctx context.Context) int {
	state := noFailover
	// The original counts from -1, and full seconds, so that it waits one turn
	// longer than it seems: -s5 -w10 is 15 seconds.
	for waited := -time.Second; ; {
		if stopped(ctx) {
			return interrupted(ctx)
		}
		// Even if a signal came: a trigger that says fast must not stay behind.
		state = p.lookForTrigger(state)
		if ctx.Err() != nil {
			return p.interrupted(ctx)
		}
		if state == fastFailover {
			return 1
		}
		switch p.look() {
		case fileReady:
			return p.restoreSegment(ctx)
		case fileTooLarge:
			p.debugf("file size greater than expected\n")
			return 3
		}
		if state == smartFailover {
			return 1
		}
		_ = sleep(ctx, p.pause) // the end of ctx is seen on the next turn
		waited += p.pause
		if p.maxWait > 0 && waited >= p.maxWait {
			state = fastFailover
			p.debugf("Timed out after %d seconds: fast failover\n", waited/time.Second)
		}
		p.sayNotPresent()
	}
}

// restoreSegment also serves backup history files. They clean nothing up: only
// a segment's header sets the cutoff.
func (p *pgStandby) restoreSegment(ctx context.Context) int {
	if !p.restore(ctx) {
		if ctx.Err() != nil {
			return p.interrupted(ctx)
		}
		return 1
	}
	// Not before: after a failed copy PostgreSQL may ask for older files again.
	if p.cutoff != "" {
		p.cleanUp(ctx)
	}
	return 0
}

// presence is what the archive has of the file.
type presence int

const (
	fileAbsent presence = iota // or still growing, or out of reach
	fileReady
	fileTooLarge
)

// look tells whether the file can be restored. A segment can at its exact size
// only: a shorter one is still being copied into the archive.
func (p *pgStandby) look() presence {
	info, err := os.Stat(p.source())
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			p.complain("could not stat WAL file \"%s\": %s", p.source(), reason(err))
		}
		return fileAbsent
	}
	if isBackupHistory(p.next) {
		return fileReady
	}
	if p.size == 0 && isSegment(p.next) {
		p.learnSegmentSize()
	}
	switch size := info.Size(); {
	case p.size == 0 || size < int64(p.size):
		return fileAbsent
	case size > int64(p.size):
		return fileTooLarge
	}
	return fileReady
}

// stopped tells whether the process is to end without a word about recovery.
func stopped(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrFailoverSignal)
}

func (p *pgStandby) interrupted(ctx context.Context) int {
	if !stopped(ctx) {
		p.debugf("%v\n", ErrFailoverSignal)
	}
	return interrupted(ctx)
}

// complain says what keeps the file away, when it begins and when it changes:
// a wait may take days.
func (p *pgStandby) complain(format string, args ...any) {
	if text := p.errorf(format, args...).Error(); text != p.said {
		p.said = text
		p.std.warnf("%s\n", text)
	}
}
