package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckSeesThroughCmdArchiver: pitr check reads the configuration that the
// server's cmd_archiver has, and holds what the server takes for archived
// against slaves and queues, whichever of the two files it is given.
func TestCheckSeesThroughCmdArchiver(t *testing.T) {
	t.Parallel()
	one := newSlave(t)
	s := newShipping(t, 15, []*slave{one}, "debug: on", "debug: off")
	c := s.primary
	a := newArchive(t, c)
	want := func(config string, status int, says ...string) {
		t.Helper()
		r := c.checkup(config)
		for _, text := range says {
			if r.status != status || !strings.Contains(r.stdout, text) {
				t.Errorf("want status %d and %q: %s", status, text, r)
			}
		}
	}
	c.set("archive_mode = on", "archive_timeout = 60", "archive_command = '"+s.command()+"'")
	c.start()
	c.sql("SELECT pg_sleep(2.1)") // a .done file of the second in which the server started does not count
	c.switches(2)
	c.waitArchived()
	want(s.config, 0, "ok        archive_command: "+s.command(), "what the server was told is archived is here, up to 00000001")

	one.stop()
	c.switches(2)
	c.waitArchived()
	want(s.config, 2, "connection refused", "warning   queue of "+one.host+": 2 files")
	one.start()
	want(s.config, 1, "warning   queue of "+one.host+": 2 files", "what the server was told is archived is here or in its queue, up to 00000001")

	want(c.configure([]*archive{a}), 1, "warning   archive_command: it does not use file:///", "is here or in its queue")

	queued := s.waiting(one)
	check(t, os.Remove(queued[len(queued)-1]))
	lost := "slave " + one.host + ": the server was told that " + filepath.Base(queued[len(queued)-1]) + " is archived"
	want(s.config, 2, "critical  "+lost)
	want(c.configure([]*archive{a}), 2, "critical  "+lost)

	c.set("archive_command = '" + s.command() + " || true'")
	c.reload()
	eventually(t, "the server has the setting", func() bool { return strings.HasSuffix(c.sql("SHOW archive_command"), "true") })
	want(s.config, 2, "critical  archive_command: the server does not see pitr's exit status")
}
