package multicall

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"pitr/standby"
)

// applets is the table of all names.
func applets() []applet {
	return []applet{
		adminApplet(),
		{
			name: "archive_command", summary: "archive_command = 'archive_command %p'",
			column: colArchiveCommand, run: runArchiveCommand,
		},
		{
			name: "restore_command", summary: "restore_command = 'restore_command %f %p'",
			column: colRestoreCommand, run: runRestoreCommand,
		},
		{
			name: "pg_standby", summary: "drop-in for PostgreSQL's pg_standby (8.3 to 13)",
			column: colPgStandby, run: runPgStandby,
			failover: []os.Signal{syscall.SIGUSR1, syscall.SIGINT}, failoverCause: standby.ErrFailoverSignal,
		},
		{
			name: "pg_archivecleanup", summary: "drop-in for PostgreSQL's pg_archivecleanup",
			column: colPgArchivecleanup, run: runPgArchiveCleanup,
		},
		{
			name: "cmd_archiver", summary: "archive_command = 'cmd_archiver -C FILE -F %p', as pitrtools has it",
			column: colCmdArchiver, run: runCmdArchiver,
		},
		{
			name: "cmd_queue", summary: "pitrtools' cmd_queue: pitr agent run",
			column: colCmdArchiver, run: runCmdQueue,
		},
		{
			name: mountHelperName, summary: "mount -t pitr, and lines of fstab",
			column: colMount, run: runMountHelper,
		},
	}
}

func adminApplet() applet {
	return applet{name: "pitr", summary: "the admin tool", column: colPitr, run: runPitr}
}

func appletNames() []string {
	var names []string
	for _, a := range applets() {
		names = append(names, a.name)
	}
	return names
}

// meant is the applet that some word of a misunderstood command line looks
// like. A restore_command that PostgreSQL's configuration misspells must not
// exit with 2: that ends a recovery and opens the database. Nor must one that
// nothing is left of but where PostgreSQL wants the file.
func meant(words []string) (applet, bool) {
	if restoresFor(words) {
		return findApplet("restore_command")
	}
	for _, w := range words {
		for _, a := range applets() {
			if a.column != colPitr && (strings.HasPrefix(w, a.name) || distance(w, a.name) <= 3) {
				return a, true
			}
		}
	}
	return applet{}, false
}

// restoresFor tells whether a file is to go where PostgreSQL wants it
// (RestoreArchivedFile in xlogarchive.c).
func restoresFor(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		base := filepath.Base(w)
		return base == "RECOVERYXLOG" || base == "RECOVERYHISTORY"
	})
}

func runPgStandby(ctx context.Context, c *call) error {
	return statusTold(standby.PgStandby(ctx, c.args, c.standardIO()))
}

func runPgArchiveCleanup(ctx context.Context, c *call) error {
	return statusTold(standby.PgArchiveCleanup(ctx, c.args, c.standardIO()))
}

func (c *call) standardIO() standby.StandardIO {
	return standby.StandardIO{Called: c.called, Version: Version(), Stdout: c.stdout, Stderr: c.stderr}
}
