package archive

import (
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
// already, but an Init that did not finish is finished by the next one.
func Init(ctx context.Context, store Store, id Identity) (Identity, error) {
	id.Format, id.ID = format, newID()
	if err := id.valid(); err != nil {
		return Identity{}, err
	}
	if err := mustBeEmpty(ctx, store); err != nil {
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
		return Identity{}, errAlready
	}
	return id, err
}

var errAlready = errors.New("it is an archive already")

// mustBeEmpty accepts what an empty file system and an unfinished Init hold.
func mustBeEmpty(ctx context.Context, store Store) error {
	entries, err := store.List(ctx, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case identityFile:
			// Whoever made it may have died before it was durable.
			return errors.Join(errAlready, store.Sync(ctx, identityFile))
		case "lost+found":
		case walDirectory:
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
		if e.Name() != markerFile {
			return notEmpty(path.Join(walDirectory, e.Name()))
		}
	}
	return err
}

func notEmpty(name string) error {
	return hinted{
		fmt.Errorf("the directory is not empty: it holds %s", name),
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
