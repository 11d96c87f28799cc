package standby

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"
)

const pgStandbyHelp = `%[1]s waits for WAL files of a warm standby and restores them.

Usage:
  %[1]s [OPTION]... ARCHIVELOCATION NEXTWALFILE XLOGFILEPATH [RESTARTWALFILE]

Options:
  -c                 copy the file from the archive (always done)
  -d                 say what is done, on stderr
  -k NUMFILESTOKEEP  without RESTARTWALFILE, remove older files than this many
                     (0 keeps all) (default=0)
  -l                 does nothing
  -r MAXRETRIES      times to try again when copying fails, waiting longer each
                     time (default=3)
  -s SLEEPTIME       seconds between two looks for the file (min=1, max=60,
                     default=5)
  -t TRIGGERFILE     a file that ends recovery when it appears (no default)
  -V, --version      print the version, then exit
  -w MAXWAITTIME     seconds to wait for a file (0=no limit) (default=0)
  -?, --help         show this help, then exit

As restore_command:
  restore_command = 'pg_standby /mnt/server/archiverdir %%f %%p %%r'

This is pitr's stand-in for PostgreSQL's program of this name.
`

// parse reads the command line and looks at the archive, in the original's
// order: of several mistakes the same one is reported. The errors are what
// stderr gets, whole.
func (p *pgStandby) parse(args []string) error {
	options := getopt{called: p.std.Called, short: "cdk:lr:s:t:w:"}
	var wrongValue error
	operands, err := options.parse(args, func(letter byte, value string) error {
		wrongValue = p.set(letter, value)
		return wrongValue
	})
	switch {
	case wrongValue != nil:
		return wrongValue
	case err != nil:
		return p.hint(err)
	case len(args) == 0:
		return p.errorf("not enough command-line arguments")
	case len(operands) == 0:
		return p.hint(p.errorf("must specify archive location"))
	case len(operands) == 1:
		return p.hint(p.errorf(`must specify WAL file name as second non-option argument (use "%%f")`))
	case len(operands) == 2:
		return p.hint(p.errorf(`must specify xlog destination as third non-option argument (use "%%p")`))
	case len(operands) > 3:
		p.restart, p.hasRestart = operands[3], true
	}
	p.archive, p.next, p.target = operands[0], operands[1], operands[2]
	return p.checkLocation()
}

func (p *pgStandby) set(letter byte, value string) error {
	seconds := time.Duration(atoi(value)) * time.Second
	switch letter {
	case 'd':
		p.debug = true
	case 'k':
		if p.keep = atoi(value); p.keep < 0 {
			return p.errorf("-k keepfiles must be >= 0")
		}
	case 'r':
		if p.retries = atoi(value); p.retries < 0 {
			return p.errorf("-r maxretries must be >= 0")
		}
	case 's':
		if p.pause = seconds; p.pause <= 0 || p.pause > time.Minute {
			return p.errorf("-s sleeptime incorrectly set")
		}
	case 't':
		p.trigger = value
	case 'w':
		if p.maxWait = seconds; p.maxWait < 0 {
			return p.errorf("-w maxwaittime incorrectly set")
		}
	}
	return nil
}

// treeError is a mistake that the original could not make. Its status must not
// be one that PostgreSQL takes for the end of WAL, as it takes 2.
type treeError struct{ error }

// ExitStatus makes PostgreSQL stop.
func (treeError) ExitStatus() int { return 255 }

// usageStatus is the original's 2, unless the error knows better.
func usageStatus(err error) int {
	var own interface{ ExitStatus() int }
	if errors.As(err, &own) {
		return own.ExitStatus()
	}
	return 2
}

func (p *pgStandby) checkLocation() error {
	if _, err := os.Stat(p.archive); err != nil {
		return p.errorf("archive location \"%s\" does not exist", p.archive)
	}
	if layoutIsTree(p.archive) {
		err := p.errorf("archive location \"%s\" is a pitr archive of layout tree: its files have other names than this program knows", p.archive)
		return treeError{fmt.Errorf("%w\nHINT: set restore_command = 'restore_command %%f %%p' instead", err)}
	}
	return nil
}

// describe says, for -d, what is about to be done. The command is what the
// original would run; nothing is run here.
func (p *pgStandby) describe() {
	trigger, plural, limit := p.trigger, "s", "forever"
	if trigger == "" {
		trigger = "<not set>"
	}
	if p.pause == time.Second {
		plural = " "
	}
	if p.maxWait > 0 {
		limit = "seconds"
	}
	p.debugf("Trigger file:         %s\n", trigger)
	p.debugf("Waiting for WAL file: %s\n", p.next)
	p.debugf("WAL file path:        %s\n", p.source())
	p.debugf("Restoring to:         %s\n", p.target)
	p.debugf("Sleep interval:       %d second%s\n", p.pause/time.Second, plural)
	p.debugf("Max wait interval:    %d %s\n", p.maxWait/time.Second, limit)
	p.debugf("Command for restore:  cp \"%s\" \"%s\"\n", p.source(), p.target)
}

func (p *pgStandby) sayNotPresent() {
	trigger := ""
	if p.trigger != "" {
		trigger = " Checking for trigger file..."
	}
	p.debugf("WAL file not present yet.%s\n", trigger)
}

func (p *pgStandby) debugf(format string, args ...any) {
	if p.debug {
		p.std.warnf(format, args...)
	}
}

func (p *pgStandby) errorf(format string, args ...any) error {
	return errors.New(p.std.program() + ": " + fmt.Sprintf(format, args...))
}

func (p *pgStandby) hint(err error) error {
	return fmt.Errorf("%w\n%s", err, p.std.tryHelp())
}

// atoi is C's: the number that s begins with, 0 if there is none. Where C
// leaves it open, it gives the nearest int32.
func atoi(s string) int {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	sign, n := int64(1), int64(0)
	if s != "" && strings.ContainsAny(s[:1], "+-") {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	for i := 0; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		n = min(10*n+int64(s[i]-'0'), math.MaxInt32)
	}
	return int(sign * n)
}
