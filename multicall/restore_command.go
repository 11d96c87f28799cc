package multicall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
	"pitr/standby"
)

// restoreCommandCLI is the command line of restore_command.
type restoreCommandCLI struct {
	settingFlags
	Name string `arg:"" help:"The file that is wanted: PostgreSQL's %f."`
	Dest string `arg:"" help:"Where to put it: PostgreSQL's %p."`
}

// runRestoreCommand is restore_command.
func runRestoreCommand(ctx context.Context, c *call) error {
	var cli restoreCommandCLI
	if _, err := c.parse(&cli, "Get one file from the archives, verified. Exits 1 only if it is proven absent, or in standby mode."); err != nil {
		return err
	}
	cfg, err := c.loadConfig(&cli.settingFlags)
	if err != nil {
		return err
	}
	err = restore(ctx, cfg, c.log, cli.Name, cli.Dest)
	if errors.Is(err, archive.ErrAbsent) {
		// Routine: a standby at the end of the archive asks every few seconds.
		c.log.Debug("absent", "error", err)
		return statusTold(statusOf(err, colRestoreCommand))
	}
	return err
}

// restore gets one file for PostgreSQL, by the policy of package standby.
func restore(ctx context.Context, cfg Config, log *slog.Logger, name, dest string) error {
	if err := cfg.NeedArchive(); err != nil {
		return err
	}
	file, err := wal.ParseName(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	pgdata, err := dataDirectory(cfg.PGData, dest)
	if err != nil {
		return err
	}
	mode := standby.ModeOf(pgdata)
	cluster, err := clusterOf(pgdata)
	if err != nil {
		return &standby.Doubt{Mode: mode, Err: err}
	}
	return standby.Restore{
		From:  cfg.archives(cfg.readFrom(), cluster, log),
		Mode:  mode,
		Retry: cfg.RestoreRetry,
		Local: func(n wal.Name) bool { return soundIn(filepath.Join(pgdata, "pg_wal"), n, cluster) == nil },
		Log:   log,
	}.Run(ctx, file, local.Handover(dest))
}

// soundIn tells whether a directory has a whole copy of a file whose every
// record is sound: PostgreSQL may be left to take it.
func soundIn(dir string, n wal.Name, cluster archive.Cluster) error {
	f, err := openWAL(filepath.Join(dir, n.String()))
	if err != nil {
		return err
	}
	defer f.Close()
	if n.Kind() == wal.KindHistory {
		text, err := os.ReadFile(f.Name())
		if err == nil {
			_, err = wal.ParseHistory(n.Timeline(), text)
		}
		return err
	}
	head := make([]byte, wal.HeaderLen)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	want := wal.Expect{SystemID: cluster.SystemID, Major: cluster.Major, Size: cluster.SegmentSize}
	if err := wal.CheckSegment(n, head, f.Size(), want); err != nil {
		return err
	}
	walk, err := wal.WalkSegment(f, n, wal.SegmentSize(f.Size()), wal.WalkerOptions{})
	if err == nil && walk.Status != wal.Complete {
		err = fmt.Errorf("%s: %s", n, walk.Reason)
	}
	return err
}
