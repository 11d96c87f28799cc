package standby

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
)

// StandardIO is what PgStandby and PgArchiveCleanup see of their process.
type StandardIO struct {
	// Called is argv[0]. Messages begin with its last element, those about
	// unknown options with all of it, as glibc has them.
	Called         string
	Version        string // of pitr, for --version
	Stdout, Stderr io.Writer
}

// program is what messages begin with (path.c, get_progname).
func (s StandardIO) program() string { return path.Base(s.Called) }

// warnf writes to stderr. An error of stderr has nowhere to go.
func (s StandardIO) warnf(format string, args ...any) { fmt.Fprintf(s.Stderr, format, args...) }

func (s StandardIO) tryHelp() string {
	return fmt.Sprintf("Try \"%s --help\" for more information.", s.program())
}

// inform answers --help and --version, which count as first argument only. It
// returns false if the call is for work. help is a format that takes program.
func (s StandardIO) inform(args []string, tool, help string) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0] {
	case "--help", "-?":
		fmt.Fprintf(s.Stdout, help, s.program())
	case "--version", "-V":
		fmt.Fprintf(s.Stdout, "%s (pitr %s)\n", tool, s.Version)
	default:
		return false
	}
	return true
}

// layoutIsTree tells whether location is an archive whose files do not have
// PostgreSQL's names. It is certain or says no: a directory without a readable
// archive.json is what these tools were made for.
func layoutIsTree(location string) bool {
	const generous = 1 << 20
	f, err := os.Open(location + "/archive.json")
	if err != nil {
		return false
	}
	defer f.Close()
	var identity struct {
		Layout string `json:"layout"`
	}
	err = json.NewDecoder(io.LimitReader(f, generous)).Decode(&identity)
	return err == nil && identity.Layout == "tree"
}

// interrupted is the exit status of a call whose context has ended.
func interrupted(ctx context.Context) int {
	const asBySIGTERM = 143
	cause := context.Cause(ctx)
	var chosen interface{ ExitStatus() int }
	switch {
	case errors.Is(cause, ErrFailoverSignal):
		return 1
	case errors.As(cause, &chosen):
		return chosen.ExitStatus()
	}
	return asBySIGTERM
}

// reason is an error as strerror would have it: without operation and path,
// which the messages of PostgreSQL's tools name themselves.
func reason(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}
