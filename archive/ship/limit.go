package ship

import (
	"context"
	"errors"
	"fmt"

	"pitr/archive"
)

// Limit bounds what a queue takes. What is over it is refused with ErrFull, and
// what waits already stays; 0 is no bound. Of several calls at once each may be
// the last one that fits.
type Limit struct {
	// Bytes is how much may wait in each queue.
	Bytes int64
	// Free is how much must stay free on the file system of the queues.
	Free int64
}

// ErrFull: a file was not queued, for it would go over a limit.
var ErrFull = errors.New("the queue is full")

// fits is ErrFull if the call's file would take the queue over its limit. half
// tells that it takes it over the half.
func (l *lane) fits(ctx context.Context) (half bool, err error) {
	most := l.Limit.Bytes
	if most == 0 {
		return false, nil
	}
	before, known := l.desk.bytes()
	if !known {
		q, err := l.waiting(ctx)
		if err != nil {
			return false, fmt.Errorf("read its queue: %w", err)
		}
		before = q.bytes
	}
	after := before + l.src.Size()
	if after > most {
		return false, archive.WithHint(fmt.Errorf("%w: %s wait, and queue_max is %s", ErrFull, megabytes(before), megabytes(most)),
			"PostgreSQL keeps the file and asks again: mend the destination, or raise queue_max")
	}
	return before <= most/2 && after > most/2, nil
}

// room is ErrFull if so many bytes more would leave too little free.
func (s *Shipper) room(bytes int64) error {
	if s.Limit.Free == 0 {
		return nil
	}
	free, _, err := s.Disk.Space()
	switch {
	case err != nil:
		return err
	case free-bytes < s.Limit.Free:
		return archive.WithHint(fmt.Errorf("%w: %s are free on the disk of the queues, of which queue_min_free keeps %s", ErrFull, megabytes(free), megabytes(s.Limit.Free)),
			"PostgreSQL keeps the file and asks again: mend the destination, or make room in l_archivedir")
	}
	return nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
