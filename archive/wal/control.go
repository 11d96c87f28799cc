package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrControl is matched by errors about the content of pg_control.
var ErrControl = errors.New("not a pg_control that can be relied on")

// Control is what pg_control says of a cluster (pg_control.h, ControlFileData).
type Control struct {
	SystemID       uint64
	Major          int // from PG_VERSION
	ControlVersion uint32
	CatalogVersion uint32
	State          State
	Checkpoint     LSN        // the last checkpoint's record
	Redo           LSN        // where recovery would begin
	Timeline       TimelineID // of the last checkpoint
	// MinRecovery is how far a standby must replay before it is consistent; 0 on
	// a primary.
	MinRecovery         LSN
	MinRecoveryTimeline TimelineID
	SegmentSize         SegmentSize
	BlockSize           uint32 // XLOG_BLCKSZ
}

// State is what the cluster was doing when pg_control was written.
type State uint32

// The states, in PostgreSQL's order (pg_control.h, DBState).
const (
	Startup State = iota
	ShutDown
	ShutDownInRecovery
	ShuttingDown
	InCrashRecovery
	InArchiveRecovery
	InProduction
)

// String says it in the words of pg_controldata.
func (s State) String() string {
	switch s {
	case Startup:
		return "starting up"
	case ShutDown:
		return "shut down"
	case ShutDownInRecovery:
		return "shut down in recovery"
	case ShuttingDown:
		return "shutting down"
	case InCrashRecovery:
		return "in crash recovery"
	case InArchiveRecovery:
		return "in archive recovery"
	case InProduction:
		return "in production"
	}
	return "unrecognized status code"
}

// Versions of pg_control. 1300 is that of PostgreSQL 13 to 16.
const (
	control13 = 1300
	control17 = 1700
	control18 = 1800
)

// controlVersion is PG_CONTROL_VERSION of a major version.
func controlVersion(major int) uint32 {
	switch {
	case major >= 18:
		return control18
	case major == 17:
		return control17
	}
	return control13
}

// ReadControl reads global/pg_control and PG_VERSION of a data directory of
// PostgreSQL 13 to 18. The server may be running: a read that meets a write is
// tried again, as get_controlfile in controldata_utils.c does, for a tenth of a
// second. The error matches ErrControl if the content cannot be relied on, or is
// the file system's.
func ReadControl(pgdata string) (Control, error) {
	major, err := readMajor(filepath.Join(pgdata, "PG_VERSION"))
	if err != nil {
		return Control{}, err
	}
	path := filepath.Join(pgdata, "global", "pg_control")
	c, err := readControlFile(path)
	if err != nil {
		return Control{}, err
	}
	if c.ControlVersion != controlVersion(major) {
		return Control{}, fmt.Errorf("%s: %w: version %d, but PG_VERSION says %d", path, ErrControl, c.ControlVersion, major)
	}
	c.Major = major
	return c, nil
}

func readMajor(path string) (int, error) {
	b, err := readUpTo(path, 64)
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if _, known := MagicOf(major); err != nil || !known {
		return 0, fmt.Errorf("%s: %w: %.16q is not one of %d to %d", path, ErrControl, b, oldestMajor, newestMajor)
	}
	return major, nil
}

// readControlFile tries ten times. Neither the server's writes nor reads of the
// file are atomic, so a checksum that fails may be a moment's; one that fails
// the same way twice is not.
func readControlFile(path string) (Control, error) {
	const tries, pause = 10, 10 * time.Millisecond
	var last string
	for try := 1; ; try++ {
		b, err := readUpTo(path, 64<<10)
		if err != nil {
			return Control{}, err
		}
		c, err := ParseControl(b)
		if err == nil {
			return c, nil
		}
		if try == tries || string(b) == last {
			return Control{}, fmt.Errorf("%s: %w", path, err)
		}
		last = string(b)
		time.Sleep(pause)
	}
}

// readUpTo reads a small file, and no more of it than limit bytes.
func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, err
	}
	return b, nil
}

// ParseControl reads the content of pg_control. Major, which does not stand
// there, is left 0. The error matches ErrControl.
func ParseControl(b []byte) (Control, error) {
	le := binary.LittleEndian
	if len(b) < 16 {
		return Control{}, fmt.Errorf("%w: it has %d bytes", ErrControl, len(b))
	}
	version := le.Uint32(b[8:])
	end, known := controlLength(version)
	switch {
	case !known:
		return Control{}, fmt.Errorf("%w: version %d is not of PostgreSQL %d to %d", ErrControl, version, oldestMajor, newestMajor)
	case len(b) < end+4:
		return Control{}, fmt.Errorf("%w: it has %d bytes", ErrControl, len(b))
	}
	if got, want := crc32.Checksum(b[:end], castagnoli), le.Uint32(b[end:]); got != want {
		return Control{}, fmt.Errorf("%w: its CRC-32C is %08X, it says %08X", ErrControl, got, want)
	}
	c := Control{
		SystemID:            le.Uint64(b[0:]),
		ControlVersion:      version,
		CatalogVersion:      le.Uint32(b[12:]),
		State:               State(le.Uint32(b[16:])),
		Checkpoint:          LSN(le.Uint64(b[32:])),
		Redo:                LSN(le.Uint64(b[40:])),
		Timeline:            TimelineID(le.Uint32(b[48:])),
		MinRecovery:         LSN(le.Uint64(b[136:])),
		MinRecoveryTimeline: TimelineID(le.Uint32(b[144:])),
		BlockSize:           le.Uint32(b[224:]),
		SegmentSize:         SegmentSize(le.Uint32(b[228:])),
	}
	if err := c.SegmentSize.Valid(); err != nil {
		return Control{}, fmt.Errorf("%w: %w", ErrControl, err)
	}
	return c, nil
}

// controlLength is how many bytes stand before the checksum, which is the last
// field. 18 put default_char_signedness in front of the nonce before it.
func controlLength(version uint32) (int, bool) {
	switch version {
	case control13, control17:
		return 288, true
	case control18:
		return 292, true
	}
	return 0, false
}
