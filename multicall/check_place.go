package multicall

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/archive/remote"
	"pitr/archive/wal"
)

// connection connects to an archive on another host, and tells how long each
// step took. It is false if nothing more can be looked at.
func (c *checkup) connection(ctx context.Context, what string, dir files.FS) bool {
	f, far := dir.(*remote.FS)
	if !far {
		return true
	}
	is, err := f.Connection(ctx)
	if err != nil {
		c.add(critical, what, firstHint(err, ""), "%v", err)
		return false
	}
	c.ok(what, "connected in %s", stepsOf(is.Steps))
	if !is.Syncs {
		c.add(warning, what, "use a server that can (OpenSSH since 6.5)", "the server cannot sync what it stores, and allow_no_fsync accepts that: a loss of power there can lose WAL")
	}
	if !is.Links {
		c.add(warning, what, "use a server that can (OpenSSH)", "the server makes no hard links: that nothing is replaced depends on its RENAME alone")
	}
	return true
}

// stepsOf lists the parts of a connection, and the whole.
func stepsOf(steps []remote.Step) string {
	var whole time.Duration
	var parts []string
	for _, s := range steps {
		whole += s.Took
		parts = append(parts, fmt.Sprintf("%s %s", s.Name, milliseconds(s.Took)))
	}
	return fmt.Sprintf("%s: %s", milliseconds(whole), strings.Join(parts, ", "))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// place looks at the disk that an archive lies on: its room, and whether it is
// that of the data. One on another host is not.
func (c *checkup) place(ctx context.Context, what string, dir files.FS, segment wal.SegmentSize) (dev uint64) {
	switch d := dir.(type) {
	case *remote.FS:
		c.rights(ctx, what, d)
		free, known, err := d.Space(ctx)
		switch {
		case err != nil:
			c.add(warning, what, "", "%v", err)
		case !known:
			c.add(warning, what, "watch it there", "the server does not tell how much is free")
		default:
			c.room(what, free, int64(segment))
		}
		return 0
	case local.FS:
		return c.disk(ctx, what, d, segment)
	}
	return 0
}

// rights looks who may change the archive.
func (c *checkup) rights(ctx context.Context, what string, dir *remote.FS) {
	const others = 0o002
	info, err := dir.Stat(ctx, ".")
	if err == nil && info.Mode().Perm()&others != 0 {
		c.add(warning, what, "chmod o-w that directory", "everybody on its host can write to the archive (mode %04o)", info.Mode().Perm())
	}
}

// disk looks at a disk of this host, which may hang.
func (c *checkup) disk(ctx context.Context, what string, dir local.FS, segment wal.SegmentSize) (dev uint64) {
	type seen struct {
		free int64
		dev  uint64
		err  error
	}
	got := make(chan seen, 1)
	go func() {
		free, dev, err := dir.Space()
		got <- seen{free, dev, err}
	}()
	select {
	case <-ctx.Done():
		c.add(critical, what, "", "%v", context.Cause(ctx))
	case s := <-got:
		if s.err != nil {
			c.add(critical, what, "", "%v", s.err)
			return 0
		}
		c.room(what, s.free, int64(segment))
		return s.dev
	}
	return 0
}
