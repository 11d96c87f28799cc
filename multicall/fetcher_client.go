package multicall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
	"pitr/standby"
)

func isNoAgent(err error) bool { return errors.Is(err, errNoAgent) }

// askFetcher has the fetcher at a place fetch a file, and puts it to dest. errNoAgent
// if there is none, or no answer: nothing is known of the file then. Other errors are
// those of archive.Set.Fetch.
func (c *call) askFetcher(ctx context.Context, id agentIdentity, place agentPlace, req agentRequest, dest string) (from string, err error) {
	a, f, err := c.converse(ctx, id, place, req)
	if err != nil {
		if errors.Is(err, errWentAway) {
			c.log.Warn("the fetcher does not answer; the file is fetched without it", "reason", err)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				place.abandon()
			}
		}
		return "", err
	}
	if f == nil {
		if err := hearVerdicts(a.Errors); err != nil {
			return "", err
		}
		return "", fmt.Errorf("%w: it gave no file", errNoAgent)
	}
	defer f.Close()
	if err := errors.Join(hearVerdicts(a.Errors)); err != nil {
		return "", err
	}
	// A call that was told to end must not put anything in PostgreSQL's way.
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return a.From, local.Adopt(f, dest)
}

// plainRestore recognises the command line that PostgreSQL nearly always has.
func (c *call) plainRestore() (configFile, name, dest string, ok bool) {
	args := c.args
	if len(args) == 4 && args[0] == "-C" {
		configFile, args = args[1], args[2:]
	}
	if len(args) != 2 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[1], "-") || args[1] == "" || strings.HasPrefix(configFile, "-") {
		return "", "", "", false
	}
	if len(c.args) > 2 && configFile == "" {
		return "", "", "", false
	}
	if configFile == "" {
		configFile = c.defaultConfig()
	}
	return configFile, args[0], args[1], true
}

// restorePlainly asks the fetcher for what a plain command line asks for. errNoAgent
// if there is more to think about, also if the answer is a doubt.
func (c *call) restorePlainly(ctx context.Context) error {
	configFile, word, dest, ok := c.plainRestore()
	if !ok || !isDataDirectory(".") {
		return errNoAgent
	}
	name, err := wal.ParseName(word)
	if err != nil {
		return errNoAgent
	}
	r := c.restorer(".")
	if err := r.WithoutArchive(name); err != nil {
		return err
	}
	id, err := c.agentIdentity(configFile, "", nil)
	if err != nil {
		return errNoAgent
	}
	id.restores = true
	c.asked = id.place(getenv(c.environ, "PITR_AGENT_DIR"))
	_, err = c.askFetcher(ctx, id, c.asked, agentRequest{Op: opRestore, Name: word, Mode: r.Mode.String()}, dest)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, archive.ErrAbsent):
		return err
	}
	c.answered = err // the long way begins with it
	return errNoAgent
}

// fetcherFor is the way of a restore_command whose configuration is known: through
// the fetcher of its data directory, if there may be one.
func (c *call) fetcherFor(cfg Config, cli *restoreCommandCLI, pgdata string, mode standby.Mode, set archive.Set) standby.Fetcher {
	if cfg.Agent == "off" || cfg.Prefetch == 0 || pgdata == "" {
		return set
	}
	id, err := c.agentIdentity(cfg.File, pgdata, settingWords(&cli.settingFlags))
	dest, destErr := filepath.Abs(cli.Dest)
	if err = errors.Join(err, destErr); err != nil {
		c.log.Debug("no fetcher", "reason", err)
		return set
	}
	id.restores = true
	t := &throughFetcher{call: c, id: id, place: id.place(cfg.AgentDir), mode: mode, dest: dest, archives: set}
	if t.place == c.asked {
		t.answered = c.answered
	}
	t.start = func(name wal.Name) {
		// A server that is being promoted has no use for it any more.
		if cfg.Agent != "auto" || mode == standby.Promotion {
			return
		}
		if err := c.startAgent(cfg, id, t.place, "--after", name.String()); err != nil {
			c.log.Debug("no fetcher was started", "reason", err)
		}
	}
	return t
}

// throughFetcher fetches by the fetcher, and where there is none from the archives.
type throughFetcher struct {
	*call
	id    agentIdentity
	place agentPlace
	mode  standby.Mode
	dest  string
	// start has a fetcher started for the calls to come.
	start    func(wal.Name)
	archives archive.Set
	// answered is what the fetcher has said already in this call, or nil; without that
	// there was none, or no answer.
	answered error
	without  bool // it is not asked any more in this call
}

var _ standby.Fetcher = (*throughFetcher)(nil)

// Fetch puts a file to its place.
func (t *throughFetcher) Fetch(ctx context.Context, name wal.Name, patience time.Duration, deliver archive.Deliver) (string, error) {
	if !t.without {
		from, err := t.ask(ctx, name, patience)
		if !isNoAgent(err) {
			return from, err
		}
		t.without = true
		t.start(name)
	}
	return t.archives.Fetch(ctx, name, patience, deliver)
}

func (t *throughFetcher) ask(ctx context.Context, name wal.Name, patience time.Duration) (string, error) {
	if err := t.answered; err != nil {
		t.answered = nil
		return "", err
	}
	return t.askFetcher(ctx, t.id, t.place, agentRequest{
		Op: opRestore, Name: name.String(), Mode: t.mode.String(), Patience: max(1, patience.Milliseconds()),
	}, t.dest)
}
