package multicall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"pitr/archive"
	"pitr/archive/wal"
)

// archiveCommandCLI is the command line of archive_command.
type archiveCommandCLI struct {
	settingFlags
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`

	Path string `arg:"" help:"The file to store: PostgreSQL's %p."`
}

// runArchiveCommand is archive_command.
func runArchiveCommand(ctx context.Context, c *call) error {
	if err := c.pushPlainly(ctx); !errors.Is(err, errNoAgent) {
		return err
	}
	var cli archiveCommandCLI
	if _, err := c.parse(&cli, "Store one file of pg_wal, durably, in every configured archive."); err != nil {
		return err
	}
	cfg, err := c.loadConfig(&cli.settingFlags)
	if err != nil {
		return err
	}
	return c.throughAgent(ctx, cfg, settingWords(&cli.settingFlags), cli.Path, func(ctx context.Context) error {
		return c.push(ctx, cfg, cli.Path)
	})
}

// push brings one file of pg_wal to every configured archive, or into its queue,
// within push_timeout.
func (c *call) push(ctx context.Context, cfg Config, path string) error {
	if err := cfg.NeedArchive(); err != nil {
		return err
	}
	if err := cfg.mustBeOnline(path); err != nil {
		return err
	}
	cluster, err := archivedCluster(cfg)
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
	d := c.delivery(cfg, cluster)
	if errors.Is(archive.Inspect(f.name, f, cluster), archive.ErrForeign) && d.neverBegan(ctx, f) {
		c.log.Warn("not stored: it is nothing but zeros, of a timeline that never began: a promotion was interrupted", "file", f.name)
		return nil
	}
	stored, shipped, err := d.run(ctx, f)
	c.sayShipped(cfg, shipped)
	c.notify(cfg, shipped)
	if err != nil {
		return err
	}
	sayPushed(c.log, f.name, stored)
	return nil
}

// archivedCluster is the cluster whose WAL this is, as far as it is known. For a
// queue it must be: an archive that is away cannot say whose WAL it takes.
func archivedCluster(cfg Config) (archive.Cluster, error) {
	if len(cfg.Queued) > 0 {
		return slaveCluster(cfg)
	}
	pgdata := dataDirectory(cfg.PGData)
	if err := mustBeConfigured(pgdata, cfg.PGData); err != nil {
		return archive.Cluster{}, err
	}
	return clusterOf(pgdata)
}

// mustBeOnline refuses a file while the configuration says so.
func (c Config) mustBeOnline(path string) error {
	if c.State != "offline" {
		return nil
	}
	return hint(fmt.Errorf("%s: %w", filepath.Base(path), ErrOffline), "pg_wal grows until it is online again")
}

// withinPushTimeout bounds a call that has begun.
func (c Config) withinPushTimeout(ctx context.Context, began time.Time) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, began.Add(c.PushTimeout), fmt.Errorf("push_timeout of %s is over", c.PushTimeout))
}

// neverBegan tells whether a segment is what a promotion left that was
// interrupted between two segments: nothing but zeros, on a timeline without a
// history, here or in any archive. No WAL is in it, and PostgreSQL would ask
// for it to be archived for ever, before everything that comes after it.
func neverBegan(ctx context.Context, set archive.Set, f walFile) bool {
	history := wal.HistoryName(f.name.Timeline())
	if f.name.Kind() != wal.KindSegment || f.name.Timeline() == 1 || !nothingButZeros(f) {
		return false
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(f.Name()), history.String())); !errors.Is(err, os.ErrNotExist) {
		return false
	}
	_, err := set.Fetch(ctx, history, getPatience, func(func(io.Writer) error) error { return nil })
	return errors.Is(err, archive.ErrAbsent)
}

func nothingButZeros(f walFile) bool {
	buf := make([]byte, 256<<10)
	for at := int64(0); at < f.size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), f.size-at)], at)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 || n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		at += int64(n)
	}
	return f.size > 0
}

// sayPushed alerts of WAL that is damaged where it comes from. It was stored as
// it is: refusing it would fill pg_wal and mend nothing.
func sayPushed(log *slog.Logger, name wal.Name, done []archive.Pushed) {
	if len(done) == 0 {
		return
	}
	for _, p := range done {
		log.Debug("stored", "file", name, "found", p.Found, "records", p.Walk.Records)
	}
	if walk := done[0].Walk; walk.Status != wal.Complete && done[0].As.Kind() == wal.KindSegment {
		log.Warn("stored as it is, but its records are not sound: a recovery will end there", "file", name, "at", walk.End, "reason", walk.Reason)
	}
}
