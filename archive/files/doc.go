// Package files is the store written once over a small file system: the
// durability protocol of docs/format.md ("Putting a file") in terms of eight
// operations that a local disk and an SFTP server both have.
//
// What it promises: a Put that returned nil is found, whole, after a loss of
// power; nothing that stands is ever replaced; a Put that failed leaves nothing
// under the final name, or all of it. Temporary names begin with TempPrefix and
// carry who made them; a writer removes those of dead writers only with proof.
//
// It knows nothing of WAL, of compression or of what an archive is.
package files

import (
	"context"
	"io"
	"io/fs"
)

// FS is a tree of files below one root. Names are slash-separated, relative to
// the root and valid by fs.ValidPath; "." is the root. Errors match
// fs.ErrNotExist and fs.ErrExist where the file system said so, and never
// otherwise. Goroutines may share an FS.
type FS interface {
	// Create makes a new file. fs.ErrExist if the name is taken.
	Create(ctx context.Context, name string) (File, error)
	// Open opens a regular file for reading.
	Open(ctx context.Context, name string) (Object, error)
	Stat(ctx context.Context, name string) (fs.FileInfo, error)
	// ReadDir lists a directory, in any order.
	ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error)
	// Mkdir makes one directory; its parent must be there. "." makes the root.
	Mkdir(ctx context.Context, name string) error
	// Publish moves a file to a free name, in one atomic step. fs.ErrExist,
	// and nothing changed, if the name is taken.
	Publish(ctx context.Context, from, to string) error
	Remove(ctx context.Context, name string) error
	// Sync makes the content of a file, or the names in a directory, durable.
	Sync(ctx context.Context, name string) error
}

// Far is an FS on another host: each question takes as long as the way there and
// back.
type Far interface {
	FS
	// SyncLater gets ready to sync several names. sync does it, at the same
	// time: to what they are when SyncLater is called, or, if a name is missing
	// then, to what it is when sync is called. drop is called in the end, whether
	// sync was or not.
	SyncLater(ctx context.Context, names ...string) (sync func(context.Context) error, drop func())
}

// File is a new file being written.
type File interface {
	io.Writer
	// Sync makes what was written durable.
	Sync() error
	Close() error
}

// Object is a stored file open for reading. The caller closes it.
type Object = interface {
	io.ReaderAt
	io.Closer
	// Size is the file's size in bytes when it was opened.
	Size() int64
}
