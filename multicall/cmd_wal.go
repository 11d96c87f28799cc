package multicall

import (
	"context"
	"encoding/json"
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
	Force bool     `help:"Also a segment that is not finished. Only if its server will never write to it again."`
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

// mustBeFinished refuses a segment that the server is still writing, or has
// only set apart for later: once stored it is never replaced, and the finished
// one would be a conflict. PostgreSQL marks what is finished in archive_status;
// without a mark, and where no server runs, its records have to be sound up to
// its end.
func mustBeFinished(path string) error {
	name, err := wal.ParseName(filepath.Base(path))
	if err != nil || name.Kind() != wal.KindSegment {
		return nil
	}
	dir := filepath.Dir(path)
	for _, mark := range []string{".ready", ".done"} {
		if _, err := os.Stat(filepath.Join(dir, "archive_status", name.String()+mark)); err == nil {
			return nil
		}
	}
	const advice = "SELECT pg_switch_wal() finishes the current segment, and archive_command stores it; --force stores what is there, if the server is gone for good"
	if _, err := os.Stat(filepath.Join(dir, "..", "postmaster.pid")); err == nil {
		return hint(fmt.Errorf("%w: %s: the server has not finished it", archive.ErrForeign, path), advice)
	}
	f, err := openWAL(path)
	if err != nil {
		return err
	}
	defer f.Close()
	walk, err := wal.WalkSegment(f, name, wal.SegmentSize(f.Size()), wal.WalkerOptions{})
	if err == nil && walk.Status != wal.Complete {
		err = hint(fmt.Errorf("%w: %s is not finished: at %s: %s", archive.ErrForeign, path, walk.End, walk.Reason), advice)
	}
	return err
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
	_, err = set.Fetch(s.ctx, name, getPatience, c.deliver(s))
	if errors.Is(err, fs.ErrExist) {
		return hint(err, "--force replaces it")
	}
	return err
}

// getPatience is how long `pitr wal get` waits for the next byte.
const getPatience = time.Minute

func (c *walGetCmd) deliver(s *session) archive.Deliver {
	switch {
	case c.File == "-":
		return func(write func(io.Writer) error) error { return write(s.stdout) }
	case c.File == "":
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
	Files     int          `json:"files"`
	Bytes     int64        `json:"stored_bytes"`
	Ranges    []jsonRange  `json:"ranges"`
	Gaps      []jsonGap    `json:"gaps"`
	Histories []wal.Name   `json:"histories"`
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
	Bytes   int64     `json:"stored_bytes"`
	Written time.Time `json:"written"`
}

// Run lists every chosen archive.
func (c *walListCmd) Run(s *session) error {
	var all []listed
	err := c.each(s, func(a *archive.Archive) error {
		l, err := c.list(s.ctx, a)
		if err != nil {
			return err
		}
		all = append(all, l)
		return nil
	})
	if c.JSON {
		return errors.Join(err, printJSON(s.stdout, all))
	}
	for _, l := range all {
		err = errors.Join(err, l.print(s.stdout))
	}
	return err
}

func (c *walListCmd) list(ctx context.Context, a *archive.Archive) (listed, error) {
	cover, err := a.Coverage(ctx)
	if err != nil {
		return listed{}, err
	}
	l := listed{Archive: a.Name(), Files: cover.Files, Bytes: cover.Bytes, Histories: cover.Histories, Ranges: []jsonRange{}, Gaps: []jsonGap{}}
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
		if err != nil {
			return nil, err
		}
		files = append(files, storedFile{e.Name, info.Size(), info.ModTime().UTC()})
	}
	return files, nil
}

func (l listed) print(w io.Writer) error {
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
	return t.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// walQuarantineCmd is `pitr wal quarantine`.
type walQuarantineCmd struct {
	onlyFlag
	Name  string `arg:"" help:"Name of the damaged file."`
	Force bool   `help:"Set it aside although it is sound."`
}

// Run sets the file aside in every chosen archive in which it is damaged.
func (c *walQuarantineCmd) Run(s *session) error {
	name, err := wal.ParseName(c.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	return c.each(s, func(a *archive.Archive) error {
		if err := c.deserves(s.ctx, a, name); err != nil {
			return err
		}
		to, err := a.Quarantine(s.ctx, name)
		if err == nil {
			fmt.Fprintf(s.stdout, "%s: %s is now %s\n", a.Name(), name, to)
		}
		return err
	})
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
