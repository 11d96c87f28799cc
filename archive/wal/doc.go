// Package wal knows the files of PostgreSQL's pg_wal as an archive meets them:
// their names, timelines and histories, the page headers of PostgreSQL 13 to 18,
// segment sizes from 1 MB to 1 GB, the cluster's pg_control, and the records of
// a segment as far as their soundness goes.
//
// It promises never to panic and never to allocate by a length that a file
// claims, whatever bytes it is given. Of what records do it decodes two things:
// when a transaction committed, and that a segment ends early. It opens no file
// but pg_control and PG_VERSION, and writes none.
//
// Numbers are little-endian, as on every platform that pitr is built for.
//
// # Page header
//
// A segment consists of pages of XLOG_BLCKSZ bytes (8192 unless PostgreSQL was
// built otherwise). Each begins with a header (xlog_internal.h,
// XLogPageHeaderData), the first page of a segment with the long form:
//
//	offset  bytes
//	     0      2  magic, one for each major version
//	     2      2  flags: 1 a record continues here, 2 long form, 4 full-page
//	               images may be removed, 8 here a record begins that replaces
//	               the lost rest of one before
//	     4      4  timeline
//	     8      8  LSN of the page
//	    16      4  how many bytes are left of the record that continues here
//	    20      4  nothing
//	    24      8  long form: system identifier
//	    32      4  long form: segment size
//	    36      4  long form: XLOG_BLCKSZ
//
// # Record
//
// Records follow each other at multiples of 8, through page ends, leaving out
// the page headers (xlogrecord.h, XLogRecord):
//
//	offset  bytes
//	     0      4  total length; never parted by a page end
//	     4      4  transaction, or 0
//	     8      8  LSN of the record before
//	    16      1  info
//	    17      1  resource manager
//	    18      2  nothing
//	    20      4  CRC-32C of bytes 24 to the end, then of bytes 0 to 19
//	    24         data
package wal
