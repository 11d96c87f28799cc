package multicall

import (
	"context"
	"errors"
	"fmt"

	"pitr/archive"
	"pitr/archive/wal"
)

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
