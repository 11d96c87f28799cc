package standby

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"pitr/archive/wal"
)

// learnSegmentSize reads the size of a segment from the header of the file that
// was asked for (SetWALSegSize), and with it the cutoff. If the header is not
// there yet, p.size stays 0 and the next turn looks again.
func (p *pgStandby) learnSegmentSize() {
	size, err := segmentSizeIn(p.source())
	var failed *fs.PathError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		p.debugf("not enough data in file \"%s\"\n", p.source())
		return
	case errors.As(err, &failed):
		p.complain("could not %s WAL file \"%s\": %s", failed.Op, p.source(), reason(err))
		return
	case size.Valid() != nil:
		p.complain("WAL segment size must be a power of two between 1MB and 1GB, but the WAL file header specifies %d bytes", int32(size))
		return
	}
	p.size = size
	p.setCutoff()
	p.debugf("WAL segment size:     %d \n", int64(p.size))
	if p.cutoff != "" {
		p.debugf("Keep archive history: %s and later\n", p.cutoff)
		return
	}
	p.debugf("Keep archive history: no cleanup required\n")
}

// segmentSizeIn reads xlp_seg_size. It does not judge the rest of the header:
// the versions whose headers package wal knows end where this program begins.
// The error matches io.EOF or io.ErrUnexpectedEOF while the first page is not
// complete.
func segmentSizeIn(file string) (wal.SegmentSize, error) {
	const pageSize, offsetOfSize = 8192, 32
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	page := make([]byte, pageSize)
	if _, err := io.ReadFull(f, page); err != nil {
		return 0, err
	}
	return wal.SegmentSize(binary.LittleEndian.Uint32(page[offsetOfSize:])), nil
}

// setCutoff finds the first segment that stays (SetWALFileNameForCleanup); none
// if nothing is to be removed. A RESTARTWALFILE later than the file asked for is
// a mistake, and nothing is removed. The original overlooks that if its timeline
// is smaller, and would remove segments that are still to be restored.
func (p *pgStandby) setCutoff() {
	switch {
	case p.hasRestart && (p.restart > p.next || afterTimeline(p.restart) > afterTimeline(p.next)):
	case p.hasRestart:
		p.cutoff = p.restart
	case p.keep > 0:
		p.cutoff = keptFrom(p.next, p.keep, p.size)
	}
}

// keptFrom counts keep segments back from next; "" if there are not so many.
// It counts one segment too few per 4 GiB of WAL, as the original still does
// although there is no gap any more since 9.3: at worst it keeps some more.
func keptFrom(next string, keep int, size wal.SegmentSize) string {
	name, err := wal.ParseName(next)
	if err != nil || name.Timeline() == 0 || name.SegID() == 0 {
		return ""
	}
	perLog := 0xFFFFFFFF / int64(size)
	log := int64(name.LogID()) - int64(keep)/perLog
	seg := int64(name.SegID()) - int64(keep)%perLog
	if seg < 0 {
		log--
		seg += perLog
	}
	if log < 0 {
		return ""
	}
	return fmt.Sprintf("%08X%08X%08X", uint32(name.Timeline()), log, seg)
}

// cleanUp removes the segments before the cutoff. What it cannot remove it
// leaves for the next call: the file asked for is restored already.
func (p *pgStandby) cleanUp(ctx context.Context) {
	dir, err := os.Open(p.archive)
	if err != nil {
		p.std.warnf("%v\n", p.errorf("could not open archive location \"%s\": %s", p.archive, reason(err)))
		return
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		p.std.warnf("%v\n", p.errorf("could not read archive location \"%s\": %s", p.archive, reason(err)))
	}
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		if !isSegment(name) || afterTimeline(name) >= afterTimeline(p.cutoff) {
			continue
		}
		file := p.archive + "/" + name
		p.debugf("\nremoving file \"%s\"", file)
		if err := unlink(file); err != nil {
			p.std.warnf("\n%v\n", p.errorf("ERROR: could not remove file \"%s\": %s", file, reason(err)))
			break
		}
	}
	p.debugf("\n")
}
