package multicall

import (
	"errors"
	"strings"
	"testing"
)

func TestSettingIsGivenOnce(t *testing.T) {
	for args, want := range map[string]string{
		"--archive=file:///a --state=online":       "",
		"--archive=file:///a --archive=file:///b":  "--archive is given twice",
		"--archive file:///a --archive file:///b":  "--archive is given twice",
		"--archive file:///a --archive=file:///b":  "--archive is given twice",
		"--debug wal list --debug=off":             "--debug is given twice",
		"-C a.ini -C b.ini":                        "--config is given twice",
		"-Ca.ini -C b.ini":                         "--config is given twice",
		"-C a.ini --config b.ini":                  "--config is given twice",
		"--config=a.ini --config=a.ini":            "--config is given twice",
		"wal prune --dry-run --dry-run":            "",
		"--state=online -- --state=offline":        "",
		"--state=online --state=offline -- a":      "--state is given twice",
		"--push-timeout=1 --restore-retry=1 a a":   "",
		"--push-timeout=1 a b c --push-timeout=10": "--push-timeout is given twice",
	} {
		if err := once(strings.Fields(args)); !fits(err, want) || err != nil && !errors.Is(err, ErrUsage) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

// PostgreSQL would take the success of a call for help for that of its work.
func TestHelpStandsAlone(t *testing.T) {
	for line, alone := range map[string]bool{
		"archive_command --help":                true,
		"archive_command --help pg_wal/A":       false,
		"archive_command pg_wal/A --help":       false,
		"archive_command wal --help":            false, // a file of that name
		"restore_command --version":             true,
		"restore_command F P --version":         false,
		"pitr --help":                           true,
		"pitr wal --help":                       true,
		"pitr wal push --help":                  true,
		"pitr wal push A --help":                false,
		"pitr wal --help push":                  false,
		"pitr --debug --version":                false,
		"pitr wal push --archive=file:///a -h":  false,
		"restore_command --help --version":      false,
		"restore_command restore_command -h":    false,
		"archive_command archive_command -h":    false,
		"pitr version --help":                   true,
		"pitr config check config --help":       false,
		"pitr config show --help":               true,
		"archive_command config --help":         false,
		"archive_command version --version":     false,
		"restore_command config show --version": false,
	} {
		words := strings.Fields(line)
		err := (&call{name: words[0], args: words[1:]}).helpAlone()
		if errors.Is(err, errDone) != alone || !alone && !errors.Is(err, ErrUsage) {
			t.Errorf("%s: got %v, want alone: %v", line, err, alone)
		}
	}
}

func TestFileForPostgreSQLIsRecognised(t *testing.T) {
	for line, want := range map[string]bool{
		"wal get F pg_wal/RECOVERYXLOG":    true,
		"wal get F pg_wal/RECOVERYHISTORY": true,
		"RECOVERYXLOG":                     true,
		"wal get F /a/RECOVERYXLOG/b":      false,
		"wal get F pg_wal/RECOVERYXLOG.1":  false,
		"wal get F pg_wal/recoveryxlog":    false,
		"":                                 false,
	} {
		if got := restoresFor(strings.Fields(line)); got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}
