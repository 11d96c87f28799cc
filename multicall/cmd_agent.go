package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type agentCmd struct {
	Run    agentRunCmd    `cmd:"" help:"Ship for archive_command, in the foreground, until told to end."`
	Fetch  agentFetchCmd  `cmd:"" help:"Read ahead for restore_command, in the foreground, until told to end."`
	Status agentStatusCmd `cmd:"" help:"Tell whether an agent is there, and what it does."`
	Stop   agentStopCmd   `cmd:"" help:"Have the agent finish what is under way, and end."`
}

// agentData is whose agent is meant.
type agentData struct {
	Data string `placeholder:"DIR" help:"The data directory; pgdata if it is not given."`
}

// whoseAgent is the data directory that is meant.
func whoseAgent(cfg Config, data string) (string, error) {
	if data == "" {
		data = dataDirectory(cfg.PGData)
	}
	if data == "" {
		return "", hint(usagef("whose agent?"), "set pgdata, or name the data directory with --data")
	}
	if !isDataDirectory(data) {
		return "", hint(usagef("%s is no data directory", data), "it has neither PG_VERSION nor global/pg_control")
	}
	return data, nil
}

// agentOf is the agent of a data directory.
func (c *call) agentOf(cfg Config, data string, flags *settingFlags) (agentIdentity, agentPlace, error) {
	data, err := whoseAgent(cfg, data)
	if err != nil {
		return agentIdentity{}, agentPlace{}, err
	}
	if err := mustBeConfigured(data, cfg.PGData); err != nil {
		return agentIdentity{}, agentPlace{}, err
	}
	id, err := c.agentIdentity(cfg.File, data, settingWords(flags))
	return id, id.place(cfg.AgentDir), err
}

type agentRunCmd struct {
	agentData
	UntilServerEnds bool `help:"End when the server has ended and nothing is left to do."`
}

// Run is the agent.
func (cmd *agentRunCmd) Run(s *session, c *call, flags *settingFlags) error {
	if err := s.cfg.needDestination(); err != nil {
		return err
	}
	if s.cfg.Agent == "off" {
		return hint(fmt.Errorf("%w: agent (%s) is off", ErrConfig, s.cfg.Origin("agent")), "set agent = external, so that archive_command works through this one")
	}
	id, place, err := c.agentOf(s.cfg, cmd.Data, flags)
	if err != nil {
		return err
	}
	return c.serveCalls(s, id, flags, func(cfg Config) (*post, func(context.Context) error, func(), error) {
		a, release, err := c.newAgent(cfg, id, place)
		if err != nil {
			return nil, nil, nil, err
		}
		a.follows = cmd.UntilServerEnds
		return a.post, a.run, release, nil
	})
}

// serveCalls runs an agent or a fetcher, which made prepares, until it is told to end.
func (c *call) serveCalls(s *session, id agentIdentity, flags *settingFlags, made func(Config) (*post, func(context.Context) error, func(), error)) error {
	// Read between two looks at it: what is compared later is what is in force.
	before, err := id.digest()
	if err != nil {
		return err
	}
	cfg, err := c.loadConfig(flags)
	if err != nil {
		return err
	}
	p, run, release, err := made(cfg)
	if err != nil {
		return err
	}
	defer release()
	if p.digest != before {
		p.end("the configuration has changed")
		return hint(errors.New("the configuration changed while it was read"), "begin again")
	}
	err = run(s.ctx)
	if errors.Is(context.Cause(s.ctx), interrupted(syscall.SIGTERM)) || errors.Is(context.Cause(s.ctx), interrupted(syscall.SIGINT)) {
		return nil // that is how it is told to end
	}
	return err
}

// needDestination is an error if there is nowhere to ship to.
func (c Config) needDestination() error {
	if len(c.Slaves) > 0 {
		return c.needSlaves()
	}
	return c.NeedArchive()
}

