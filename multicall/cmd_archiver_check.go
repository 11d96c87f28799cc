package multicall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/ship"
	"pitr/archive/wal"
)

// checkShipping is cmd_archiver without -F and -I: it looks at everything that
// shipping depends on.
func (c *call) checkShipping(ctx context.Context, cfg Config) error {
	done := c.newCheckup()
	done.shipping(ctx, cfg)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done.print(c.stdout)
	return done.verdict()
}

// ships tells whether this is the configuration of cmd_archiver.
func (c Config) ships() bool { return len(c.Archive) == 0 && len(c.Slaves) > 0 }

// sameSlaves tells whether two configurations ship to the same places by the
// same queues.
func sameSlaves(a, b Config) bool {
	return slices.Equal(a.Slaves, b.Slaves) && a.LArchiveDir == b.LArchiveDir && a.RArchiveDir == b.RArchiveDir
}

// shipping looks at the configuration, at the server with its archive_command,
// at the queues, and at the slaves, where what the server takes for archived is
// looked up.
func (c *checkup) shipping(ctx context.Context, cfg Config) {
	for _, w := range cfg.Warnings {
		c.add(warning, "configuration", "", "%s", w)
	}
	if cfg.State == "offline" {
		c.add(warning, "state", "set state: online", "shipping is switched off: every file is refused, and pg_wal grows")
	}
	cluster, err := slaveCluster(cfg)
	if err != nil {
		c.add(critical, "pgdata", firstHint(err, ""), "%v", err)
	} else {
		c.ok("pgdata", "PostgreSQL %d, system identifier %d, segments of %s", cluster.Major, cluster.SystemID, formatSize(int64(cluster.SegmentSize)))
	}
	var server serverSide
	if cfg.PGData != "" {
		server = c.server(ctx, cfg)
	}
	told := server.acknowledged
	if !server.opaque() && (server.ships == nil || !sameSlaves(cfg, *server.ships)) {
		told = nil // it went elsewhere
	}
	c.slaves(ctx, cfg, cluster, told)
	if server.ships != nil && !sameSlaves(cfg, *server.ships) {
		c.slaves(ctx, *server.ships, cluster, server.acknowledged)
	}
}

// slaves looks at the queues, then at the slaves, and at what alerts came to.
// The queues come first: what leaves them meanwhile is on its slave.
func (c *checkup) slaves(ctx context.Context, cfg Config, cluster archive.Cluster, told []acknowledged) {
	queued := c.queues(ctx, cfg, cluster, told)
	for _, slave := range cfg.Slaves {
		c.slave(ctx, cfg, slave, cluster, queued[slave], told)
	}
	c.alerts(cfg)
}

// queues looks at the disk of the queues and at each of them, and returns what of
// the server's files waits there.
func (c *checkup) queues(ctx context.Context, cfg Config, cluster archive.Cluster, told []acknowledged) map[string][]wal.Name {
	disk := local.New(cfg.LArchiveDir)
	free, _, err := disk.Space()
	if err != nil {
		c.add(critical, "l_archivedir", "is its file system mounted? If it is new: "+queueMaker, "%v", err)
		return nil
	}
	c.room("l_archivedir", free, int64(cluster.SegmentSize))
	queued := map[string][]wal.Name{}
	for _, name := range cfg.queueNames() {
		queued[name] = c.queue(ctx, disk, name, told)
	}
	return queued
}

// queueMaker is what makes a queue that is not there.
const queueMaker = "cmd_archiver -I (slaves) or pitr init (archives)"

func (c *checkup) queue(ctx context.Context, disk local.FS, name string, told []acknowledged) (queued []wal.Name) {
	what := "queue of " + name
	q, err := ship.Look(ctx, disk, name)
	if err == nil {
		err = mustBeWritable(ctx, disk, name)
	}
	if err != nil {
		c.add(critical, what, firstHint(err, queueMaker+" makes it; does this user own it?"), "%v", err)
		return nil
	}
	switch {
	case q.Files > 0:
		c.add(warning, what, "it goes out with the next file that PostgreSQL archives, when it is taken there", "%s, %s, since %s; first %s",
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
	for _, t := range told {
		if waits, err := ship.Has(ctx, disk, name, t.name); waits && err == nil {
			queued = append(queued, t.name)
		}
	}
	return queued
}

// mustBeWritable tries, for what counts is not what the mode says.
func mustBeWritable(ctx context.Context, disk local.FS, queue string) error {
	name := path.Join(queue, local.Writer().NewTempName())
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
// can be written to. What the server was told is archived must be there, or be
// queued.
func (c *checkup) slave(ctx context.Context, cfg Config, slave string, cluster archive.Cluster, queued []wal.Name, told []acknowledged) {
	what, u := "slave "+slave, c.slaveURL(cfg, slave)
	listing, cancel := context.WithTimeoutCause(ctx, answerTime+listTime, fmt.Errorf("no answer within %s", listTime))
	defer cancel()
	ctx, cancel = context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("no answer within %s", answerTime))
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
	cover, err := a.Coverage(listing)
	if err != nil {
		c.add(critical, what, firstHint(err, ""), "what it holds cannot be listed: %v", err)
		return
	}
	c.coverage(what, cover)
	c.acknowledged(what, id, cover, queued, told)
}

// alerts looks for commands that are not there, and for what the last ones came
// to.
func (c *checkup) alerts(cfg Config) {
	c.runnable("notify_ok", cfg.NotifyOK)
	c.runnable("notify_warning", cfg.NotifyWarning)
	c.runnable("notify_critical", cfg.NotifyCritical)
	for _, queue := range cfg.queueNames() {
		for _, name := range []string{failedAlert, failedAlertTold} {
			text, err := os.ReadFile(path.Join(cfg.queueOf(queue), name))
			if err == nil {
				c.add(warning, "alert of "+queue, "the next alert that succeeds clears this", "%s", readFailedAlert(text))
			} else if !errors.Is(err, fs.ErrNotExist) {
				c.add(warning, "alert of "+queue, "", "%v", err)
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
