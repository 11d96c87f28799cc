package multicall

import (
	"errors"
	"fmt"
	"time"

	"pitr/archive"
	"pitr/archive/wal"
)

// walPruneCmd is `pitr wal prune`.
type walPruneCmd struct {
	onlyFlag
	Before    string `help:"Keep this segment and everything after it; also a .backup or .partial name." placeholder:"NAME" xor:"limit" required:""`
	OlderThan string `name:"older-than" help:"Keep everything from the first segment on that was stored within this time." placeholder:"AGE" xor:"limit" required:""`
	DryRun    bool   `name:"dry-run" help:"Only say what would be removed."`
	JSON      bool   `name:"json" help:"Print JSON."`
}

type pruned struct {
	Archive string     `json:"archive"`
	Error   string     `json:"error,omitempty"` // the rest stayed
	DryRun  bool       `json:"dry_run"`
	Kept    wal.Name   `json:"first_kept"`
	Removed []wal.Name `json:"removed"`
	Bytes   int64      `json:"stored_bytes"`
}

// Run prunes every chosen archive.
func (c *walPruneCmd) Run(s *session) error {
	limit, err := c.limit()
	if err != nil {
		return err
	}
	all := []pruned{}
	err = c.each(s, func(a *archive.Archive) error {
		done, err := c.prune(s, a, limit)
		if err != nil {
			done.Error = err.Error()
		}
		all = append(all, done)
		return err
	})
	if c.JSON {
		return errors.Join(err, printJSON(s.stdout, ofArchives[pruned]{all}))
	}
	return err
}

func (c *walPruneCmd) limit() (archive.Limit, error) {
	if c.Before != "" {
		name, err := wal.ParseName(c.Before)
		if err == nil && name.Kind() == wal.KindHistory {
			err = fmt.Errorf("%s is not a place in the WAL", name)
		}
		if err != nil {
			return archive.Limit{}, fmt.Errorf("%w: --before: %w", ErrUsage, err)
		}
		return archive.Limit{Before: name}, nil
	}
	age, err := parseAge(c.OlderThan)
	if err != nil {
		return archive.Limit{}, fmt.Errorf("%w: --older-than: %w", ErrUsage, err)
	}
	return archive.Limit{Written: time.Now().Add(-age)}, nil
}

func (c *walPruneCmd) prune(s *session, a *archive.Archive, limit archive.Limit) (pruned, error) {
	plan, err := a.Plan(s.ctx, limit)
	if err != nil {
		return pruned{Archive: a.Name(), Removed: []wal.Name{}}, err
	}
	out := pruned{Archive: a.Name(), DryRun: c.DryRun, Kept: plan.FirstKept, Removed: prunedNames(plan.Files), Bytes: plan.Bytes}
	word := "would remove"
	if !c.DryRun {
		word = "removed"
		p := newProgress(s, "prune "+a.Name(), "files")
		n := 0
		var done archive.Pruned
		done, err = a.Prune(s.ctx, plan, func(wal.Name) { n++; p.step(n, len(plan.Files)) })
		p.end()
		out.Removed, out.Bytes = prunedNames(done.Files), done.Bytes
	}
	if !c.JSON {
		fmt.Fprintf(s.stdout, "%s: %s %s, %s; first kept: %s\n", a.Name(), word, count(len(out.Removed), "file"), formatSize(out.Bytes), out.Kept)
	}
	return out, err
}

func prunedNames(files []archive.PrunedFile) []wal.Name {
	all := []wal.Name{}
	for _, f := range files {
		all = append(all, f.Name)
	}
	return all
}
