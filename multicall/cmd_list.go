package multicall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

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
