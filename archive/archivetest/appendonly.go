package archivetest

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"pitr/archive/files"
)

// AppendOnly is a file system to which files can be added, and nothing else be
// done: only temporary names can be created, published or removed.
type AppendOnly struct{ files.FS }

var _ files.FS = AppendOnly{}

func onlyTemporary(op, name string) error {
	if strings.HasPrefix(path.Base(name), files.TempPrefix) {
		return nil
	}
	return fmt.Errorf("%s %s: append-only: %w", op, name, fs.ErrPermission)
}

func (a AppendOnly) Create(ctx context.Context, name string) (files.File, error) {
	if err := onlyTemporary("create", name); err != nil {
		return nil, err
	}
	return a.FS.Create(ctx, name)
}

func (a AppendOnly) Publish(ctx context.Context, from, to string) error {
	if err := onlyTemporary("rename", from); err != nil {
		return err
	}
	return a.FS.Publish(ctx, from, to)
}

func (a AppendOnly) Remove(ctx context.Context, name string) error {
	if err := onlyTemporary("remove", name); err != nil {
		return err
	}
	return a.FS.Remove(ctx, name)
}
