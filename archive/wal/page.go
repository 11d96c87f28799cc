package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrTruncated, ErrForeign and ErrHeader say why a file is not the segment that
// its name promises. ErrTruncated: it has another size than a segment. ErrForeign:
// it has another system identifier, so another cluster wrote it. ErrHeader:
// everything else, such as zeros, another version's magic, another address.
var (
	ErrTruncated = errors.New("not of a segment's size")
	ErrForeign   = errors.New("another cluster's segment")
	ErrHeader    = errors.New("page header is wrong")
)

// HeaderLen is the length of the header of a segment's first page, and all of a
// segment that CheckSegment must see.
const HeaderLen = 40

const shortHeaderLen = 24

const (
	flagContinues  = 1 << iota // XLP_FIRST_IS_CONTRECORD
	flagLong                   // XLP_LONG_HEADER
	flagRemovable              // XLP_BKP_REMOVABLE
	flagOverwrites             // XLP_FIRST_IS_OVERWRITE_CONTRECORD
	flagsKnown     = flagContinues | flagLong | flagRemovable | flagOverwrites
)

// MagicOf returns the magic of the pages that a major version writes
// (XLOG_PAGE_MAGIC); false for versions other than 13 to 18.
func MagicOf(major int) (uint16, bool) {
	switch major {
	case 13:
		return 0xD106, true
	case 14:
		return 0xD10D, true
	case 15:
		return 0xD110, true
	case 16:
		return 0xD113, true
	case 17:
		return 0xD116, true
	case 18:
		return 0xD118, true
	}
	return 0, false
}

const oldestMajor, newestMajor = 13, 18

// MajorOf returns the major version that writes pages with this magic; false if
// it is none of 13 to 18.
func MajorOf(magic uint16) (int, bool) {
	for major := oldestMajor; major <= newestMajor; major++ {
		if m, _ := MagicOf(major); m == magic {
			return major, true
		}
	}
	return 0, false
}

// PageHeader is what stands at the beginning of a page. The last three fields
// are there if Long is true, as on the first page of a segment.
type PageHeader struct {
	Magic        uint16
	Info         uint16
	Timeline     TimelineID
	PageAddr     LSN
	RemainingLen uint32 // of the record that continues here
	Long         bool
	SystemID     uint64
	SegmentSize  SegmentSize
	BlockSize    uint32 // XLOG_BLCKSZ
}

// ParsePageHeader reads the header of a page from its first 40 bytes or more.
// ErrTruncated for fewer; ErrHeader for zeros, for the magic of no version from
// 13 to 18, for unknown flags, and for sizes that PostgreSQL cannot have. It
// does not ask whether the header fits a place: CheckSegment does.
func ParsePageHeader(b []byte) (PageHeader, error) {
	if len(b) < HeaderLen {
		return PageHeader{}, fmt.Errorf("%w: a page header has %d bytes, got %d", ErrTruncated, HeaderLen, len(b))
	}
	h := readPageHeader(b)
	return h, h.sound()
}

// readPageHeader needs 24 bytes, and 40 for the long form to be read.
func readPageHeader(b []byte) PageHeader {
	le := binary.LittleEndian
	h := PageHeader{
		Magic:        le.Uint16(b),
		Info:         le.Uint16(b[2:]),
		Timeline:     TimelineID(le.Uint32(b[4:])),
		PageAddr:     LSN(le.Uint64(b[8:])),
		RemainingLen: le.Uint32(b[16:]),
	}
	h.Long = h.Info&flagLong != 0
	if h.Long && len(b) >= HeaderLen {
		h.SystemID = le.Uint64(b[24:])
		h.SegmentSize = SegmentSize(le.Uint32(b[32:]))
		h.BlockSize = le.Uint32(b[36:])
	}
	return h
}

// sound tells whether PostgreSQL could have written the header somewhere. Most
// of it is XLogReaderValidatePageHeader in xlogreader.c.
func (h PageHeader) sound() error {
	_, known := MajorOf(h.Magic)
	switch {
	case h == PageHeader{}:
		return fmt.Errorf("%w: it is all zeros", ErrHeader)
	case !known:
		return fmt.Errorf("%w: magic %04X is of no PostgreSQL from %d to %d", ErrHeader, h.Magic, oldestMajor, newestMajor)
	case h.Info&^flagsKnown != 0:
		return fmt.Errorf("%w: unknown flags %04X", ErrHeader, h.Info)
	case h.Timeline == 0:
		return fmt.Errorf("%w: timeline 0", ErrHeader)
	case (h.Info&flagContinues != 0) != (h.RemainingLen != 0):
		return fmt.Errorf("%w: flags %04X do not go with %d bytes that remain of a record", ErrHeader, h.Info, h.RemainingLen)
	case h.Long && h.SegmentSize.Valid() != nil:
		return fmt.Errorf("%w: %w", ErrHeader, h.SegmentSize.Valid())
	case h.Long && !validBlock(h.BlockSize):
		return fmt.Errorf("%w: WAL block size %d is not a power of two from 1 kB to 64 kB", ErrHeader, h.BlockSize)
	}
	return nil
}

// validBlock tells whether PostgreSQL can be built with this XLOG_BLCKSZ.
func validBlock(n uint32) bool { return n >= 1<<10 && n <= 1<<16 && bits.OnesCount32(n) == 1 }

// length is how many bytes the header takes on its page.
func (h PageHeader) length() int {
	if h.Long {
		return HeaderLen
	}
	return shortHeaderLen
}
