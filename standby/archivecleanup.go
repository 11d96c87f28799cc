package standby

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"pitr/archive/wal"
)

// PgArchiveCleanup is one call of pg_archivecleanup, without the program's name
// in args, and returns its exit status: 0 done, 1 a file could not be removed
// or the directory not read, 2 usage. It follows pg_archivecleanup.c of
// PostgreSQL 17; what 15 accepts, it answers as 15 does.
//
// Beyond the original it refuses, with 2, an archive of layout tree, where no
// name would ever match. When ctx ends it stops before the next file and
// returns the status that the cause has in a method ExitStatus() int, else 143.
func PgArchiveCleanup(ctx context.Context, args []string, std StandardIO) int {
	if std.inform(args, "pg_archivecleanup", archiveCleanupHelp) {
		return 0
	}
	c := archiveCleanup{std: std}
	if err := c.parse(args); err != nil {
		std.warnf("%v\n", err)
		return 2
	}
	c.debugf("keeping WAL file \"%s/%s\" and later", c.location, c.cutoff)
	err := c.run(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return interrupted(ctx)
	}
	std.warnf("%v\n", err)
	return 1
}

// archiveCleanup is a command line of pg_archivecleanup.
type archiveCleanup struct {
	std              StandardIO
	debug, dryRun    bool
	backupHistoryToo bool
	extension        string
	location, oldest string
	cutoff           string // the segment of oldest
}

const archiveCleanupHelp = `%[1]s removes WAL files that are no longer needed from an archive.

Usage:
  %[1]s [OPTION]... ARCHIVELOCATION OLDESTKEPTWALFILE

Options:
  -b, --clean-backup-history  remove backup history files, too
  -d, --debug                 say what is done, on stderr
  -n, --dry-run               print the names of the files that would be removed,
                              and remove none
  -V, --version               print the version, then exit
  -x, --strip-extension=EXT   take this extension off the names of files before
                              looking at them
  -?, --help                  show this help, then exit

In postgresql.conf:
  archive_cleanup_command = 'pg_archivecleanup /mnt/server/archiverdir %%r'

By hand:
  pg_archivecleanup /mnt/server/archiverdir 000000010000000000000010.00000020.backup

This is pitr's stand-in for PostgreSQL's program of this name.
`

// parse reads the command line and looks at the archive, in the original's
// order: of several mistakes the same one is reported. The errors are what
// stderr gets, whole.
func (c *archiveCleanup) parse(args []string) error {
	options := getopt{c.std.Called, "bdnx:", []longOption{
		{"clean-backup-history", 'b'}, {"debug", 'd'}, {"dry-run", 'n'}, {"strip-extension", 'x'},
	}}
	operands, err := options.parse(args, c.set)
	switch {
	case err != nil:
		return c.hint(err)
	case len(operands) == 0:
		return c.hint(c.error("must specify archive location"))
	case len(operands) == 1:
		return c.hint(c.error("must specify oldest kept WAL file"))
	case len(operands) > 2:
		return c.hint(c.error("too many command-line arguments"))
	}
	c.location, c.oldest = operands[0], operands[1]
	if err := c.checkLocation(); err != nil {
		return err
	}
	if !c.setCutoff() {
		return c.hint(c.error("invalid file name argument"))
	}
	return nil
}

func (c *archiveCleanup) set(letter byte, value string) error {
	switch letter {
	case 'b':
		c.backupHistoryToo = true
	case 'd':
		c.debug = true
	case 'n':
		c.dryRun = true
	case 'x':
		c.extension = value
	}
	return nil
}

func (c *archiveCleanup) checkLocation() error {
	if info, err := os.Stat(c.location); err != nil || !info.IsDir() {
		return c.error("archive location \"%s\" does not exist", c.location)
	}
	if layoutIsTree(c.location) {
		err := c.error("archive location \"%s\" is a pitr archive of layout tree: its files have other names than this program knows", c.location)
		return fmt.Errorf("%w\nHINT: \"pitr wal prune\" removes what is no longer needed from it", err)
	}
	return nil
}

// setCutoff finds the segment that is the first to stay.
func (c *archiveCleanup) setCutoff() bool {
	name := c.strip(c.oldest)
	if !isSegment(name) && !isPartial(name) && !(isBackupHistory(name) && hasOffset(name)) {
		return false
	}
	c.cutoff = name[:segmentNameLen]
	return true
}

