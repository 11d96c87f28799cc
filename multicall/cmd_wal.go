package multicall

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// walCmd is `pitr wal`.
type walCmd struct {
	Push       walPushCmd       `cmd:"" help:"Store files of pg_wal, as archive_command does."`
	Get        walGetCmd        `cmd:"" help:"Get one file, verified."`
	List       walListCmd       `cmd:"" help:"List what the archives hold, and their gaps."`
	Verify     walVerifyCmd     `cmd:"" help:"Read and verify everything: digests, headers, records, gaps."`
	Prune      walPruneCmd      `cmd:"" help:"Remove old WAL."`
	Quarantine walQuarantineCmd `cmd:"" help:"Set a damaged file aside, so that the good one can be stored."`
}

// walPushCmd is `pitr wal push`.
type walPushCmd struct {
	Files []string `arg:"" help:"Files of pg_wal."`
	Force bool     `help:"Also a segment that the server has not finished."`
}

// Run pushes every file; a failure does not keep the others back.
func (c *walPushCmd) Run(s *session) error {
	var failed error
	for _, path := range c.Files {
		if err := c.push(s, path); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		fmt.Fprintf(s.stdout, "%s is stored\n", filepath.Base(path))
	}
	return failed
}

func (c *walPushCmd) push(s *session, path string) error {
	if !c.Force {
		if err := mustBeFinished(path); err != nil {
			return err
		}
	}
	return s.call.push(s.ctx, s.cfg, path)
}

// mustBeFinished refuses a segment that a running server has not marked as
// finished: it is still being written. Where no server runs, the archive looks
// at the records, and stores one that is not finished as the .partial that it
// is.
func mustBeFinished(path string) error {
	name, err := wal.ParseName(filepath.Base(path))
	if err != nil || name.Kind() != wal.KindSegment {
		return nil
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(filepath.Join(dir, "..", "postmaster.pid")); err != nil {
		return nil
	}
	for _, mark := range []string{".ready", ".done"} {
		if _, err := os.Stat(filepath.Join(dir, "archive_status", name.String()+mark)); err == nil {
			return nil
		}
	}
	return hint(fmt.Errorf("%w: %s: the server has not finished it", archive.ErrForeign, path),
		"SELECT pg_switch_wal() finishes the current segment, and archive_command stores it; --force stores it as it is")
}

// walGetCmd is `pitr wal get`.
type walGetCmd struct {
	Name  string `arg:"" help:"Name of a segment, history, .partial or .backup file."`
	File  string `arg:"" optional:"" help:"Where to put it. Default: its name, in the working directory; - is standard output."`
	Force bool   `help:"Replace a file that is there."`
}

// Run fetches without the patience of restore_command: one attempt.
func (c *walGetCmd) Run(s *session) error {
	if err := s.cfg.NeedArchive(); err != nil {
		return err
	}
	name, err := wal.ParseName(c.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	cluster, err := clusterOf(s.cfg.PGData)
	if err != nil {
		return err
	}
	set := s.cfg.archives(s.cfg.readFrom(), cluster, s.log)
	if c.File == "-" {
		return c.print(s, set, name)
	}
	_, err = set.Fetch(s.ctx, name, getPatience, c.deliver())
	if errors.Is(err, fs.ErrExist) {
		return hint(err, "--force replaces it")
	}
	return err
}

// print writes the file to standard output, once it is verified: what was
// written there cannot be taken back.
func (c *walGetCmd) print(s *session, set archive.Set, name wal.Name) error {
	dir, err := os.MkdirTemp("", "pitr-get-")
	if err != nil {
		return hint(err, "TMPDIR says where there is room")
	}
	defer os.RemoveAll(dir)
	whole := filepath.Join(dir, name.String())
	if _, err := set.Fetch(s.ctx, name, getPatience, local.Handover(whole)); err != nil {
		return err
	}
	f, err := os.Open(whole)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(s.stdout, f)
	return err
}

// getPatience is how long `pitr wal get` waits for the next byte.
const getPatience = time.Minute

func (c *walGetCmd) deliver() archive.Deliver {
	if c.File == "" {
		c.File = c.Name
	}
	if info, err := os.Stat(c.File); err == nil && info.IsDir() {
		c.File = filepath.Join(c.File, c.Name)
	}
	if c.Force {
		return local.Handover(c.File)
	}
	return local.HandoverNew(c.File)
}

// onlyFlag chooses one of several archives.
type onlyFlag struct {
	Only string `help:"Look at this one of the configured archives only." placeholder:"URL"`
}

// each calls do for every archive that is chosen.
func (o onlyFlag) each(s *session, do func(a *archive.Archive) error) error {
	if err := s.cfg.NeedArchive(); err != nil {
		return err
	}
	cluster, err := clusterOf(s.cfg.PGData)
	if err != nil {
		return err
	}
	urls := s.cfg.Archive
	if o.Only != "" {
		u, err := s.cfg.theArchive(o.Only)
		if err != nil {
			return err
		}
		urls = append(urls[:0:0], u)
	}
	var failed error
	for _, a := range s.cfg.archives(urls, cluster, s.log) {
		failed = errors.Join(failed, do(a))
	}
	return failed
}
