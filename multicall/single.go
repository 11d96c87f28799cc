package multicall

import (
	"context"
	"fmt"
)

// single runs what may hang in the system, where nothing ends it. As long as one
// run hangs no other begins. One goroutine uses it at a time.
type single[T any] struct {
	running chan finished[T] // nil: none
}

type finished[T any] struct {
	value T
	err   error
}

// do runs work, and comes back when ctx ends: work may still be at it then.
func (s *single[T]) do(ctx context.Context, work func(context.Context) (T, error)) (T, error) {
	for {
		began := s.running == nil
		if began {
			running := make(chan finished[T], 1)
			s.running = running
			go func() {
				value, err := work(ctx)
				running <- finished[T]{value, err}
			}()
		}
		select {
		case o := <-s.running:
			s.running = nil
			if began {
				return o.value, o.err
			} // else it tells what was true long ago
		case <-ctx.Done():
			var none T
			return none, fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
}
