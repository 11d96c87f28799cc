// Package test is the end-to-end test of pitr: the built binary as the
// archive_command and restore_command of real PostgreSQL servers, 13 to 18, and
// the floor plan of the source. test/setup installs what it needs.
//
// Servers listen on Unix sockets only and run as the user postgres where the
// test is root. The far side of an archive over SSH is an OpenSSH sshd of the
// test's own, on a loopback address, run by the same user. Everything lies in
// one temporary directory, which is removed at the end, unless PITR_TEST_KEEP is
// set and a test failed. A panic, a timeout or a signal leaves nothing behind
// either, and what SIGKILL leaves is removed by the next run.
package test
