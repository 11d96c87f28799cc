// Package remote is a file system over SFTP, for package files: the archive on
// another host, reached by a stock sshd with nothing installed there.
//
// # Connecting
//
// The first operation connects, and one that finds the connection broken
// connects anew if it changes nothing or begins something: Open, Stat, ReadDir,
// Sync, Create, Mkdir. Publish and Remove go on with something that was begun:
// they use the connection that there is, or fail. A connection made anew may be
// to a host that has lost its power meanwhile; package archive looks once more
// for what it stored. Nothing ever prompts. A host's key must be
// known, or its policy says otherwise. Connecting takes no longer than
// Options.Timeout, and a host that is silent for longer, while something is
// asked of it, counts as gone: a keepalive asks for a sign of life.
//
// An operation comes back when its context ends, and leaves the request behind:
// the server may still act upon it. That is harmless by the order of things
// (below), and the connection stays as it is for others.
//
// # What SFTP says, and what it means
//
// Version 3 of the protocol has hardly any error but "no such file", "permission
// denied" and "failure", and OpenSSH says "no such file" also for ENOTDIR, ELOOP
// and EBADF (errno_to_portable in sftp-server.c). So
//
//   - fs.ErrNotExist is said only when the name itself is no dangling link, and
//     the nearest directory above that exists is a directory;
//   - fs.ErrExist only when something stands under the name afterwards;
//   - a failure to write is looked into: the far file system may be full, or
//     read-only.
//
// A listing may be cut short by an error on the far side that looks like its
// end (sftp-server.c ignores those of readdir). Package archive does not take
// its word alone.
//
// # Publishing
//
// By hardlink@openssh.com and then removing the temporary name: link never
// replaces. OpenSSH's own RENAME is link(new), unlink(old) and, if that fails,
// unlink(new): whoever removes a temporary file of somebody else can make a
// published file vanish. RENAME is used only where the server does not offer
// links; there a temporary file is never removed on the proof that its writer
// is dead, for the server may not be done with it. A server that offers links
// over a file system that has none is refused: nothing there can be protected
// from being replaced.
//
// The temporary name is removed behind the caller's back; syncing waits for that.
// What becomes of a Publish whose answer never came is not known. The file is
// whole under its name, or the name is free, and the temporary file may be left.
//
// # Syncing
//
// By fsync@openssh.com, on a file's handle or on that of a directory opened for
// reading. Without that extension, Sync and File.Sync fail, unless
// Options.AllowNoSync.
//
// # What it does not believe
//
// A server that lies must not cost more than the archive: a name with a slash
// in a listing is an error, a listing has at most so many names and bytes, a
// file has the size that it had when it was opened, what the library panics over
// is an error, and what the server says on its standard error is read and
// forgotten.
package remote
