// Command bench times whole calls of pitr beside what an operator would use
// instead, in one interleaved run, and prints medians and ratios as Markdown.
//
// Every round runs each contender once, in changing order, on a segment of real
// pgbench WAL that the round has to itself. What was stored and restored is
// compared afterwards. Over SSH each contender has a far side of its own: a real
// sshd on loopback, with OpenSSH's defaults, where need be behind a proxy that
// makes it distant. make bench runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// choice is what shall be measured.
type choice struct {
	rounds        int
	tasks, rivals *regexp.Regexp
	measurer      measurer
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == measureArg {
		os.Exit(measure(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == driveArg {
		os.Exit(measured(os.Args[2], new(drive)))
	}
	if len(os.Args) > 2 && os.Args[1] == recoverArg {
		os.Exit(measured(os.Args[2], new(recovery)))
	}
	if len(os.Args) > 2 && os.Args[1] == adoptArg {
		os.Exit(adopt(os.Args[2:]))
	}
	rounds := flag.Int("rounds", 15, "rounds")
	pitr := flag.String("pitr", "bin/pitr", "binary")
	server := flag.String("server", "/usr/lib/postgresql/15/bin", "PostgreSQL, to make WAL with")
	tasks := flag.String("tasks", "", "only tasks with such a name (a regular expression)")
	rivals := flag.String("rivals", "", "only contenders with such a name (a regular expression); the first that is left is the yardstick")
	flag.Parse()
	if err := run(*rounds, *tasks, *rivals, *pitr, *server); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int, tasks, rivals, pitr, server string) error {
	var err error
	c := choice{rounds: rounds}
	if c.tasks, err = regexp.Compile(tasks); err != nil {
		return err
	}
	if c.rivals, err = regexp.Compile(rivals); err != nil {
		return err
	}
	if pitr, err = filepath.Abs(pitr); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "pitr-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, pitr: pitr, server: server}
	if err := b.prepare(b.segmentsFor(c)); err != nil {
		return err
	}
	if c.measurer, err = newMeasurer(b.measurerPath()); err != nil {
		return err
	}
	for _, t := range slices.Concat(b.localTasks(), b.sshTasks(), b.agentTasks(), b.recoveryTasks()) {
		if !c.tasks.MatchString(t.name) {
			continue
		}
		if err := t.run(c); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}
