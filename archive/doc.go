// Package archive is what an archive is: its identity, where each file of
// PostgreSQL lies in it, and what may be said about it. docs/format.md is its
// specification.
//
// What it promises:
//
//   - Push returns nil only if the archive holds this very file, verified where
//     it was found and durable in either case, and it never replaces anything.
//   - An Intake promises of each file what Push does, for many at a time: Stage
//     them side by side, Publish in order, Settle together. What was not settled
//     was not promised.
//   - Fetch returns nil only for a verified file, and ErrAbsent only with proof.
//     Whatever is neither is another error: a doubt.
//
// It reads no configuration and knows no store: the caller brings one. It does
// not decide what PostgreSQL is told; that is package standby's policy.
package archive

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// Store is where an archive lies. Package files has it for everything that is
// like a file system. Names are slash-separated and relative. Errors match
// fs.ErrNotExist and fs.ErrExist only where the far side said so.
type Store interface {
	// Put stores a file durably, all or nothing. fs.ErrExist if the name is
	// taken. Until then the file lies in the top directory of its name, or in
	// .tmp-pending if it has none, under a temporary name.
	Put(ctx context.Context, name string, write func(io.Writer) error) error
	// Sync makes a file that was found as durable as one that was put.
	Sync(ctx context.Context, name string) error
	Open(ctx context.Context, name string) (Object, error)
	Stat(ctx context.Context, name string) (fs.FileInfo, error)
	// List lists a directory in any order, without temporary files.
	List(ctx context.Context, dir string) ([]fs.DirEntry, error)
	// Move gives a file another, free name.
	Move(ctx context.Context, from, to string) error
	Remove(ctx context.Context, name string) error
	// Sweep removes temporary files of writers proven dead, and those older
	// than cutoff unless it is zero; it returns their names.
	Sweep(ctx context.Context, dir string, cutoff time.Time) ([]string, error)
}

// Object is a stored file open for reading.
type Object = interface {
	io.ReaderAt
	io.Closer
	Size() int64
}
