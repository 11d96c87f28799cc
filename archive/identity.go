package archive

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"time"

	"pitr/archive/wal"
)

const (
	identityFile = "archive.json"
	format       = 1

	// largestSmallFile bounds what is read of a file that ought to be small.
	largestSmallFile = 1 << 20
)

// Layout says where the files of PostgreSQL lie in an archive.
type Layout string

// Tree has a directory for each 4 GB of WAL of a timeline; Flat is one
// directory of raw files under PostgreSQL's own names.
const (
	Tree Layout = "tree"
	Flat Layout = "flat"
)

// Codec says how the files in an archive are stored.
type Codec string

// Zstd is the seekable form of package codec; None is the raw bytes.
const (
	Zstd Codec = "zstd"
	None Codec = "none"
)

// Identity is archive.json: whose WAL this archive holds, and in which form. It
// is written once, by Init.
type Identity struct {
	Format      int
	Requires    []string
	ID          string // 128 random bits in hexadecimal
	SystemID    uint64
	Major       int
	SegmentSize wal.SegmentSize
	Layout      Layout
	Codec       Codec
	Created     time.Time
	CreatedBy   string
}

// identityJSON is Identity as it is stored. The system identifier is a string:
// readers of JSON may round a number that large.
type identityJSON struct {
	Format      int             `json:"format"`
	Requires    []string        `json:"requires"`
	ID          string          `json:"id"`
	SystemID    string          `json:"system_identifier"`
	Major       int             `json:"postgres_major"`
	SegmentSize wal.SegmentSize `json:"segment_size"`
	Layout      Layout          `json:"layout"`
	Codec       Codec           `json:"codec"`
	Created     time.Time       `json:"created"`
	CreatedBy   string          `json:"created_by"`
}

// MarshalJSON gives archive.json as docs/format.md has it.
func (id Identity) MarshalJSON() ([]byte, error) {
	return json.Marshal(identityJSON{
		Format: id.Format, Requires: append([]string{}, id.Requires...), ID: id.ID,
		SystemID: strconv.FormatUint(id.SystemID, 10), Major: id.Major, SegmentSize: id.SegmentSize,
		Layout: id.Layout, Codec: id.Codec, Created: id.Created, CreatedBy: id.CreatedBy,
	})
}

// ParseIdentity reads archive.json. It reports ErrIdentity for one that this
// version must not touch, and ErrDamaged for one that makes no sense.
func ParseIdentity(b []byte) (Identity, error) {
	var j identityJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Identity{}, fmt.Errorf("%s: %w: %w", identityFile, ErrDamaged, err)
	}
	if j.Format != format || len(j.Requires) > 0 {
		return Identity{}, tooNew(fmt.Sprintf("format %d, requires %q", j.Format, j.Requires))
	}
	if _, known := wal.MagicOf(j.Major); !known {
		return Identity{}, tooNew(fmt.Sprintf("PostgreSQL %d", j.Major))
	}
	systemID, err := strconv.ParseUint(j.SystemID, 10, 64)
	if err != nil || systemID == 0 {
		return Identity{}, fmt.Errorf("%s: system identifier %q: %w", identityFile, j.SystemID, ErrDamaged)
	}
	id := Identity{
		Format: j.Format, Requires: j.Requires, ID: j.ID, SystemID: systemID, Major: j.Major,
		SegmentSize: j.SegmentSize, Layout: j.Layout, Codec: j.Codec, Created: j.Created, CreatedBy: j.CreatedBy,
	}
	if err := id.valid(); err != nil {
		return Identity{}, fmt.Errorf("%s: %w: %w", identityFile, ErrDamaged, err)
	}
	return id, nil
}

// tooNew refuses what only a later version understands.
func tooNew(what string) error {
	return hinted{
		fmt.Errorf("%w: this version of pitr does not know what it needs: %s", ErrIdentity, what),
		"a newer pitr made or changed this archive; use that version or a later one here too",
	}
}

// valid tells whether every field has a value that docs/format.md allows.
func (id Identity) valid() error {
	if err := id.SegmentSize.Valid(); err != nil {
		return err
	}
	if _, known := wal.MagicOf(id.Major); !known {
		return fmt.Errorf("PostgreSQL %d is not one of 13 to 18", id.Major)
	}
	if id.SystemID == 0 {
		return errors.New("system identifier 0 is no cluster's")
	}
	if raw, err := hex.DecodeString(id.ID); err != nil || len(raw) != 16 {
		return fmt.Errorf("id %q is not 32 hexadecimal digits", id.ID)
	}
	switch {
	case id.Layout != Tree && id.Layout != Flat:
		return fmt.Errorf("layout %q is neither tree nor flat", id.Layout)
	case id.Codec != Zstd && id.Codec != None:
		return fmt.Errorf("codec %q is neither zstd nor none", id.Codec)
	case id.Layout == Flat && id.Codec != None:
		return errors.New("layout flat holds raw files only: codec must be none")
	}
	return nil
}

// Cluster is what is known of the cluster on this side, from its pg_control. A
// zero field is not known and fits everything.
type Cluster struct {
	SystemID    uint64
	Major       int
	SegmentSize wal.SegmentSize
}

// fits tells whether an archive is this cluster's.
func (id Identity) fits(c Cluster) error {
	switch {
	case c.SystemID != 0 && c.SystemID != id.SystemID:
		return hinted{
			fmt.Errorf("%w: it belongs to system identifier %d, this cluster has %d", ErrIdentity, id.SystemID, c.SystemID),
			"is this server's configuration a copy of another one's? After pg_upgrade or initdb, make a new archive with pitr init in a new directory",
		}
	case c.Major != 0 && c.Major != id.Major:
		return fmt.Errorf("%w: it holds WAL of PostgreSQL %d, this cluster is %d", ErrIdentity, id.Major, c.Major)
	case c.SegmentSize != 0 && c.SegmentSize != id.SegmentSize:
		return fmt.Errorf("%w: its segments have %d bytes, this cluster's have %d", ErrIdentity, id.SegmentSize, c.SegmentSize)
	}
	return nil
}

// newID returns 128 random bits in hexadecimal.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// readSmall reads a whole small file, or reports the store's own error.
func readSmall(ctx context.Context, store Store, name string) ([]byte, error) {
	f, err := store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > largestSmallFile {
		return nil, fmt.Errorf("%s has %d bytes: %w", name, f.Size(), ErrDamaged)
	}
	b := make([]byte, f.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// putSmall puts a whole small file.
func putSmall(ctx context.Context, store Store, name string, b []byte) error {
	return store.Put(ctx, name, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
