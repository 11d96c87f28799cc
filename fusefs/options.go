package fusefs

import (
	"errors"
	"log/slog"
	"time"

	"pitr/archive"
)

// OnError is what a reader gets while an archive cannot be asked.
type OnError int

const (
	// Block keeps the reader waiting, and asks again until Options.Retry is
	// over; then EIO.
	Block OnError = iota
	// Fail is EIO after the first try.
	Fail
)

// ErrCacheInUse is what Mount says of a directory that belongs to another mount.
var ErrCacheInUse = errors.New("another mount uses it")

// ErrCacheUnsafe is what Mount says of a directory that another user owns or may write
// to: what is in it is what PostgreSQL replays.
var ErrCacheUnsafe = errors.New("another user could put files into it")

// CacheOptions say where verified segments are kept. They are raw, and named
// after their content; a later mount uses what it finds.
type CacheOptions struct {
	// Dir is an absolute path; it is made, with mode 0700, if it is missing.
	// It belongs to one mount at a time, and may be emptied or deleted at any
	// moment, also while it is mounted.
	Dir string
	// Bytes is how large the files in it may become, with what is being fetched;
	// 0 is 1 GiB. Only what readers hold open can be more.
	Bytes int64
}

// Options say how an archive is shown.
type Options struct {
	// Archives are asked in this order.
	Archives archive.Set
	// Known is what Ask found out about Archives; nil: Mount asks them.
	Known   *Known
	Cache   CacheOptions
	OnError OnError
	// Retry is how long Block asks again; 0 is 10 minutes.
	Retry time.Duration
	// Ahead is how many segments are fetched ahead behind one that is read in
	// sequence; 0 is 4, negative is none.
	Ahead int
	// AllowOther lets other users in than the one who mounts.
	AllowOther bool
	// UID and GID own every file.
	UID, GID uint32
	// Source is what mount(8) shows as mounted: the URL or the configuration
	// file.
	Source string
	// Version is shown in .pitr/identity.json.
	Version string
	// Log gets what an operator should know; nil drops it.
	Log *slog.Logger
}

// MemoryLimit is what a process that serves one mount should give the Go runtime
// (runtime/debug.SetMemoryLimit): a listing of 100,000 segments leaves much to collect.
const MemoryLimit = 96 << 20

const (
	defaultRetry = 10 * time.Minute
	defaultAhead = 4
	defaultCache = 1 << 30
)

func (o Options) withDefaults() Options {
	if o.Retry == 0 {
		o.Retry = defaultRetry
	}
	if o.Ahead == 0 {
		o.Ahead = defaultAhead
	}
	if o.Cache.Bytes == 0 {
		o.Cache.Bytes = defaultCache
	}
	if o.Source == "" {
		o.Source = "pitr"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