type agentStatusCmd struct {
	agentData
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints what the agent and the fetcher say of themselves.
func (cmd *agentStatusCmd) Run(s *session, c *call, flags *settingFlags) error {
	_, fetching, err := c.fetcherOf(s.cfg, cmd.Data, flags)
	if err != nil {
		return err
	}
	var got struct {
		agentStatus
		Fetcher fetcherStatus `json:"fetcher"`
	}
	// A restored copy has a fetcher, and never an agent.
	if _, place, err := c.agentOf(s.cfg, cmd.Data, flags); err == nil {
		if got.agentStatus, err = c.agentStatus(s.ctx, place); err != nil {
			return err
		}
	} else if !errors.Is(err, ErrConfig) {
		return err
	}
	if got.Fetcher, err = c.fetcherNow(s.ctx, fetching); err != nil {
		return err
	}
	if cmd.JSON {
		return c.printJSON(got)
	}
	if !got.Running {
		fmt.Fprintln(c.stdout, "no agent is running")
	} else {
		fmt.Fprintf(c.stdout, "agent %d of %s, since %s\n", got.PID, got.Build, got.Since.Local().Format(time.DateTime))
	}
	for _, a := range got.Archives {
		fmt.Fprintf(c.stdout, "%s: %s\n", a.Archive, a.line())
	}
	if got.Fetcher.Running {
		fmt.Fprintln(c.stdout, got.Fetcher.line())
	}
	return nil
}

// line is the state of an archive in words.
func (a archiveStatus) line() string {
	switch {
	case !a.Down.IsZero():
		return fmt.Sprintf("down since %s: %s", a.Down.Local().Format(time.DateTime), visible(a.Error))
	case a.Failing:
		return "failing: " + visible(a.Error)
	case a.Last != "":
		return fmt.Sprintf("ok, %s at %s", a.Last, a.LastAt.Local().Format(time.DateTime))
	}
	return "nothing was shipped yet"
}

// agentStatus asks the agent at a place. There may be none.
func (c *call) agentStatus(ctx context.Context, place agentPlace) (agentStatus, error) {
	var got agentStatus
	answer, err := c.tellAgent(ctx, place, opStatus)
	if errors.Is(err, errNoAgent) {
		return got, nil
	}
	if err == nil {
		err = json.Unmarshal(answer.Status, &got)
	}
	return got, err
}

// tellAgent asks for something other than to push. errNoAgent if none is there. One
// that ends while it is asked is none: the question goes to the next one.
func (c *call) tellAgent(ctx context.Context, place agentPlace, op string) (agentAnswer, error) {
	const most = 3
	for n := 1; ; n++ {
		answer, err := c.tellOnce(ctx, place, op)
		gone := errors.Is(err, errHungUp) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
		if !gone || n == most {
			return answer, err
		}
	}
}

func (c *call) tellOnce(ctx context.Context, place agentPlace, op string) (agentAnswer, error) {
	conn, err := place.dial(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return agentAnswer{}, errNoAgent
	}
	if err != nil {
		return agentAnswer{}, fmt.Errorf("ask the agent: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := send(conn, agentRequest{Version: agentVersion, Build: buildID(), Op: op}, silence); err != nil {
		return agentAnswer{}, fmt.Errorf("ask the agent: %w", err)
	}
	from := hear(conn)
	for {
		var a agentAnswer
		err := receive(conn, from, silence, &a)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
			return a, hint(fmt.Errorf("the agent does not answer: %w", err), "is it stopped? end its process by hand")
		case err != nil:
			return a, fmt.Errorf("ask the agent: %w", err)
		}
		if a.Done {
			return a, hearErrors(a.Errors)
		}
	}
}

type agentStopCmd struct {
	agentData
}

// Run ends the agent and the fetcher, and waits until they are gone.
func (cmd *agentStopCmd) Run(s *session, c *call, flags *settingFlags) error {
	fetcher, fetching, err := c.fetcherOf(s.cfg, cmd.Data, flags)
	if err != nil {
		return err
	}
	agent, place, err := c.agentOf(s.cfg, cmd.Data, flags)
	switch {
	case err == nil:
		there, err := c.stopAgent(s, place)
		if err != nil {
			return err
		}
		if there {
			fmt.Fprintf(c.stdout, "the %s has ended\n", agent.role())
		} else {
			fmt.Fprintf(c.stdout, "no %s is running\n", agent.role())
		}
	case !errors.Is(err, ErrConfig):
		return err
	}
	there, err := c.stopAgent(s, fetching)
	if there && err == nil {
		fmt.Fprintf(c.stdout, "the %s has ended\n", fetcher.role())
	}
	return err
}

// stopAgent ends who is at a place, and waits until it is gone. false if nobody was
// there.
func (c *call) stopAgent(s *session, place agentPlace) (there bool, err error) {
	_, err = c.tellAgent(s.ctx, place, opStop)
	there = !errors.Is(err, errNoAgent)
	if there && err != nil {
		return there, err
	}
	if _, err := os.Lstat(place.lock()); errors.Is(err, fs.ErrNotExist) {
		return there, nil // there never was one
	}
	for end := time.Now().Add(s.cfg.PushTimeout + 2*silence); ; {
		release, err := place.hold()
		if err == nil {
			release()
		}
		switch {
		case errors.Is(err, errHeld): // also one that is not to be asked any more: it finishes what is under way
			there = true
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return there, err
		default:
			return there, nil
		}
		if time.Now().After(end) {
			return there, errors.New("it was told to end, and is still finishing what is under way")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.ctx.Done():
			return there, context.Cause(s.ctx)
		}
	}
}

// settingWords are the settings of a command line, each with its value in one
// word: with them, an agent is another one than without. The data directory is
// told apart from them.
func settingWords(flags *settingFlags) []string {
	var words []string
	for _, s := range settings() {
		if v := s.flag(flags); v != nil && s.key != "pgdata" {
			words = append(words, s.flagName()+"="+*v)
		}
	}
	return words
}

// cmdQueueCLI is the command line of pitrtools' cmd_queue.
type cmdQueueCLI struct {
	settingFlags
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`

	Daemon bool `short:"d" help:"Go into the background."`
}

// runCmdQueue is cmd_queue: pitr agent run by its old name.
func runCmdQueue(ctx context.Context, c *call) error {
	var cli cmdQueueCLI
	if _, err := c.parse(&cli, "Ship for cmd_archiver, and empty its queues, until told to end."); err != nil {
		return err
	}
	s, err := c.session(ctx, &cli.settingFlags)
	if err != nil {
		return err
	}
	if cli.Daemon {
		id, place, err := c.agentOf(s.cfg, "", &cli.settingFlags)
		if err != nil {
			return err
		}
		return c.launchAgent(s.cfg, id, place)
	}
	return (&agentRunCmd{}).Run(s, c, &cli.settingFlags)
}
