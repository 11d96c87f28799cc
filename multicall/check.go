package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
)

// checkCmd is `pitr check`.
type checkCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints what was looked at and ends with 0, 1 or 2.
func (cmd *checkCmd) Run(ctx context.Context, c *call, flags *settingFlags) error {
	cfg, err := c.loadConfig(flags)
	if err == nil && cfg.ships() {
		// What cmd_archiver looks at without -F.
		err = cfg.needSlaves()
		if c.uid == 0 {
			err = errRoot()
		}
	}
	if err != nil {
		if cmd.JSON {
			err = errors.Join(err, c.printJSON(unusable(err)))
		}
		return withStatus(err, int(critical))
	}
	done := check(ctx, cfg, c)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if cmd.JSON {
		if err := c.printJSON(checkedUp{done.worst(), done.findings}); err != nil {
			return err
		}
	} else {
		done.print(c.stdout)
	}
	return done.verdict()
}

// checkedUp is what --json prints.
type checkedUp struct {
	Result   severity  `json:"result"`
	Findings []finding `json:"findings"`
}

// unusable is the result of a configuration that nothing can be checked with.
func unusable(err error) checkedUp {
	all := checkedUp{Result: critical, Findings: []finding{}}
	for _, e := range problemsIn(err) {
		all.Findings = append(all.Findings, finding{critical, "configuration", e.Error(), strings.Join(hintsOf(e), "; ")})
	}
	return all
}

// severity is what a monitoring system makes of a finding.
type severity int

const (
	fine severity = iota
	warning
	critical
)

func (s severity) String() string { return [...]string{"ok", "warning", "critical"}[s] }

// MarshalText is for --json.
func (s severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// finding is one thing that check looked at.
type finding struct {
	Severity severity `json:"severity"`
	What     string   `json:"what"`
	Found    string   `json:"found"`
	Remedy   string   `json:"remedy,omitempty"`
}

// checkup collects findings.
type checkup struct {
	findings []finding
	// environ is the environment of this call.
	environ []string
	// slaveURL is where the archive of a slave lies.
	slaveURL func(Config, string) *url.URL
	// defaultFile is what the server's commands read if nothing names another.
	defaultFile string
	log         *slog.Logger
}

func (c *call) newCheckup() *checkup {
	return &checkup{environ: c.environ, slaveURL: c.slaveURL, defaultFile: c.defaultFile, log: c.log}
}

func (c *checkup) ok(what, format string, args ...any) {
	c.findings = append(c.findings, finding{fine, what, fmt.Sprintf(format, args...), ""})
}

func (c *checkup) add(s severity, what, remedy, format string, args ...any) {
	c.findings = append(c.findings, finding{s, what, fmt.Sprintf(format, args...), remedy})
}

// worst is the exit status of check: 0, 1 or 2, as monitoring expects.
func (c *checkup) worst() severity {
	worst := fine
	for _, f := range c.findings {
		worst = max(worst, f.Severity)
	}
	return worst
}

// verdict is an error with the exit status, unless all is well.
func (c *checkup) verdict() error {
	if worst := c.worst(); worst != fine {
		return withStatus(fmt.Errorf("result: %s", worst), int(worst))
	}
	return nil
}

func (c *checkup) print(w io.Writer) {
	for _, f := range c.findings {
		fmt.Fprintf(w, "%-8s  %s: %s\n", f.Severity, f.What, visible(f.Found))
		if f.Remedy != "" {
			fmt.Fprintf(w, "          HINT: %s\n", visible(f.Remedy))
		}
	}
}

// check looks at everything that archiving depends on: the configuration, the
// server with the commands that it is told to run, and the archives that these
// commands use. What the server takes for archived is looked up there.
func check(ctx context.Context, cfg Config, from *call) *checkup {
	c := from.newCheckup()
	if cfg.ships() {
		c.shipping(ctx, cfg)
		return c
	}
	if err := cfg.NeedArchive(); err != nil {
		c.add(critical, "configuration", strings.Join(hintsOf(err), "; "), "%v", err)
		return c
	}
	for _, w := range cfg.Warnings {
		c.add(warning, "configuration", "", "%s", w)
	}
	if cfg.State == "offline" {
		c.add(warning, "state", "set state: online", "archiving is switched off: archive_command refuses every file")
	}
	cluster := c.cluster(cfg)
	var server serverSide
	if cfg.PGData != "" {
		server = c.server(ctx, cfg)
	}
	var looked []lookedAt
	all := targets(cfg, server)
	c.queuesOf(ctx, all, cluster, server.acknowledged)
	for _, t := range all {
		looked = append(looked, c.archive(ctx, t, cluster, server.acknowledged)...)
	}
	c.apart(cfg, looked)
	if server.ships != nil {
		c.slaves(ctx, *server.ships, cluster, server.acknowledged)
	}
	return c
}

// firstHint is an error's own advice, or else the one given.
func firstHint(err error, otherwise string) string {
	if hints := hintsOf(err); len(hints) > 0 {
		return hints[0]
	}
	if errors.Is(err, os.ErrPermission) {
		return "run this as the user of PostgreSQL"
	}
	return otherwise
}
