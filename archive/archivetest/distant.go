package archivetest

import (
	"context"
	"errors"

	"pitr/archive/files"
)

// Distant makes a file system one that lies on another host, for those who ask
// such a one several things at the same time.
type Distant struct{ files.FS }

var _ files.Far = Distant{}

// SyncLater syncs when it is time.
func (d Distant) SyncLater(_ context.Context, names ...string) (sync func(context.Context) error, drop func()) {
	sync = func(ctx context.Context) error {
		var errs []error
		for _, name := range names {
			errs = append(errs, d.Sync(ctx, name))
		}
		return errors.Join(errs...)
	}
	return sync, func() {}
}
