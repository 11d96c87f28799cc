package multicall

import (
	"context"
	"errors"
	"strings"

	"github.com/alecthomas/kong"

	"pitr/archive"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

// cmdArchiverCLI is the command line of pitrtools' cmd_archiver.
type cmdArchiverCLI struct {
	settingFlags
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`

	// A list, so that a second one is an error and not the only one.
	File []string `short:"F" sep:"none" placeholder:"PATH" help:"Ship this file: PostgreSQL's %p."`
	Init bool     `short:"I" help:"Make the queues here and the archives on the slaves; may be run again."`
}

const cmdArchiverHelp = "Ship one file of pg_wal to every slave, durably, or into its queue. Without -F and -I: look at everything that shipping depends on; exits 0, 1 (warning) or 2 (critical)."

// runCmdArchiver is cmd_archiver.
func runCmdArchiver(ctx context.Context, c *call) error {
	if err := c.pushPlainly(ctx); !errors.Is(err, errNoAgent) {
		return err
	}
	var cli cmdArchiverCLI
	if _, err := c.parse(&cli, cmdArchiverHelp); err != nil {
		return err
	}
	switch {
	case c.uid == 0:
		return errRoot()
	case len(cli.File) > 1:
		return usagef("-F is given %d times", len(cli.File))
	case len(cli.File) == 1 && cli.Init:
		return usagef("-F and -I exclude each other")
	case len(cli.File) == 1 && cli.File[0] == "":
		return usagef("-F names no file")
	}
	cfg, err := c.loadConfig(&cli.settingFlags)
	if err == nil {
		err = cfg.needSlaves()
	}
	if err != nil {
		return err
	}
	cfg.sayUnused(c.log)
	switch {
	case cli.Init:
		return c.initQueues(ctx, cfg)
	case len(cli.File) == 0:
		return c.checkShipping(ctx, cfg)
	}
	return c.throughAgent(ctx, cfg, settingWords(&cli.settingFlags), cli.File[0], func(ctx context.Context) error {
		return c.ship(ctx, cfg, cli.File[0])
	})
}

// ship ships one file of pg_wal to every slave, or into its queue, within
// push_timeout.
func (c *call) ship(ctx context.Context, cfg Config, path string) error {
	if err := cfg.mustBeOnline(path); err != nil {
		return err
	}
	cluster, err := slaveCluster(cfg)
	if err != nil {
		return err
	}
	f, err := openWAL(path)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := cfg.withinPushTimeout(ctx, c.began)
	defer cancel()
	s := c.shipper(cfg, cluster)
	if errors.Is(archive.Inspect(f.name, f, cluster), archive.ErrForeign) && neverShipped(ctx, s, f) {
		c.log.Warn("not shipped: it is nothing but zeros, of a timeline that never began: a promotion was interrupted", "file", f.name)
		return nil
	}
	results, err := s.Ship(ctx, f.name, f)
	c.sayShipped(cfg, results)
	c.notify(cfg, results)
	return err
}

// neverShipped is neverBegan for slaves.
func neverShipped(ctx context.Context, s *ship.Shipper, f walFile) bool {
	var set archive.Set
	for _, to := range s.Destinations {
		set = append(set, to.Archive)
	}
	return neverQueued(ctx, s, f) && neverBegan(ctx, set, f)
}

// sayShipped logs changes of destinations, and whatever needs somebody. What one
// lost is the error of the call.
func (c *call) sayShipped(cfg Config, results []ship.Result) {
	kind := cfg.kind()
	for _, r := range results {
		log := c.log.With(kind, r.Destination)
		changed := r.Before.Worth(r.After)
		switch {
		case r.Outcome == ship.Delivered:
			if r.Pushed.As != (wal.Name{}) { // else it was what waited
				sayPushed(log, r.File, []archive.Pushed{r.Pushed})
			}
			if changed || r.Sent > 0 {
				log.Info("the "+kind+" has everything", "file", r.File, "from_queue", r.Sent)
			}
		case r.Outcome == ship.Lost:
		case changed || r.After == ship.Failed:
			log.Warn("queued: the "+kind+" does not have it yet", "file", r.File, "reason", r.Reason, "hint", strings.Join(hintsOf(r.Reason), "; "))
		default:
			log.Debug("queued", "file", r.File, "reason", r.Reason, "sent", r.Sent)
		}
		if r.HalfFull {
			log.Warn("its queue holds more than half of queue_max", "file", r.File)
		}
	}
}
