package archive

import "pitr/archive/wal"

// walker walks the records of a segment that passes by. For other kinds of
// files it does nothing and finds nothing wrong.
type walker struct {
	name wal.Name
	size wal.SegmentSize
	opts wal.WalkerOptions
	w    *wal.Walker
}

func newWalkerFor(name wal.Name, size wal.SegmentSize) *walker {
	return &walker{name: name, size: size}
}

func (k *walker) Write(p []byte) (int, error) {
	if !hasRecords(k.name) {
		return len(p), nil
	}
	if k.w == nil {
		k.w = wal.NewWalker(k.name, k.size, k.opts)
	}
	return k.w.Write(p)
}

func (k *walker) finish() wal.Walk {
	if k.w == nil {
		return wal.Walk{Status: wal.Complete}
	}
	return k.w.Finish()
}
