// Package ship sends files of WAL to several destinations, and keeps what a
// destination does not take in a durable queue on this machine.
//
// What it promises: Ship returns nil only if each destination has the file
// durably, or a durable copy waits in its queue. What waits goes out before
// anything newer, in the order in which PostgreSQL archives; a file leaves the
// queue only after the destination has acknowledged it; and nothing in a queue
// is ever replaced. One destination that is slow, down or wrong does not keep
// the others from their files for longer than Patience.
//
// A queue moves while somebody calls Ship, and all the time in a process that
// runs a Drainer.
//
// What it will not do: make the queues' directory, drop anything to make room,
// run commands, or decide what PostgreSQL is told.
//
// # Ahead
//
// Ahead is for archives that must have every file: PostgreSQL waits for them, and
// so they are kept busy with what it will ask for next. Files travel in a convoy,
// in the archiver's order, from the one that was asked for on. Each is staged in
// every archive, side by side with others; published in each archive one after
// the other; and settled with those published around it (archive.Intake). The
// first that fails in an archive ends the convoy: what is behind it there is
// dropped before it has a name. Nothing goes ahead then until a file has
// succeeded again. A convoy ends, too, when PostgreSQL asks for a file that is
// not in it: the order is PostgreSQL's, never ours.
//
// What has arrived ahead of its question is remembered for lead files, with the
// inode, size and times of what was read; a file that has changed since is pushed
// like any other. Nothing is remembered beyond the process.
//
// An archive that keeps silent for half of Patience or Budget before it fails is
// down: its files fail at once, until a probe has an answer.
//
// # The queues
//
// The queues' directory is pitrtools' l_archivedir, in its form, so that what
// pitrtools left there goes out too:
//
//	DIR/NAME/000000010000000000000002   waits for the destination NAME
//	DIR/NAME/.lock                      flock(2): who empties the queue
//	DIR/NAME/.state                     what the destination was last (below)
//	DIR/.tmp-...                        a copy being made (package files)
//	DIR/NAME/.tmp-...                   the same, where no links can be made
//
// A file in DIR/NAME lies under PostgreSQL's own name, raw. Every other name
// there is left alone and never shipped, and so are directories. Names that
// begin with a dot are this package's and its callers'.
//
// DIR/NAME is made when it is missing. DIR never is: what is missing may be a
// file system that is not mounted, and what waits there would be overtaken. So
// without DIR nothing is shipped at all.
//
// # Keeping a file
//
//  1. Make DIR/NAME if it is missing.
//  2. If DIR/NAME/FILE stands there: compare all of its content. Other content
//     is a conflict, and nothing is changed; with the same, go to 5.
//  3. Copy the file into DIR/.tmp-..., sync it, close it: once, by the first
//     destination that needs it. It is a copy, never a link to pg_wal, whose
//     files PostgreSQL overwrites in place when it recycles them.
//  4. Link the copy to DIR/NAME/FILE, which never replaces; if the name is
//     taken meanwhile, go to 2. So several destinations share one copy, and its
//     space is free when the last of them has it. Where no link can be made
//     (another file system, or one that knows none) the file is copied into
//     DIR/NAME as package files puts every other.
//  5. Sync DIR/NAME/FILE (if it was found), DIR/NAME and DIR. Only now it
//     counts as queued.
//  6. When every destination is settled, remove DIR/.tmp-....
//
// What a death of the process or of the machine leaves, by step: before 4 a
// temporary file, which a later call removes with proof that its maker is dead;
// between 4 and 5 a name that may or may not survive, whole if it does, and
// unacknowledged, so PostgreSQL brings the file again and 2 finds it; after 5 a
// queued file, and perhaps the temporary name as one more link to it.
//
// # Emptying a queue
//
// Under the lock. Files go out in the order of wal.CompareArchiving. Each is
// held against the cluster first: one that is cut short or is another cluster's
// is never sent, never removed, and stops the queue until somebody has looked at
// it, because what comes after it would be a gap in the archive. Then
// Archive.Push, and after its success the name is removed. A death in between
// sends the file once more, which finds it there. The removals are synced
// together, at the end: a name that comes back with the power is sent again.
//
// A queue may hold any number of files: its directory is read through, and of the
// names the first 256 are kept at a time.
//
// A call that finds the lock taken waits for it for a second, and then queues its
// file: the other one, or the next call, sends it. In the process of a Drainer
// that is at work there it does not wait at all, and where anything waits it
// leaves that to the Drainer.
//
// # In the background
//
// A Drainer looks into a queue when a call of its process has put something
// there, and otherwise every Wait. It sends what waits for one Budget, then lets
// another destination have its place among the Workers. One that fails is left
// alone for Wait, 2, 4 and then 8 times that. A destination that was Failed stays
// so until its queue is empty: what was told may be that a file was lost, and an
// attempt says nothing of that.
//
// An attempt that outlives all its times hangs in the system. It loses its place
// among the Workers, its destination counts as down, and it is not tried again
// before that one is back.
//
// # Limits
//
// Limit is looked at before step 3, and a file that is over it is lost there with
// ErrFull. What a queue holds is counted by reading its directory, once in a
// process: from then on what comes and goes is added up, and every look at the
// directory corrects it. A segment counts as long as its name says.
//
// # Budgets
//
// The first answer of a destination, which opens its connection, is waited for
// until Patience after the call began. After that no further file is begun, and
// the call's own file is queued. Three quarters of the call's time may go into
// the destinations; the last quarter is kept for the queues, so that an upload
// that hangs ends as a queued file and not as a lost one. A call whose time is
// over comes back also when the disk of the queues hangs.
//
// # State
//
// DIR/NAME/.state is JSON: what the destination was after the last call, since
// when, why, and when it was last tried in vain. It decides two things, whether
// something is to be told (State.Worth), and whether a destination that was silent
// a moment ago is left in peace (Rest). It is a note, not a promise: it is
// replaced at every change, and one that is missing or makes no sense says that
// nothing is known.
package ship
