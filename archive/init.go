package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Init makes the empty directory of a store an archive. The fields that Init
// chooses (Format, ID) are set in what it returns. It is an error if anything is there
// already (ErrExists, ErrNotEmpty), but an Init that did not finish is finished by the next
// one, and a flat archive may begin in a directory with raw WAL of its cluster.
func Init(ctx context.Context, store Store, id Identity) (Identity, error) {
	id.Format, id.ID = format, newID()
	if err := id.valid(); err != nil {
		return Identity{}, err
	}
	err := mustBeEmpty(ctx, store, id.Layout)
	if errors.Is(err, ErrNotEmpty) && id.Layout == Flat {
		err = adopt(ctx, store, id, err)
	}
	if err != nil {
		return Identity{}, err
	}
	if id.Layout == Tree {
		chosen, err := putMarker(ctx, store, id.ID)
		if err != nil {
			return Identity{}, err
		}
		id.ID = chosen
	}
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return Identity{}, err
	}
	// Last: from here on this is an archive.
	err = putSmall(ctx, store, identityFile, append(raw, '\n'))
	if errors.Is(err, fs.ErrExist) {
		return id, mustBeOurs(ctx, store, raw)
	}
	if err == nil {
		// Empty, or of another init that is at work: then it stays.
		_ = store.Remove(ctx, pendingDirectory)
	}
	return id, err
}

// mustBeOurs tells whether archive.json is the one that this Init has put: NFS
// may say that a name is taken when it was taken by the first of two attempts.
func mustBeOurs(ctx context.Context, store Store, raw []byte) error {
	found, err := readSmall(ctx, store, identityFile)
	if err == nil && !bytes.Equal(found, append(raw, '\n')) {
		err = ErrExists
	}
	return errors.Join(err, store.Sync(ctx, identityFile))
}

// ErrExists says that a directory is an archive already.
var ErrExists = errors.New("it is an archive already")

// ErrNotEmpty says that a directory holds something, and is no archive.
var ErrNotEmpty = errors.New("the directory is not empty")

// mustBeEmpty accepts what an empty file system and an unfinished Init hold.
func mustBeEmpty(ctx context.Context, store Store, layout Layout) error {
	entries, err := store.List(ctx, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case identityFile:
			// Whoever made it may have died before it was durable.
			return errors.Join(ErrExists, store.Sync(ctx, identityFile))
		case "lost+found":
		case walDirectory:
			if layout != Tree {
				return notEmpty(walDirectory)
			}
			err = errors.Join(err, mustBeUnfinished(ctx, store))
		default:
			err = errors.Join(err, notEmpty(e.Name()))
		}
	}
	return err
}

func mustBeUnfinished(ctx context.Context, store Store) error {
	entries, err := store.List(ctx, walDirectory)
	for _, e := range entries {
		if e.Name() != markerFile && e.Name() != "lost+found" {
			return notEmpty(path.Join(walDirectory, e.Name()))
		}
	}
	return err
}

func notEmpty(name string) error {
	return hinted{
		fmt.Errorf("%w: it holds %s", ErrNotEmpty, name),
		"an archive begins in an empty or new directory; another cluster's files, or another form, need another one",
	}
}

// putMarker puts the id into wal/, or returns the one that an unfinished Init
// has put there.
func putMarker(ctx context.Context, store Store, id string) (string, error) {
	marker := path.Join(walDirectory, markerFile)
	err := putSmall(ctx, store, marker, []byte(id+"\n"))
	if !errors.Is(err, fs.ErrExist) {
		return id, err
	}
	found, err := readSmall(ctx, store, marker)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(found)), store.Sync(ctx, marker)
}
