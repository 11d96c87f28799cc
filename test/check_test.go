package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckAsksTheServer: pitr check sees what keeps a live server from
// archiving, says what to do about it, and exits as monitoring expects.
func TestCheckAsksTheServer(t *testing.T) {
	t.Parallel()
	for _, version := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, version, 16)
			a := newArchive(t, c)
			config := c.configure([]*archive{a})
			want := func(status int, says ...string) {
				t.Helper()
				r := home.command(home.pitr, "check", "-C", config)
				r.Env = append(r.Environ(), "PGUSER=postgres")
				got := run(r)
				if got.status != status {
					t.Errorf("want status %d: %s", status, got)
				}
				for _, s := range says {
					if !strings.Contains(got.stdout, s) {
						t.Errorf("it does not say %q: %s", s, got)
					}
				}
			}
			want(1, "server: not running")

			c.start()
			want(2, "critical  archive_mode: off", "HINT: archive_mode = on, and restart")
			c.stop()

			c.set("archive_mode = on")
			c.start()
			want(2, "critical  archive_command: not set")

			c.set("archive_command = 'cp %p /nowhere/%f'")
			c.reload()
			eventually(t, "the server has the setting", func() bool { return c.sql("SHOW archive_command") != "" })
			want(1, "warning   archive_command: does not call pitr", "warning   archive_timeout: 0")
			c.sql("SELECT pg_switch_wal()")
			eventually(t, "archiving failed", func() bool { return c.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t" })
			want(2, "critical  pg_stat_archiver: the last attempt failed: 00000001")

			c.archiveTo(a)
			c.set("archive_timeout = 60")
			c.reload()
			eventually(t, "archiving succeeded", func() bool {
				return c.sql("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver") == "t"
			})
			want(1, "ok        archive_command: "+filepath.Dir(home.applet("archive_command")), "ok        archive_timeout: 1m0s", "ok        pg_stat_archiver: last archived 00000001")
		})
	}
}
