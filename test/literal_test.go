package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamesAreTakenLiterally: directories and keys whose names are full of what
// shells look for, here and on a slave with a real sshd, over the built-in client
// and over ssh itself. Everything works, and no part of a name is run.
func TestNamesAreTakenLiterally(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{"built in": "", "ssh itself": "    ssh_command: /usr/bin/ssh -F '%s'\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newDirectory(t, "l")
			canary := filepath.Join(dir, "canary")
			const strange = "-o x $(touch canary)`touch canary`; touch canary | touch canary && 'touch' \"canary\" * ? ~ \\ é"
			one := newSlave(t)
			one.archive.dir = filepath.Join(one.archive.dir, "..", strange)
			queues := filepath.Join(dir, strange)
			identity := filepath.Join(dir, "k"+strange)
			copyTree(t, one.Identity, identity)
			clientFile := filepath.Join(dir, "c $(touch canary)")
			copyTree(t, one.ClientFile, clientFile)
			s := newShipping(t, 15, []*slave{one},
				"r_archivedir: /var/lib/postgresql/archive", "r_archivedir: /proc/self/cwd/"+strange,
				"l_archivedir: /var/lib/postgresql/archive", "l_archivedir: "+queues,
				"    ssh_debug: off\n", "    identity_file: "+identity+"\n"+strings.Replace(command, "%s", clientFile, 1))
			s.queues = queues
			s.primary.set("archive_mode = on", "archive_command = '"+s.command()+"'")
			s.primary.start()
			s.primary.switches(2)
			s.primary.waitArchived()
			one.stop()
			s.primary.switches(2)
			s.primary.waitArchived()
			if n := len(filesIn(t, filepath.Join(queues, one.host))); n != 2 {
				t.Errorf("%d files are queued, want 2", n)
			}
			one.start()
			s.primary.switches(1)
			s.primary.waitArchived()
			if n := one.wantAcknowledged(s.primary); n != 5 {
				t.Errorf("%d files were archived, want 5", n)
			}
			for _, path := range []string{canary, filepath.Join(home.home, "canary"), filepath.Join(s.primary.data, "canary"), filepath.Join(one.archive.dir, "..", "canary"), "canary"} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("a command ran: %s", path)
				}
			}
		})
	}
}

// filesIn are PostgreSQL's files in a directory of any name.
func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "0") {
			names = append(names, e.Name())
		}
	}
	return names
}
