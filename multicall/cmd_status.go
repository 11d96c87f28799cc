package multicall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pitr/archive"
)

// statusCmd is `pitr status`.
type statusCmd struct {
	agentData
	JSON       bool `name:"json" xor:"form" help:"Print JSON."`
	Prometheus bool `xor:"form" help:"Print figures for Prometheus."`
}

// Run prints how far archiving is, and ends with 0, 1 or 2.
func (cmd *statusCmd) Run(ctx context.Context, c *call, flags *settingFlags) error {
	cfg, err := c.loadConfig(flags)
	var s status
	if err == nil {
		s, err = c.status(ctx, cfg, cmd.Data, flags)
	}
	if err != nil {
		if cmd.JSON {
			err = errors.Join(err, c.printJSON(unusable(err)))
		}
		return withStatus(err, int(critical))
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case cmd.JSON:
		if err := c.printJSON(s); err != nil {
			return err
		}
	case cmd.Prometheus:
		s.writeMetrics(c.stdout)
	default:
		s.print(c.stdout)
	}
	if s.Result == fine {
		return nil
	}
	return withStatus(fmt.Errorf("result: %s", s.Result), int(s.Result))
}

// status asks the agent, if there is one, and looks at the files here.
func (c *call) status(ctx context.Context, cfg Config, data string, flags *settingFlags) (status, error) {
	if err := cfg.needDestination(); err != nil {
		return status{}, err
	}
	var asked single[subject]
	reading, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("%s are over", lookTime))
	defer cancel()
	about, err := asked.do(reading, func(context.Context) (of subject, err error) {
		if of.id, of.place, err = c.agentOf(cfg, data, flags); err == nil {
			of.cluster, err = clusterOf(of.id.pgdata)
		}
		return of, err
	})
	if err != nil {
		return status{}, err
	}
	return newObserver(cfg, about.id.pgdata, about.cluster).look(ctx, c.agentNow(ctx, about.place), time.Now()), nil
}

// subject is whose status is asked for.
type subject struct {
	id      agentIdentity
	place   agentPlace
	cluster archive.Cluster
}

// agentNow is what the agent says of itself within lookTime.
func (c *call) agentNow(ctx context.Context, place agentPlace) agentStatus {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("%s are over", lookTime))
	defer cancel()
	got, err := c.agentStatus(ctx, place)
	if err != nil {
		return agentStatus{Problem: err.Error()}
	}
	return got
}
