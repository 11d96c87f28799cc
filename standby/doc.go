// Package standby is what the following side of archiving does: the policy by
// which restore_command answers PostgreSQL, and drop-ins for PostgreSQL's own
// pg_standby and pg_archivecleanup.
//
// The policy is in docs/exit-codes.md: a file is handed over verified, absent
// is said only with proof, and every doubt is tried again within a budget and
// then answered by what PostgreSQL does with the answer: in standby mode "try
// again", in recovery "stop".
package standby
