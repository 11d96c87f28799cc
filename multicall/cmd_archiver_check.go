package multicall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/ship"
)

// checkShipping is cmd_archiver without -F and -I: it looks at everything that
// shipping depends on.
func (c *call) checkShipping(ctx context.Context, cfg Config) error {
	done := &checkup{environ: c.environ, defaultFile: c.defaultFile, log: c.log}
	if cfg.State == "offline" {
		done.add(warning, "state", "set state: online", "shipping is switched off: every file is refused, and pg_wal grows")
	}
	cluster, err := slaveCluster(cfg)
	if err != nil {
		done.add(critical, "pgdata", firstHint(err, ""), "%v", err)
	} else {
		done.ok("pgdata", "PostgreSQL %d, system identifier %d, segments of %s", cluster.Major, cluster.SystemID, formatSize(int64(cluster.SegmentSize)))
	}
	done.queues(ctx, cfg, cluster)
	for _, slave := range cfg.Slaves {
		done.slave(ctx, cfg, slave, c.slaveURL(cfg, slave), cluster)
	}
	done.alerts(cfg)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done.print(c.stdout)
	return done.verdict()
}

// queues looks at the disk of the queues and at each of them.
func (c *checkup) queues(ctx context.Context, cfg Config, cluster archive.Cluster) {
	disk := local.New(cfg.LArchiveDir)
	free, _, err := disk.Space()
	if err != nil {
		c.add(critical, "l_archivedir", "is its file system mounted? If it is new: cmd_archiver -I", "%v", err)
		return
	}
	c.room("l_archivedir", free, int64(cluster.SegmentSize))
	for _, slave := range cfg.Slaves {
		c.queue(ctx, disk, slave)
	}
}

func (c *checkup) queue(ctx context.Context, disk local.FS, slave string) {
	what := "queue of " + slave
	q, err := ship.Look(ctx, disk, slave)
	if err == nil {
		err = mustBeWritable(ctx, disk, slave)
	}
	if err != nil {
		c.add(critical, what, firstHint(err, "cmd_archiver -I makes it; does this user own it?"), "%v", err)
		return
	}
	switch {
	case q.Files > 0:
		c.add(warning, what, "it goes out with the next file that PostgreSQL archives, when the slave takes it", "%s, %s, since %s; first %s",
			count(q.Files, "file"), formatSize(q.Bytes), q.Oldest.UTC().Format(time.RFC3339), q.First)
	default:
		c.ok(what, "empty")
	}
	if q.Unknown > 0 {
		c.add(warning, what, "move them away", "%s that are not PostgreSQL's, and are never shipped", count(q.Unknown, "name"))
	}
	if q.State == ship.Failed || q.State == ship.Behind {
		worst := map[ship.State]severity{ship.Failed: critical, ship.Behind: warning}[q.State]
		c.add(worst, what, "", "since %s: %s", q.Since.UTC().Format(time.RFC3339), q.Reason)
	}
}

// mustBeWritable tries, for what counts is not what the mode says.
func mustBeWritable(ctx context.Context, disk local.FS, slave string) error {
	name := path.Join(slave, local.Writer().NewTempName())
	f, err := disk.Create(ctx, name)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return disk.Remove(ctx, name)
}

// slave connects to a slave, asks its archive who it is, and tries whether it
// can be written to.
func (c *checkup) slave(ctx context.Context, cfg Config, slave string, u *url.URL, cluster archive.Cluster) {
	what := "slave " + slave
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("no answer within %s", answerTime))
	defer cancel()
	cfg.Layout = string(archive.Flat)
	dir := cfg.filesAt(u, c.log)
	if !c.connection(ctx, what, dir) {
		return
	}
	a := cfg.archiveIn(dir, u, cluster, c.log)
	id, err := a.Identity(ctx)
	if err != nil {
		c.add(critical, what, firstHint(err, "cmd_archiver -I makes the archive"), "%v", err)
		return
	}
	c.ok(what, "%s: archive %s of system identifier %d", u, id.ID, id.SystemID)
	c.probe(ctx, a, what)
	c.place(ctx, what, dir, id.SegmentSize)
}

// alerts looks for commands that are not there, and for what the last ones came
// to.
func (c *checkup) alerts(cfg Config) {
	c.runnable("notify_ok", cfg.NotifyOK)
	c.runnable("notify_warning", cfg.NotifyWarning)
	c.runnable("notify_critical", cfg.NotifyCritical)
	for _, slave := range cfg.Slaves {
		for _, name := range []string{failedAlert, failedAlertTold} {
			text, err := os.ReadFile(path.Join(cfg.queueOf(slave), name))
			if err == nil {
				c.add(warning, "alert of "+slave, "the next alert that succeeds clears this", "%s", readFailedAlert(text))
			} else if !errors.Is(err, fs.ErrNotExist) {
				c.add(warning, "alert of "+slave, "", "%v", err)
			}
		}
	}
}

// runnable looks for the program of an alert. What a script calls shows when it
// runs.
func (c *checkup) runnable(key string, p program) {
	if len(p.words) == 0 {
		return
	}
	if _, err := exec.LookPath(p.words[0]); err != nil {
		c.add(warning, key, "give its whole path, and let this user run it", "%v", err)
	}
}
