package multicall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
	"pitr/standby"
)

// restoreCommandCLI is the command line of restore_command.
type restoreCommandCLI struct {
	settingFlags
	VersionFlag kong.VersionFlag `name:"version" help:"Print the version."`

	Name    string `arg:"" help:"The file that is wanted: PostgreSQL's %f."`
	Dest    string `arg:"" help:"Where to put it: PostgreSQL's %p."`
	Restart string `arg:"" optional:"" help:"PostgreSQL's %r. Nothing is removed: pitr wal prune does that."`
}

// runRestoreCommand is restore_command.
func runRestoreCommand(ctx context.Context, c *call) error {
	if err := c.restorePlainly(ctx); !isNoAgent(err) {
		return c.restored(err)
	}
	var cli restoreCommandCLI
	if _, err := c.parse(&cli, "Get one file from the archives, verified. Exits 1 only if it is proven absent, or in standby mode."); err != nil {
		return err
	}
	return c.restored(c.restore(ctx, &cli))
}

// restored gives an answer its status.
func (c *call) restored(err error) error {
	if errors.Is(err, archive.ErrAbsent) {
		// Routine: a standby at the end of the archive asks every few seconds.
		c.log.Debug("absent", "error", err)
		return statusTold(statusOf(err, colRestoreCommand))
	}
	return err
}

// restore gets one file for PostgreSQL, by the policy of package standby.
func (c *call) restore(ctx context.Context, cli *restoreCommandCLI) error {
	file, err := wal.ParseName(cli.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	pgdata := receivingDirectory(cli.Dest)
	r := c.restorer(pgdata)
	// Before anything that can fail: no mistake in a file may turn these answers
	// into others.
	if err := r.WithoutArchive(file); err != nil {
		return err
	}
	prepare := func() error { return c.prepare(&r, cli, pgdata) }
	if err := r.Prepare(ctx, file, prepare, hopeless); err != nil {
		return err
	}
	return r.Run(ctx, file, local.Handover(cli.Dest))
}

// restorer is the policy of a call that restores into a data directory.
func (c *call) restorer(pgdata string) standby.Restore {
	r := standby.Restore{Mode: standby.ModeOf(pgdata), Log: c.log}
	if pgdata != "" {
		r.Local = func(n wal.Name) bool { return soundIn(pgdata, n) == nil }
	}
	return r
}

// prepare reads the configuration and the cluster's identity.
func (c *call) prepare(r *standby.Restore, cli *restoreCommandCLI, pgdata string) error {
	cfg, err := c.loadConfig(&cli.settingFlags)
	if err == nil {
		err = cfg.NeedArchive()
	}
	if err != nil {
		return err
	}
	receiving := pgdata
	if pgdata == "" && isDataDirectory(cfg.PGData) {
		pgdata = cfg.PGData // whose WAL it is; nothing else is known of where it goes
	}
	cluster, err := clusterOf(pgdata)
	if err != nil {
		return err
	}
	set := cfg.archives(cfg.readFrom(), cluster, c.log)
	r.From, r.Retry = c.fetcherFor(cfg, cli, receiving, r.Mode, set), cfg.RestoreRetry
	return nil
}

// hopeless tells whether a configuration has to be mended before anything else.
func hopeless(err error) bool { return errors.Is(err, ErrConfig) && !passing(err) }

// passing tells whether a configuration could not be read, which is not to say
// that there is anything wrong with it.
func passing(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// soundIn tells whether pg_wal of a data directory has a whole copy of a file
// whose every record is sound: PostgreSQL may be left to take it.
func soundIn(pgdata string, n wal.Name) error {
	f, err := openWAL(filepath.Join(pgdata, "pg_wal", n.String()))
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
	cluster, err := clusterOf(pgdata)
	if err != nil {
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
