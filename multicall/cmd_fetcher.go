package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"pitr/archive/wal"
)

type agentFetchCmd struct {
	agentData
	UntilServerEnds bool   `help:"End when the server has ended, or a minute after the last call."`
	After           string `placeholder:"NAME" help:"Begin at once, with what comes after this file."`
}

// Run is the fetcher.
func (cmd *agentFetchCmd) Run(s *session, c *call, flags *settingFlags) error {
	if err := s.cfg.NeedArchive(); err != nil {
		return err
	}
	if s.cfg.Agent == "off" || s.cfg.Prefetch == 0 {
		return hint(fmt.Errorf("%w: agent (%s) is %s and prefetch (%s) is %d bytes: nothing is to be read ahead", ErrConfig,
			s.cfg.Origin("agent"), s.cfg.Agent, s.cfg.Origin("prefetch"), s.cfg.Prefetch), "set agent = external and a prefetch, so that restore_command works through this one")
	}
	var after wal.Name
	if cmd.After != "" {
		var err error
		if after, err = wal.ParseName(cmd.After); err != nil {
			return usagef("--after: %v", err)
		}
	}
	id, place, err := c.fetcherOf(s.cfg, cmd.Data, flags)
	if err != nil {
		return err
	}
	// Read between two looks at it: what is compared later is what is in force.
	before, err := id.digest()
	if err != nil {
		return err
	}
	cfg, err := c.loadConfig(flags)
	if err != nil {
		return err
	}
	f, release, err := c.newFetcher(cfg, id, place)
	if err != nil {
		return err
	}
	defer release()
	if f.digest != before {
		f.end("the configuration has changed")
		return hint(errors.New("the configuration changed while it was read"), "begin again")
	}
	f.follows = cmd.UntilServerEnds
	err = f.run(s.ctx, after)
	if errors.Is(context.Cause(s.ctx), interrupted(syscall.SIGTERM)) || errors.Is(context.Cause(s.ctx), interrupted(syscall.SIGINT)) {
		return nil // that is how it is told to end
	}
	return err
}

// fetcherOf is the fetcher of a data directory, which may be any: a restored copy
// reads from the archive of the server that it comes from.
func (c *call) fetcherOf(cfg Config, data string, flags *settingFlags) (agentIdentity, agentPlace, error) {
	data, err := whoseAgent(cfg, data)
	if err != nil {
		return agentIdentity{}, agentPlace{}, err
	}
	id, err := c.agentIdentity(cfg.File, data, settingWords(flags))
	id.restores = true
	return id, id.place(cfg.AgentDir), err
}

// fetcherNow asks the fetcher at a place. There may be none.
func (c *call) fetcherNow(ctx context.Context, place agentPlace) (fetcherStatus, error) {
	var got fetcherStatus
	answer, err := c.tellAgent(ctx, place, opStatus)
	if errors.Is(err, errNoAgent) {
		return got, nil
	}
	if err == nil {
		err = json.Unmarshal(answer.Status, &got)
	}
	return got, err
}

// line is the state of a fetcher in words.
func (f fetcherStatus) line() string {
	if !f.Running {
		return "no fetcher is running"
	}
	return fmt.Sprintf("fetcher %d of %s, since %s: %d files asked for, %d of them were ready or under way, %d segments are",
		f.PID, f.Build, f.Since.Local().Format(time.DateTime), f.Asked, f.Taken, f.Held)
}
