package multicall

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
)

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Report every problem of the configuration."`
	Show  configShowCmd  `cmd:"" help:"Print what is in force, and where it came from."`
}

type configCheckCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// checked is the result of `pitr config check`.
type checked struct {
	File     string    `json:"file"`
	Problems []problem `json:"problems"`
	Warnings []string  `json:"warnings"`
}

type problem struct {
	Problem string   `json:"problem"`
	Hints   []string `json:"hints,omitempty"`
}

// Run reports everything that is wrong, and fails if something is.
func (cmd configCheckCmd) Run(c *call, flags *settingFlags) error {
	cfg, err := c.loadConfig(flags)
	errs := configProblems(cfg, err)
	result := checked{cfg.File, []problem{}, append([]string{}, cfg.Warnings...)}
	for _, e := range errs {
		result.Problems = append(result.Problems, problem{e.Error(), hintsOf(e)})
	}
	if cmd.JSON {
		err = c.printJSON(result)
	} else {
		err = result.print(c)
	}
	if err == nil && len(errs) > 0 {
		// The problems are told already.
		return classed{fmt.Errorf("problems in the configuration: %d", len(errs)), ErrConfig}
	}
	return err
}

// configProblems are those of loading, and that there is neither an archive nor
// all that slaves need.
func configProblems(cfg Config, err error) []error {
	var problems []error
	var bad *ConfigError
	if errors.As(err, &bad) {
		problems = bad.Problems
	}
	var missing *ConfigError
	switch {
	case cfg.origins["archive"].text != "" || passing(err):
	case cfg.origins["slaves"].text == "":
		problems = append(problems, noArchive())
	case errors.As(cfg.needSlaves(), &missing):
		problems = append(problems, missing.Problems...)
	}
	return problems
}

func (r checked) print(c *call) error {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "problem: %s\n", p.Problem)
		for _, h := range p.Hints {
			fmt.Fprintf(&b, "HINT: %s\n", h)
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintf(&b, "configuration is good: %s\n", fileOrNone(r.File))
	}
	_, err := fmt.Fprint(c.stdout, b.String())
	return err
}

func fileOrNone(path string) string {
	if path == "" {
		return "no file, only flags, environment and defaults"
	}
	return path
}

type configShowCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// shown is a line of `pitr config show`.
type shown struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  string `json:"from"`
}

// Run prints every key. What cannot be used is printed too, and then an error.
func (cmd configShowCmd) Run(c *call, flags *settingFlags) error {
	cfg, bad := c.loadConfig(flags)
	if cmd.JSON {
		return errors.Join(c.printJSON(map[string]any{"file": cfg.File, "settings": cfg.shown()}), bad)
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, s := range cfg.shown() {
		fmt.Fprintf(w, "%s\t= %s\t# %s\n", s.Key, s.Value, s.From)
	}
	return errors.Join(w.Flush(), bad)
}

// shown is the configuration without its secrets. Of pitrtools' keys it has
// those that somebody has set.
func (c Config) shown() []shown {
	var lines []shown
	own := len(ownSettings()) + len(sshSettings()) + len(agentSettings())
	for i, s := range settings() {
		v := c.origins[s.key]
		if i >= own && v.from == fromDefault {
			continue
		}
		text := redacted(strings.ReplaceAll(v.text, "\n", " "))
		lines = append(lines, shown{s.key, text, v.from})
	}
	return lines
}
