package test

import (
	"fmt"
	"strings"
	"testing"
)

// TestCheckAsksThisServerWhateverTheEnvironmentSays: the variables of an
// operator's shell may be for another server; pitr check asks the one of the
// data directory.
func TestCheckAsksThisServerWhateverTheEnvironmentSays(t *testing.T) {
	t.Parallel()
	for _, version := range []int{13, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, version, 16)
			a := newArchive(t, c)
			config := c.configure([]*archive{a})
			c.set("archive_mode = on", "archive_timeout = 60")
			c.archiveTo(a)
			c.start()
			for _, hostile := range [][]string{
				{"PGHOST=localhost", "PGPORT=abc", "PGSSLMODE=verify-full"},
				{"PGHOST=/nowhere", "PGPORT=1"},
				{"PGSERVICE=another"},
				{"PGSERVICE=another", "PGSERVICEFILE=/nowhere/pg_service.conf"},
				{"PGTARGETSESSIONATTRS=standby", "PGCONNECT_TIMEOUT=soon"},
			} {
				cmd := home.command(home.pitr, "check", "-C", config)
				cmd.Env = append(append(cmd.Environ(), "PGUSER=postgres"), hostile...)
				r := run(cmd)
				if r.status != 1 || !strings.Contains(r.stdout, "ok        archive_mode: on") || strings.Contains(r.stdout, "cannot be asked") {
					t.Errorf("%s: want status 1, for one disk takes both, and the server's settings: %s", hostile, r)
				}
			}
		})
	}
}
