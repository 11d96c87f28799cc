package wal

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// TimelineID numbers a timeline. 1 is what initdb makes; 0 is none.
type TimelineID uint32

// LSN is a position in the WAL: a number of bytes since its imagined beginning.
type LSN uint64

// String writes an LSN as PostgreSQL does: 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText is String, for logs and JSON.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLSN.
func (l *LSN) UnmarshalText(b []byte) error {
	parsed, err := ParseLSN(string(b))
	if err == nil {
		*l = parsed
	}
	return err
}

// ParseLSN reads what PostgreSQL's type pg_lsn reads: two hexadecimal numbers
// of one to eight digits with a slash between them.
func ParseLSN(s string) (LSN, error) {
	high, low, found := strings.Cut(s, "/")
	h, okHigh := parseHex(high)
	l, okLow := parseHex(low)
	if !found || !okHigh || !okLow {
		return 0, fmt.Errorf("%.32q is not an LSN like 16/B374D848", s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

func parseHex(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 16, 32) // digits only: no sign, no 0x, no _
	return uint32(n), err == nil && len(s) <= 8
}

// SegmentSize is the size of a WAL segment in bytes, as initdb --wal-segsize
// set it for the cluster.
type SegmentSize int64

// The sizes that PostgreSQL knows.
const (
	DefaultSegmentSize SegmentSize = 16 << 20
	smallestSegment    SegmentSize = 1 << 20
	largestSegment     SegmentSize = 1 << 30
)

// Valid returns an error unless s is a power of two from 1 MiB to 1 GiB
// (xlog_internal.h, IsValidWalSegSize).
func (s SegmentSize) Valid() error {
	if s < smallestSegment || s > largestSegment || bits.OnesCount64(uint64(s)) != 1 {
		return fmt.Errorf("segment size %d is not a power of two from 1 MiB to 1 GiB: %w", int64(s), errSize)
	}
	return nil
}

var errSize = errors.New("no segment size of PostgreSQL")

// SegmentNumber counts segments from the beginning of the WAL. It says nothing
// of timelines.
type SegmentNumber uint64

// SegmentOf returns the segment that holds the byte at l. The end of a segment
// belongs to the next one. s must be valid.
func (s SegmentSize) SegmentOf(l LSN) SegmentNumber { return SegmentNumber(uint64(l) / uint64(s)) }

// Start returns the LSN of a segment's first byte. s must be valid.
func (s SegmentSize) Start(n SegmentNumber) LSN { return LSN(uint64(n) * uint64(s)) }

// PerLogID returns how many segments share the middle eight digits of their
// names, that is, make up 4 GiB. s must be valid.
func (s SegmentSize) PerLogID() uint64 { return 1 << 32 / uint64(s) }
