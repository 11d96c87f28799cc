package wal

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Record is the header of a record whose checksum was verified.
type Record struct {
	LSN    LSN // where it begins
	Prev   LSN // where the record before it begins
	Len    uint32
	RmgrID uint8 // resource manager: 0 XLOG, 1 Transaction
	Info   uint8
	XID    uint32
	// CommitTime is when the transaction committed, by the server's clock, to
	// the microsecond: for records that commit, prepared transactions included.
	// Zero for others.
	CommitTime time.Time
	// IsSwitch: nothing of the segment counts after this record.
	IsSwitch bool
}

const (
	recordHeaderLen = 24
	recordAlign     = 8

	// longestRecord is MaxAllocSize: no server can assemble a longer one.
	longestRecord = 1<<30 - 1

	// commitHeadLen is how much of a commit record's data tells its time: at
	// most origin (3), top-level transaction (5), length (5), time (8).
	commitHeadLen = 21
)

func newRecord(lsn LSN, header *[recordHeaderLen]byte, head []byte) Record {
	le := binary.LittleEndian
	r := Record{
		LSN:    lsn,
		Len:    le.Uint32(header[0:]),
		XID:    le.Uint32(header[4:]),
		Prev:   LSN(le.Uint64(header[8:])),
		Info:   header[16],
		RmgrID: header[17],
	}
	r.IsSwitch = isSwitch(header)
	if isCommit(header) {
		r.CommitTime, _ = commitTime(head)
	}
	return r
}

const (
	rmgrXLOG        = 0
	rmgrTransaction = 1

	infoSwitch         = 0x40 // XLOG_SWITCH
	infoCommit         = 0x00 // XLOG_XACT_COMMIT
	infoCommitPrepared = 0x30 // XLOG_XACT_COMMIT_PREPARED

	infoMask       = 0xF0 // the rest is XLR_INFO_MASK, the record machinery's own
	infoXactOpMask = 0x70 // XLOG_XACT_OPMASK
)

// isSwitch tells whether the segment ends with this record.
func isSwitch(header *[recordHeaderLen]byte) bool {
	return header[17] == rmgrXLOG && header[16]&infoMask == infoSwitch
}

func isCommit(header *[recordHeaderLen]byte) bool {
	op := header[16] & infoXactOpMask
	return header[17] == rmgrTransaction && (op == infoCommit || op == infoCommitPrepared)
}

// The ids in front of the parts of a record (xlogrecord.h) that a commit has.
const (
	idDataShort   = 255
	idDataLong    = 254
	idOrigin      = 253
	idTopLevelXID = 252
)

// commitTime finds xl_xact_commit.xact_time: the first eight bytes of the main
// data, which in a commit follows the main data's header directly.
func commitTime(head []byte) (time.Time, bool) {
	for len(head) > 0 {
		skip := 0
		switch head[0] {
		case idOrigin:
			skip = 1 + 2
		case idTopLevelXID:
			skip = 1 + 4
		case idDataShort:
			return timestamp(head, 1+1)
		case idDataLong:
			return timestamp(head, 1+4)
		}
		if skip == 0 || skip > len(head) {
			break
		}
		head = head[skip:]
	}
	return time.Time{}, false
}

// timestamp reads a TimestampTz: microseconds since 2000-01-01 UTC.
func timestamp(b []byte, at int) (time.Time, bool) {
	if len(b) < at+8 {
		return time.Time{}, false
	}
	const epoch = 946_684_800 * 1_000_000
	return time.UnixMicro(int64(binary.LittleEndian.Uint64(b[at:])) + epoch).UTC(), true
}

// checksum is the CRC-32C of a record whose data has been summed up to data:
// PostgreSQL takes the header last (xlogreader.c, ValidXLogRecord).
func checksum(data uint32, header *[recordHeaderLen]byte) uint32 {
	return crc32.Update(data, castagnoli, header[:20])
}

// castagnoli is the standard library's own table: only that one is fast.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