// run removes what sorts before the cutoff, or prints its names. Entries come
// in the directory's own order, as in the original.
func (c *archiveCleanup) run(ctx context.Context) error {
	dir, err := os.Open(c.location)
	if err != nil {
		return c.error("could not open archive location \"%s\": %s", c.location, reason(err))
	}
	names, readErr := dir.Readdirnames(-1)
	if err := dir.Close(); err != nil {
		readErr = errors.Join(readErr, err)
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !c.wants(c.strip(name)) {
			continue
		}
		if err := c.remove(c.location + "/" + name); err != nil {
			return err
		}
	}
	if readErr != nil {
		return c.error("could not read archive location \"%s\": %s", c.location, reason(readErr))
	}
	return nil
}

// wants tells whether a name is of the kinds to remove and before the cutoff.
func (c *archiveCleanup) wants(name string) bool {
	if !isSegment(name) && !isPartial(name) && !(c.backupHistoryToo && isBackupHistory(name)) {
		return false
	}
	return afterTimeline(name) < afterTimeline(c.cutoff)
}

func (c *archiveCleanup) remove(file string) error {
	if c.dryRun {
		if _, err := fmt.Fprintln(c.std.Stdout, file); err != nil {
			return c.error("could not write to stdout: %s", reason(err))
		}
		c.debugf("file \"%s\" would be removed", file)
		return nil
	}
	c.debugf("removing file \"%s\"", file)
	if err := unlink(file); err != nil {
		return c.error("could not remove file \"%s\": %s", file, reason(err))
	}
	return nil
}

// strip takes the extension off, unless nothing would be left.
func (c *archiveCleanup) strip(name string) string {
	if len(name) > len(c.extension) {
		return strings.TrimSuffix(name, c.extension)
	}
	return name
}

func (c *archiveCleanup) debugf(format string, args ...any) {
	if c.debug {
		c.std.warnf("%s: %s\n", c.std.program(), fmt.Sprintf(format, args...))
	}
}

func (c *archiveCleanup) error(format string, args ...any) error {
	return fmt.Errorf("%s: error: "+format, append([]any{c.std.program()}, args...)...)
}

func (c *archiveCleanup) hint(err error) error {
	return fmt.Errorf("%w\n%s: hint: %s", err, c.std.program(), c.std.tryHelp())
}

const segmentNameLen, timelineLen = 24, 8

// afterTimeline is what decides which WAL is older. Without the timeline a
// parent's segments, which its children need, are not removed too early.
func afterTimeline(name string) string {
	return name[min(timelineLen, len(name)):]
}

func isKind(name string, kind wal.Kind) bool {
	n, err := wal.ParseName(name)
	return err == nil && n.Kind() == kind
}

func isSegment(name string) bool { return isKind(name, wal.KindSegment) }
func isPartial(name string) bool { return isKind(name, wal.KindPartial) }

// isBackupHistory is looser than wal.ParseName, as IsBackupHistoryFileName of
// xlog_internal.h is: anything may stand between segment and suffix.
func isBackupHistory(name string) bool {
	return len(name) > segmentNameLen && isSegment(name[:segmentNameLen]) &&
		!strings.ContainsAny(name[segmentNameLen:segmentNameLen+1], "0123456789ABCDEF") &&
		strings.HasSuffix(name, ".backup")
}

// hasOffset tells whether sscanf finds ".%08X" behind the segment: white space
// and a sign may precede the digits. In "SEGMENT.backup" it reads BAC.
func hasOffset(name string) bool {
	number, found := strings.CutPrefix(name[segmentNameLen:], ".")
	number = strings.TrimLeft(number, " \t\n\v\f\r")
	if number != "" && strings.ContainsAny(number[:1], "+-") {
		number = number[1:]
	}
	return found && number != "" && strings.ContainsAny(number[:1], "0123456789abcdefABCDEF")
}

// unlink never removes a directory; os.Remove would remove an empty one.
func unlink(file string) error {
	for {
		if err := syscall.Unlink(file); err != syscall.EINTR {
			return err
		}
	}
}
