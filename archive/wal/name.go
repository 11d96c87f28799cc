package wal

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// ErrName is matched by errors about names that PostgreSQL would not give.
var ErrName = errors.New("not a name of a WAL file")

// Kind is what a file of pg_wal is.
type Kind int

// The kinds of files that PostgreSQL archives. The zero Kind is that of the
// zero Name.
const (
	KindSegment Kind = iota + 1 // 000000010000000000000002
	KindHistory                 // 00000002.history
	KindPartial                 // 000000010000000000000002.partial
	KindBackup                  // 000000010000000000000002.00000028.backup
)

// String names the kind as an operator would.
func (k Kind) String() string {
	switch k {
	case KindSegment:
		return "segment"
	case KindHistory:
		return "history"
	case KindPartial:
		return "partial segment"
	case KindBackup:
		return "backup label"
	}
	return "unknown"
}

// Name is the name of a file of pg_wal, taken apart. Names can be compared with
// == and be keys of maps. The zero Name names nothing.
type Name struct {
	kind     Kind
	timeline TimelineID
	log, seg uint32
	offset   uint32 // where the backup starts in its segment
}

const (
	historySuffix = ".history"
	partialSuffix = ".partial"
	backupSuffix  = ".backup"
)

// ParseName reads a name exactly as PostgreSQL writes it (xlog_internal.h,
// XLogFileName and its siblings): hexadecimal digits in upper case, nothing
// before, nothing after. Timeline 0 and segment digits that are impossible for
// the cluster's segment size pass: PostgreSQL says 000000000000000000000000
// where it means "none". The error matches ErrName.
func ParseName(s string) (Name, error) {
	if n, ok := parseName(s); ok {
		return n, nil
	}
	return Name{}, fmt.Errorf("%.80q: %w", s, ErrName)
}

func parseName(s string) (Name, bool) {
	timeline, rest, ok := cutDigits(s)
	n := Name{kind: KindHistory, timeline: TimelineID(timeline)}
	if !ok || rest == historySuffix {
		return n, ok
	}
	var okLog, okSeg bool
	n.log, rest, okLog = cutDigits(rest)
	n.seg, rest, okSeg = cutDigits(rest)
	if !okLog || !okSeg {
		return Name{}, false
	}
	switch rest {
	case "":
		n.kind = KindSegment
		return n, true
	case partialSuffix:
		n.kind = KindPartial
		return n, true
	}
	n.kind = KindBackup
	n.offset, rest, ok = cutDigits(strings.TrimPrefix(rest, "."))
	return n, ok && rest == backupSuffix && s[24] == '.'
}

// cutDigits takes eight upper-case hexadecimal digits off s.
func cutDigits(s string) (n uint32, rest string, ok bool) {
	if len(s) < 8 {
		return 0, s, false
	}
	for _, c := range []byte(s[:8]) {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | uint32(c-'0')
		case 'A' <= c && c <= 'F':
			n = n<<4 | uint32(c-'A'+10)
		default:
			return 0, s, false
		}
	}
	return n, s[8:], true
}

// SegmentName names a segment of a timeline. size must be valid, and the
// segment must begin below the largest LSN.
func SegmentName(tli TimelineID, n SegmentNumber, size SegmentSize) Name {
	per := size.PerLogID()
	return Name{kind: KindSegment, timeline: tli, log: uint32(uint64(n) / per), seg: uint32(uint64(n) % per)}
}

// HistoryName names the history file of a timeline.
func HistoryName(tli TimelineID) Name { return Name{kind: KindHistory, timeline: tli} }

// String writes the name as PostgreSQL does, so that ParseName(n.String()) is n.
// The zero Name is the empty string.
func (n Name) String() string {
	base := fmt.Sprintf("%08X%08X%08X", uint32(n.timeline), n.log, n.seg)
	switch n.kind {
	case KindSegment:
		return base
	case KindHistory:
		return base[:8] + historySuffix
	case KindPartial:
		return base + partialSuffix
	case KindBackup:
		return fmt.Sprintf("%s.%08X%s", base, n.offset, backupSuffix)
	}
	return ""
}

// MarshalText is String, for logs and JSON.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText is ParseName.
func (n *Name) UnmarshalText(b []byte) error {
	parsed, err := ParseName(string(b))
	if err == nil {
		*n = parsed
	}
	return err
}

// Kind tells what the file is.
func (n Name) Kind() Kind { return n.kind }

// Timeline is the first eight digits.
func (n Name) Timeline() TimelineID { return n.timeline }

// LogID is the middle eight digits: which 4 GiB of the WAL. 0 for a history.
func (n Name) LogID() uint32 { return n.log }

// SegID is the last eight digits: which segment of these 4 GiB. 0 for a history.
func (n Name) SegID() uint32 { return n.seg }

// Number returns which segment this is, or belongs to. The error matches ErrName
// for a history, and for last digits that are impossible with this segment size:
// the file is of a cluster with smaller segments.
func (n Name) Number(size SegmentSize) (SegmentNumber, error) {
	if err := size.Valid(); err != nil {
		return 0, err
	}
	if n.kind == KindHistory || n.kind == 0 {
		return 0, fmt.Errorf("%q has no place in the WAL: %w", n.String(), ErrName)
	}
	per := size.PerLogID()
	if uint64(n.seg) >= per {
		return 0, fmt.Errorf("%s: with segments of %d bytes the last digits are at most %08X: %w", n, int64(size), per-1, ErrName)
	}
	return SegmentNumber(uint64(n.log)*per + uint64(n.seg)), nil
}

// Start returns the LSN of the segment's first byte; errors as Number has them.
func (n Name) Start(size SegmentSize) (LSN, error) {
	number, err := n.Number(size)
	if err != nil {
		return 0, err
	}
	return size.Start(number), nil
}

// Segment returns the plain segment that a .partial is the beginning of, or in
// which the backup of a .backup starts. A segment is its own. A history has
// none: the zero Name.
func (n Name) Segment() Name {
	if n.kind == KindHistory || n.kind == 0 {
		return Name{}
	}
	return Name{kind: KindSegment, timeline: n.timeline, log: n.log, seg: n.seg}
}

// Partial returns the name of the .partial of a segment. Anything else has none:
// the zero Name.
func (n Name) Partial() Name {
	if n.kind != KindSegment {
		return Name{}
	}
	n.kind = KindPartial
	return n
}

// Directory returns the first sixteen digits, timeline and LogID; the empty
// string for a history.
func (n Name) Directory() string {
	if n.kind == KindHistory || n.kind == 0 {
		return ""
	}
	return fmt.Sprintf("%08X%08X", uint32(n.timeline), n.log)
}

// CompareArchiving orders names as PostgreSQL's archiver takes the files of
// pg_wal (pgarch.c, ready_file_comparator): histories before everything else,
// then by name. A history goes first because it tells other servers that a
// timeline is taken.
func CompareArchiving(a, b Name) int {
	rank := func(n Name) int {
		if n.kind == KindHistory {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.String(), b.String()))
}
