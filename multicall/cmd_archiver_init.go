package multicall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/ship"
)

// initQueues is cmd_archiver -I: the queues here, then the archive on each
// slave. That a slave is away is a warning, for its queue is ready.
func (c *call) initQueues(ctx context.Context, cfg Config) error {
	cluster, err := slaveCluster(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "We are initializing queues, one moment.\n\n")
	c.notice(cfg, "init_env_func()")
	c.notice(cfg, "generate_slave_list_func()")
	c.notice(cfg, "Your slaves are: "+pythonList(cfg.Slaves))
	if err := makeQueues(ctx, cfg); err != nil {
		return err
	}
	var problems []error
	for _, slave := range cfg.Slaves {
		switch err := c.initSlave(ctx, cfg, slave, cluster); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && unfit(err):
			problems = append(problems, fmt.Errorf("%s: %w", slave, err))
		case err != nil:
			c.log.Warn("the slave could not be made ready, and its queue is; run cmd_archiver -I again when the slave is there", "slave", slave, "reason", err, "hint", strings.Join(hintsOf(err), "; "))
		}
	}
	return errors.Join(problems...)
}

// notice is a line of debug output as pitrtools has it.
func (c *call) notice(cfg Config, text string) {
	if cfg.Debug {
		fmt.Fprintf(c.stdout, "NOTICE: %s\n", text)
	}
}

// pythonList writes a list as Python prints it. The names of hosts need no
// escapes.
func pythonList(items []string) string {
	return "['" + strings.Join(items, "', '") + "']"
}

func makeQueues(ctx context.Context, cfg Config) error {
	if lies(filepath.Dir(cfg.LArchiveDir), cfg.PGData) {
		return fmt.Errorf("%w: l_archivedir %s lies in the data directory", ErrConfig, cfg.LArchiveDir)
	}
	err := ship.Make(ctx, local.New(cfg.LArchiveDir), cfg.queueNames())
	if errors.Is(err, fs.ErrNotExist) {
		err = hint(err, "%s must exist: is its file system mounted?", filepath.Dir(cfg.LArchiveDir))
	}
	if err != nil {
		return fmt.Errorf("make the queues: %w", err)
	}
	return nil
}

// initSlave makes the archive on a slave, unless it is there and fits.
func (c *call) initSlave(ctx context.Context, cfg Config, slave string, cluster archive.Cluster) error {
	ctx, cancel := cfg.withinPushTimeout(ctx, c.began)
	defer cancel()
	u := c.slaveURL(cfg, slave)
	cfg.Layout = string(archive.Flat)
	dir := cfg.filesAt(u, c.log)
	a := cfg.archiveIn(dir, u, cluster, c.log)
	_, err := a.Identity(ctx)
	if err == nil {
		fmt.Fprintf(c.stdout, "%s is an archive of this cluster already\n", u)
		return nil
	}
	if !errors.Is(err, archive.ErrNoIdentity) {
		return err
	}
	if err := initIn(ctx, dir, u, flatIdentity(cluster)); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s is now the archive of system identifier %d\n", u, cluster.SystemID)
	return pushHistories(ctx, archive.Set{a}, dataDirectory(cfg.PGData), c.stdout)
}

func flatIdentity(cluster archive.Cluster) archive.Identity {
	return archive.Identity{
		SystemID: cluster.SystemID, Major: cluster.Major, SegmentSize: cluster.SegmentSize,
		Layout: archive.Flat, Codec: archive.None,
		Created: time.Now().UTC().Truncate(time.Second), CreatedBy: "cmd_archiver " + Version(),
	}
}
