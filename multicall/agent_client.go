package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pitr/archive"
)

// heartbeat is how often an agent says that it is at work.
const heartbeat = time.Second

// silence is after how long without a word it counts as gone.
const silence = 5 * time.Second

// errNoAgent says that no agent took the file: nothing is known of it.
var errNoAgent = errors.New("no agent took it")

// errWentAway says that an agent was there, and did not come to an answer.
var errWentAway = fmt.Errorf("%w to its end", errNoAgent)

// askAgent has the agent at a place push a file. errNoAgent if there is none, if it
// declines, or goes away in the middle. Everything else is its answer.
func (c *call) askAgent(ctx context.Context, id agentIdentity, place agentPlace, path string) error {
	req := agentRequest{Op: opPush, Path: path}
	if end, bounded := ctx.Deadline(); bounded {
		req.Patience = max(1, time.Until(end).Milliseconds())
	}
	a, f, err := c.converse(ctx, id, place, req)
	if f != nil {
		_ = f.Close() // a push has none
	}
	switch {
	case errors.Is(err, errWentAway):
		c.log.Warn("the agent does not answer; the file is shipped without it", "reason", err)
		return err
	case errors.Is(err, errNoAgent):
		return err
	case err != nil:
		return fmt.Errorf("push %s: the agent is still at it: %w", filepath.Base(path), err)
	}
	return hearErrors(a.Errors)
}

// converse has the agent or fetcher at a place do something, and waits for its
// answer, with which a file may come that the caller closes. errNoAgent if there is
// none, or if it declines; errWentAway if it breaks off. When ctx ends, its cause.
func (c *call) converse(ctx context.Context, id agentIdentity, place agentPlace, req agentRequest) (agentAnswer, *os.File, error) {
	none := func(is, err error) (agentAnswer, *os.File, error) {
		if ctx.Err() != nil {
			return agentAnswer{}, nil, context.Cause(ctx)
		}
		return agentAnswer{}, nil, fmt.Errorf("%w: %w", is, err)
	}
	digest, err := id.digest()
	if err != nil {
		return none(errNoAgent, err)
	}
	unixConn, err := place.dial(ctx)
	if err != nil {
		return none(errNoAgent, err)
	}
	conn := &fileConn{UnixConn: unixConn}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	req.Version, req.Build, req.Config = agentVersion, buildID(), digest
	if err := send(conn, req, silence); err != nil {
		return none(errNoAgent, err)
	}
	for from := hear(conn); ; {
		var a agentAnswer
		err := receive(conn, from, silence, &a)
		switch {
		case ctx.Err() != nil, err != nil:
			return none(errWentAway, err)
		case a.Busy:
			continue
		}
		c.say(a.Log)
		if a.Declined != "" || !a.Done {
			return none(errNoAgent, errors.New(a.Declined))
		}
		return a, conn.take(), nil
	}
}

// say prints lines of an agent's log into ours.
func (c *call) say(lines []string) {
	for _, line := range lines {
		_, _ = io.WriteString(c.stderr, visible(strings.TrimRight(line, "\n"))+"\n")
	}
}

// plainPush recognises the command line that PostgreSQL nearly always has, so that
// neither it nor the configuration need be understood to ask an agent.
func (c *call) plainPush() (configFile, path string, ok bool) {
	args := c.args
	if len(args) == 3 && args[0] == "-C" && c.name == "archive_command" {
		configFile, args = args[1], args[2:]
	}
	if len(args) == 4 && args[0] == "-C" && args[2] == "-F" && c.name == "cmd_archiver" {
		configFile, args = args[1], args[3:]
	}
	if len(args) != 1 || args[0] == "" || len(c.args) > 1 && configFile == "" || strings.HasPrefix(args[0], "-") || strings.HasPrefix(configFile, "-") {
		return "", "", false
	}
	if configFile == "" {
		configFile = c.defaultConfig()
	}
	return configFile, args[0], true
}

// defaultConfig is the configuration file of a call without -C; empty: none.
func (c *call) defaultConfig() string {
	if path := getenv(c.environ, configVariable); path != "" {
		return path
	}
	if _, err := os.Stat(c.defaultFile); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return c.defaultFile
}

// pushPlainly asks the agent for what a plain command line asks for. errNoAgent if
// there is more to think about.
func (c *call) pushPlainly(ctx context.Context) error {
	configFile, path, ok := c.plainPush()
	if !ok || c.name == "cmd_archiver" && c.uid == 0 {
		return errNoAgent
	}
	id, err := c.agentIdentity(configFile, "", nil)
	if err != nil {
		return errNoAgent
	}
	ctx, cancel := untilStopping(ctx, id.pgdata, c.began)
	defer cancel()
	if !filepath.IsAbs(path) {
		path = filepath.Join(id.pgdata, path)
	}
	c.asked = id.place(getenv(c.environ, "PITR_AGENT_DIR"))
	err = c.askAgent(ctx, id, c.asked, path)
	if errors.Is(err, archive.ErrForeign) {
		return errNoAgent // there is a case that an agent knows nothing of: neverBegan
	}
	return err
}

// agentIdentity is that of the agent which serves this call: started where it
// was, or for a data directory.
func (c *call) agentIdentity(configFile, pgdata string, flags []string) (agentIdentity, error) {
	here, err := unix.Getwd()
	if err != nil {
		return agentIdentity{}, err
	}
	if configFile != "" && !filepath.IsAbs(configFile) {
		configFile = filepath.Join(here, configFile)
	}
	if pgdata == "" {
		pgdata = here
	} else if pgdata, err = filepath.EvalSymlinks(pgdata); err != nil {
		return agentIdentity{}, err
	}
	return agentIdentity{configFile: configFile, pgdata: pgdata, flags: flags, environ: c.environ}, nil
}

// agentFor is the agent of a call whose configuration is known. false if there
// must be none.
func (c *call) agentFor(cfg Config, flags []string) (agentIdentity, agentPlace, bool) {
	pgdata := dataDirectory(cfg.PGData)
	if cfg.Agent == "off" || pgdata == "" || cfg.State == "offline" {
		return agentIdentity{}, agentPlace{}, false
	}
	id, err := c.agentIdentity(cfg.File, pgdata, flags)
	if err != nil {
		c.log.Debug("no agent", "reason", err)
		return agentIdentity{}, agentPlace{}, false
	}
	return id, id.place(cfg.AgentDir), true
}

// throughAgent pushes a file by the agent, or if there is none by itself, and
// then sees to it that the next call finds one.
func (c *call) throughAgent(ctx context.Context, cfg Config, flags []string, path string, itself func(context.Context) error) error {
	if pgdata := dataDirectory(cfg.PGData); pgdata != "" {
		var stop context.CancelFunc
		ctx, stop = untilStopping(ctx, pgdata, c.began)
		defer stop()
	}
	ctx, cancel := cfg.withinPushTimeout(ctx, c.began)
	defer cancel()
	id, place, wanted := c.agentFor(cfg, flags)
	if !wanted {
		return itself(ctx)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if place != c.asked {
		err := c.askAgent(ctx, id, place, absolute)
		if !errors.Is(err, errNoAgent) && !errors.Is(err, archive.ErrForeign) {
			return err
		}
	}
	if cfg.Agent == "auto" {
		if err := c.startAgent(cfg, id, place); err != nil {
			c.log.Debug("no agent was started", "reason", err)
		}
	}
	return itself(ctx)
}
