// Package fusefs shows the archives of a cluster as a read-only tree of files:
//
//	wal/                 every segment, .partial, .history and .backup under
//	                     its plain name, raw, whatever its stored form
//	wal/archive.json     the identity, of an archive that is flat and raw
//	wal/quarantine/      what was set aside; not listed in wal/
//	backup/              empty
//	.pitr/identity.json  which archives these are, and who serves them
//	.pitr/health.json    the state of each, and counters
//	.pitr/metrics        the same for Prometheus
//
// So wal/ is a flat archive for every pitr, and a directory of plain files for
// every other program.
//
// What it promises:
//
//   - No byte is served before it was verified: a segment as a whole, or, where
//     it is large and compressed, the frame that holds the byte. A damaged file
//     is an error (EIO) and a line in the log, never other bytes.
//   - What is opened is what the archives have at that moment, not what they had
//     when it was put into the cache; only while they cannot be asked it is that.
//   - "No such file" (ENOENT) is told only with proof: the archive said so, and
//     its identity was seen. Whatever else goes wrong is waited out, or EIO.
//     That a file once was and is missing (a gap) makes no difference here:
//     a program that takes ENOENT for the end of WAL does not ask for that.
//   - A listing is whole, or it is an error.
//   - A request whose process is interrupted ends with EINTR, at once.
//   - Nothing can be changed: EROFS.
//
// It knows no store and reads no configuration: the caller brings archives.
package fusefs
