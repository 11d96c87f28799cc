package multicall

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"pitr/archive"
	"pitr/archive/wal"
)

// archiveCommandCLI is the command line of archive_command.
type archiveCommandCLI struct {
	settingFlags
	Path string `arg:"" help:"The file to store: PostgreSQL's %p."`
}

// runArchiveCommand is archive_command.
func runArchiveCommand(ctx context.Context, c *call) error {
	var cli archiveCommandCLI
	if _, err := c.parse(&cli, "Store one file of pg_wal, durably, in every configured archive."); err != nil {
		return err
	}
	cfg, err := c.loadConfig(&cli.settingFlags)
	if err != nil {
		return err
	}
	return push(ctx, cfg, c.log, cli.Path)
}

// push stores one file of pg_wal in every configured archive, within
// push_timeout.
func push(ctx context.Context, cfg Config, log *slog.Logger, path string) error {
	if err := cfg.NeedArchive(); err != nil {
		return err
	}
	if cfg.State == "offline" {
		return hint(fmt.Errorf("push %s: %w", filepath.Base(path), ErrOffline), "pg_wal grows until it is online again")
	}
	pgdata, err := dataDirectory(cfg.PGData, "")
	if err != nil {
		return err
	}
	if err := mustBeConfigured(pgdata, cfg.PGData); err != nil {
		return err
	}
	cluster, err := clusterOf(pgdata)
	if err != nil {
		return err
	}
	f, err := openWAL(path)
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.PushTimeout, fmt.Errorf("push_timeout of %s is over", cfg.PushTimeout))
	defer cancel()
	done, err := cfg.archives(cfg.Archive, cluster, log).Push(ctx, f.name, f)
	if err != nil {
		return err
	}
	sayPushed(log, f.name, done)
	return nil
}

// sayPushed alerts of WAL that is damaged where it comes from. It was stored as
// it is: refusing it would fill pg_wal and mend nothing.
func sayPushed(log *slog.Logger, name wal.Name, done []archive.Pushed) {
	for _, p := range done {
		log.Debug("stored", "file", name, "found", p.Found, "records", p.Walk.Records)
	}
	if walk := done[0].Walk; walk.Status != wal.Complete && name.Kind() == wal.KindSegment {
		log.Warn("stored as it is, but its records are not sound: a recovery will end there", "file", name, "at", walk.End, "reason", walk.Reason)
	}
}
