package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
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
	return push(s.ctx, s.cfg, s.log, path)
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

// walListCmd is `pitr wal list`.
type walListCmd struct {
	onlyFlag
	Files bool `help:"List every file, not ranges."`
	JSON  bool `name:"json" help:"Print JSON."`
}

// listed is one archive as --json shows it.
type listed struct {
	Archive   string       `json:"archive"`
	Error     string       `json:"error,omitempty"`
	Files     int          `json:"files"`
	Bytes     int64        `json:"stored_bytes"`
	Ranges    []jsonRange  `json:"ranges"`
	Gaps      []jsonGap    `json:"gaps"`
	Histories []wal.Name   `json:"histories"`
	Missing   []wal.Name   `json:"missing_histories"`
	Stored    []storedFile `json:"stored,omitempty"`
}

type jsonRange struct {
	Timeline wal.TimelineID `json:"timeline"`
	First    wal.Name       `json:"first"`
	Last     wal.Name       `json:"last"`
	Segments int            `json:"segments"`
	Bytes    int64          `json:"stored_bytes"`
}

type jsonGap struct {
	Timeline wal.TimelineID `json:"timeline"`
	First    wal.Name       `json:"first"`
	Last     wal.Name       `json:"last"`
	Segments int            `json:"segments"`
}

type storedFile struct {
	Name    wal.Name  `json:"name"`
	Stored  string    `json:"stored"`
	Bytes   int64     `json:"stored_bytes"`
	Written time.Time `json:"written"`
}

// Run lists every chosen archive.
func (c *walListCmd) Run(s *session) error {
	all := []listed{}
	err := c.each(s, func(a *archive.Archive) error {
		l, err := c.list(s.ctx, a)
		if err != nil {
			l = listed{Archive: a.Name(), Error: err.Error()}
		}
		all = append(all, l)
		return err
	})
	if c.JSON {
		return errors.Join(err, printJSON(s.stdout, ofArchives[listed]{all}))
	}
	for _, l := range all {
		err = errors.Join(err, l.print(s.stdout))
	}
	return err
}

// ofArchives is what --json prints of several archives.
type ofArchives[T any] struct {
	Archives []T `json:"archives"`
}

func (c *walListCmd) list(ctx context.Context, a *archive.Archive) (listed, error) {
	cover, err := a.Coverage(ctx)
	if err != nil {
		return listed{}, err
	}
	l := listed{
		Archive: a.Name(), Files: cover.Files, Bytes: cover.Bytes, Ranges: []jsonRange{}, Gaps: []jsonGap{},
		Histories: append([]wal.Name{}, cover.Histories...), Missing: append([]wal.Name{}, cover.MissingHistories...),
	}
	for _, r := range cover.Ranges {
		l.Ranges = append(l.Ranges, jsonRange(r))
	}
	for _, g := range cover.Gaps {
		l.Gaps = append(l.Gaps, jsonGap(g))
	}
	if c.Files {
		l.Stored, err = storedFiles(ctx, a)
	}
	return l, err
}

func storedFiles(ctx context.Context, a *archive.Archive) ([]storedFile, error) {
	entries, err := a.List(ctx)
	if err != nil {
		return nil, err
	}
	files := []storedFile{}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		files = append(files, storedFile{e.Name, e.Stored, info.Size(), info.ModTime().UTC()})
	}
	return files, nil
}

func (l listed) print(w io.Writer) error {
	if l.Error != "" {
		return nil // told on standard error
	}
	fmt.Fprintf(w, "%s: %s, %s\n", l.Archive, count(l.Files, "file"), formatSize(l.Bytes))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range l.Stored {
		fmt.Fprintf(t, "  %s\t%d\t%s\n", f.Name, f.Bytes, f.Written.Format(time.RFC3339))
	}
	if l.Stored == nil {
		for _, r := range l.Ranges {
			fmt.Fprintf(t, "  timeline %d\t%s to %s\t%s\t%s\n", r.Timeline, r.First, r.Last, count(r.Segments, "segment"), formatSize(r.Bytes))
		}
		for _, h := range l.Histories {
			fmt.Fprintf(t, "  timeline %d\t%s\n", h.Timeline(), h)
		}
	}
	for _, g := range l.Gaps {
		fmt.Fprintf(t, "  timeline %d\tGAP: %s\n", g.Timeline, archive.Gap(g))
	}
	for _, h := range l.Missing {
		fmt.Fprintf(t, "  timeline %d\tGAP: %s is missing\n", h.Timeline(), h)
	}
	return t.Flush()
}

// walQuarantineCmd is `pitr wal quarantine`.
type walQuarantineCmd struct {
	onlyFlag
	Name  string `arg:"" help:"Name of the damaged file."`
	Force bool   `help:"Set it aside although it is sound."`
}

// Run sets the file aside in every chosen archive in which it is damaged. One
// that does not have it has nothing to say, if another one has.
func (c *walQuarantineCmd) Run(s *session) error {
	name, err := wal.ParseName(c.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	moved := 0
	var absent error
	err = c.each(s, func(a *archive.Archive) error {
		err := c.deserves(s.ctx, a, name)
		if err == nil {
			var to string
			if to, err = a.Quarantine(s.ctx, name); err == nil {
				moved++
				fmt.Fprintf(s.stdout, "%s: %s is now %s\n", a.Name(), name, to)
			}
		}
		if errors.Is(err, archive.ErrAbsent) {
			absent, err = errors.Join(absent, err), nil
		}
		return err
	})
	if moved == 0 {
		err = errors.Join(err, absent)
	}
	return err
}

// deserves tells why a file must stay where it is: it is sound, or nobody can
// tell.
func (c *walQuarantineCmd) deserves(ctx context.Context, a *archive.Archive, name wal.Name) error {
	if c.Force {
		return nil
	}
	err := a.Examine(ctx, name)
	switch {
	case errors.Is(err, archive.ErrDamaged):
		return nil
	case err == nil:
		return hint(fmt.Errorf("%s: %s is sound: it stays", a.Name(), name),
			"if another file belongs under this name, --force sets this one aside; while it is away, no recovery gets past it")
	}
	return err
}
