package multicall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"pitr/archive/wal"
)

type agentFetchCmd struct {
	agentData
	UntilServerEnds bool   `help:"End when the server or its recovery has ended, or ten minutes after the last call."`
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
	return c.serveCalls(s, id, flags, func(cfg Config) (*post, func(context.Context) error, func(), error) {
		f, release, err := c.newFetcher(cfg, id, place)
		if err != nil {
			return nil, nil, nil, err
		}
		f.follows = cmd.UntilServerEnds
		return f.post, func(ctx context.Context) error { return f.run(ctx, after) }, release, nil
	})
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
