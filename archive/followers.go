package archive

import (
	"context"
	"fmt"

	"pitr/archive/wal"
)

// askByName asks, one by one, for what would show that a missing file once was. A
// listing may be cut short without a word: over SFTP an error of the far disk looks
// like its end. Empty if nothing is there.
func (v view) askByName(ctx context.Context, name wal.Name) (evidence string, err error) {
	witnesses, err := v.witnesses(name)
	if err != nil {
		return "", err
	}
	found := make([]string, len(witnesses))
	var questions []func() error
	for i, w := range witnesses {
		questions = append(questions, func() error {
			_, err := v.store.Stat(ctx, v.id.path(w))
			switch {
			case isAbsent(err):
				return nil
			case err == nil:
				found[i] = fmt.Sprintf("%s is there", w)
			}
			return err
		})
	}
	if err := v.together(questions...); err != nil {
		return "", err
	}
	for _, f := range found {
		if f != "" {
			return f, nil
		}
	}
	return "", nil
}

// farFollowers is how many segments after a missing one are asked for by name in
// an archive whose listings may be cut short without a word. Only a gap that is
// longer, and a listing that is cut short at the same time, go unnoticed.
const farFollowers = 32

// witnesses are names that would show that a missing one once was. Near, where a
// listing is whole or fails, the next one is enough.
func (v view) witnesses(name wal.Name) ([]wal.Name, error) {
	if name.Kind() != wal.KindSegment {
		return nil, nil
	}
	number, err := name.Number(v.id.SegmentSize)
	if err != nil {
		return nil, err
	}
	most := wal.SegmentNumber(1)
	if v.isFar() {
		most = farFollowers
	}
	all := []wal.Name{name.Partial()}
	for n := range most {
		all = append(all, wal.SegmentName(name.Timeline(), number+1+n, v.id.SegmentSize))
	}
	return all, nil
}
