package test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// past is a primary's life, over when a test begins: a base backup, and all the
// WAL since then in an archive of each form. Segments have 1 MB.
type past struct {
	backup    string
	archives  map[string]*archive // by form: tree, flat
	foreign   map[string]*archive // another cluster's, with the same names
	segments  []string            // of timeline 1, all that the archives hold
	middle    string              // the segment to which things happen
	rows      int                 // in the ledger, at the end
	rowsUntil func(segment string) int
}

// commit is one batch of the ledger: when the WAL up to here is replayed, there
// are so many rows.
type commit struct {
	lsn  uint64
	rows int
}

const (
	pastVersion   = 15
	pastSegmentMB = 1
	batchRows     = 250
)

// newPast lives through it.
func newPast(t *testing.T) *past {
	t.Helper()
	c := newCluster(t, pastVersion, pastSegmentMB)
	p := &past{archives: map[string]*archive{}, foreign: map[string]*archive{}}
	p.archives["tree"] = newArchive(t, c)
	p.archives["flat"] = newArchive(t, c, "--layout", "flat")
	c.archiveTo(p.archives["tree"], p.archives["flat"])
	c.start()
	c.sql("CREATE TABLE ledger (id int, pad text)")
	p.backup = c.backup()
	commits := fillLedger(c, 40)
	c.switchWAL()
	c.stop()

	p.rows = commits[len(commits)-1].rows
	for _, path := range glob(t, p.archives["flat"].dir, "00000001????????????????") {
		p.segments = append(p.segments, filepath.Base(path))
	}
	p.rowsUntil = func(segment string) (rows int) {
		for _, k := range commits {
			if k.lsn <= segmentStart(segment) {
				rows = k.rows
			}
		}
		return rows
	}
	p.chooseMiddle(t)
	p.liveAbroad(t)
	return p
}

// fillLedger commits batches of rows.
func fillLedger(c *cluster, batches int) []commit {
	c.t.Helper()
	var commits []commit
	for b := range batches {
		lsn := c.sql(fmt.Sprintf(`
			INSERT INTO ledger SELECT i, repeat('x', 800) FROM generate_series(%d, %d) i;
			SELECT pg_current_wal_insert_lsn()`, b*batchRows+1, (b+1)*batchRows))
		commits = append(commits, commit{parseLSN(c.t, lsn), (b + 1) * batchRows})
	}
	return commits
}

// chooseMiddle takes a segment well inside whose last record crosses into the
// next one, with a good part of it on either side.
func (p *past) chooseMiddle(t *testing.T) {
	t.Helper()
	for _, s := range p.segments[len(p.segments)/2 : len(p.segments)-3] {
		if rest := restOfRecord(p.archives["flat"].raw(next(s))); rest > 50 && rest < 600 {
			p.middle = s
			return
		}
	}
	t.Fatalf("no record crosses from one segment into the next as it should, in %d segments", len(p.segments))
}

// restOfRecord is how many bytes of a record that began in the segment before
// stand at the beginning of this one: xlp_rem_len of its first page.
func restOfRecord(segment []byte) int { return int(binary.LittleEndian.Uint32(segment[16:])) }

// longHeader is the length of the header of a segment's first page.
const longHeader = 40

// liveAbroad makes archives of another cluster that hold the same names.
func (p *past) liveAbroad(t *testing.T) {
	t.Helper()
	c := newForeignCluster(t, pastVersion, pastSegmentMB)
	p.foreign["tree"] = newArchive(t, c)
	p.foreign["flat"] = newArchive(t, c, "--layout", "flat")
	c.archiveTo(p.foreign["tree"], p.foreign["flat"])
	c.start()
	c.sql("CREATE TABLE ledger (id int, pad text)")
	for c.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())") <= next(p.middle) {
		c.sql(`INSERT INTO ledger SELECT i, repeat('y', 800) FROM generate_series(1, 1000) i`)
	}
	c.switchWAL()
	c.stop()
}

// next is the name of the segment after one of 1 MB.
func next(segment string) string { return nthAfter(segment, 1) }

func nthAfter(segment string, n int64) string {
	position, err := strconv.ParseInt(segment[8:16]+segment[21:], 16, 64)
	if err != nil {
		panic(err)
	}
	position += n
	return fmt.Sprintf("%s%08X%08X", segment[:8], position>>12, position&0xFFF)
}

// segmentStart is the LSN at which a segment of 1 MB begins.
func segmentStart(segment string) uint64 {
	position, err := strconv.ParseUint(segment[8:16]+segment[21:], 16, 64)
	if err != nil {
		panic(err)
	}
	return position << 20
}

func parseLSN(t testing.TB, text string) uint64 {
	t.Helper()
	high, low, _ := strings.Cut(text, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if err1 != nil || err2 != nil {
		t.Fatalf("%q is no LSN", text)
	}
	return h<<32 | l
}
