package test

import (
	"fmt"
	"os"
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
			want(1, "warning   archive_command: it does not call pitr", "warning   archive_timeout: 0")
			c.sql("SELECT pg_switch_wal()")
			eventually(t, "archiving failed", func() bool { return c.sql("SELECT failed_count > 0 FROM pg_stat_archiver") == "t" })
			want(2, "critical  pg_stat_archiver: the last attempt failed: 00000001")

			c.archiveTo(a)
			c.set("archive_timeout = 60")
			c.reload()
			eventually(t, "archiving succeeded", func() bool {
				return c.sql("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver") == "t"
			})
			want(1, "ok        archive_command: "+filepath.Dir(home.applet("archive_command")), "ok        archive_timeout: 1m0s",
				"ok        pg_stat_archiver: last archived 00000001", "ok        pg_wal: nothing waits",
				"what the server was told is archived is here, up to 00000001")
		})
	}
}

// TestCheckFindsWhatIsLost: whatever archive_command looks like, WAL that the
// server was told is archived and that no archive holds is critical.
func TestCheckFindsWhatIsLost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		lose func(t *testing.T, c *cluster, a *archive)
		says []string
	}{
		{"masked", func(t *testing.T, c *cluster, a *archive) {
			c.set("archive_command = '" + c.archiveCommand(a) + " || true'")
			check(t, os.Rename(a.dir, a.dir+".away"))
			c.archiveOne()
			check(t, os.Rename(a.dir+".away", a.dir))
		}, []string{"critical  archive_command: the server does not see pitr's exit status"}},
		{"true", func(t *testing.T, c *cluster, a *archive) {
			c.set("archive_command = '/bin/true'")
			c.archiveOne()
		}, []string{"warning   archive_command: it does not call pitr"}},
		{"another archive", func(t *testing.T, c *cluster, a *archive) {
			other := newArchive(t, c, "--force")
			c.set("archive_command = '" + c.archiveCommand(other) + "'")
			c.archiveOne()
			check(t, os.Remove(other.stored(c.status(".done")[1])))
			c.configure([]*archive{a})
		}, []string{"warning   archive_command: it uses file:///", "warning   archive_command: it does not use file:///"}},
		{"removed", func(t *testing.T, c *cluster, a *archive) {
			c.archiveOne()
			segments := c.status(".done")
			check(t, os.Remove(a.stored(segments[len(segments)-1])))
		}, nil},
		{"gap", func(t *testing.T, c *cluster, a *archive) {
			c.archiveOne()
			c.archiveOne()
			check(t, os.Remove(a.stored(c.status(".done")[1])))
		}, []string{"critical  file:///", "no recovery gets past a gap: 00000001"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 15, 16)
			a := newArchive(t, c)
			config := c.configure([]*archive{a})
			c.set("archive_mode = on", "archive_timeout = 60")
			c.archiveTo(a)
			c.start()
			c.sql("SELECT pg_sleep(2.1)") // a .done file of the second in which the server started does not count
			c.archiveOne()
			r := c.checkup(config)
			if r.status != 1 { // one disk takes both
				t.Fatalf("before anything is lost: want status 1: %s", r)
			}
			tt.lose(t, c, a)
			r = c.checkup(config)
			says := tt.says
			if tt.name != "gap" {
				says = append(says, "the server was told that 00000001")
			}
			for _, s := range says {
				if r.status != 2 || !strings.Contains(r.stdout, s) {
					t.Errorf("want status 2 and %q: %s", s, r)
				}
			}
		})
	}
}

// TestCheckOnAStandby: its restore_command is looked at, and what it will
// archive with after a promotion.
func TestCheckOnAStandby(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 15, 16)
	a := newArchive(t, c)
	c.set("archive_mode = on")
	c.archiveTo(a)
	c.start()
	c.archiveOne()
	s := clusterFrom(t, 15, c.backup())
	s.signalFile("standby.signal")
	s.restoreFrom(a)
	s.set("archive_command = '" + s.archiveCommand(a) + " || true'")
	s.start()
	config := s.configure([]*archive{a})
	r := s.checkup(config)
	for _, want := range []string{"ok        restore_command: ", "the server is a standby and archives after promotion", "critical  archive_command: the server does not see"} {
		if r.status != 2 || !strings.Contains(r.stdout, want) {
			t.Errorf("want %q: %s", want, r)
		}
	}
	s.set("archive_command = '"+s.archiveCommand(a)+"'", "restore_command = 'cp /nowhere/%f %p'")
	s.reload()
	eventually(t, "the standby has the setting", func() bool { return strings.HasPrefix(s.sql("SHOW restore_command"), "cp") })
	if r := s.checkup(config); r.status != 1 || !strings.Contains(r.stdout, "warning   restore_command: it does not call pitr") {
		t.Errorf("want a warning about restore_command: %s", r)
	}
}

// archiveCommand is what stores in these archives, without a configuration file.
func (c *cluster) archiveCommand(a *archive) string {
	return fmt.Sprintf("%s --archive=%s --pgdata=%s %%p", home.applet("archive_command"), a.url(), c.data)
}

// archiveOne makes the server read its settings again and archive a segment.
func (c *cluster) archiveOne() {
	c.t.Helper()
	c.reload()
	c.sql("SELECT pg_sleep(0.2); CREATE TABLE IF NOT EXISTS something (); SELECT pg_logical_emit_message(false, 'a', 'b')")
	c.switchWAL()
}

// checkup runs pitr check beside the server.
func (c *cluster) checkup(config string) result {
	cmd := home.command(home.pitr, "check", "-C", config)
	cmd.Env = append(cmd.Environ(), "PGUSER=postgres")
	return run(cmd)
}
