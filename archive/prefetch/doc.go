// Package prefetch fetches the WAL of a recovery before PostgreSQL asks for it.
//
// A Reader is asked for one file after the other, as restore_command is. It keeps
// the next segments ready, verified, in files without a name, and hands one over
// as it is. What it keeps can be neither stale nor torn: it was fetched by this
// process from an archive in which nothing is ever rewritten, it is right whatever
// is archived later (archive.FetchAhead), and it is gone with the process.
//
// What comes next is a guess, and costs nothing but work when it is wrong: a
// segment is handed over only under the name that it was fetched by. Nothing else
// is kept: that a file is absent, or that an archive is in doubt, is always the
// answer to the question that was asked. docs/fetching.md has the whole.
package prefetch
