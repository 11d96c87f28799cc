package multicall

import (
	"slices"
	"strings"
	"testing"
)

func TestQueuedArchives(t *testing.T) {
	c, err := loadConfig(sources(t, `[DEFAULT]
archive: file:///a, sftp://u@backup1/srv/wal Queued,
   sftp://backup1/srv/other	queued , file:///b%20c required
l_archivedir: /q
queue_max: 1GB
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Archive) != 4 || len(c.Queued) != 2 || c.Queued[0] != c.Archive[1] || c.Queued[1] != c.Archive[2] {
		t.Errorf("got %v, of which %v are queued", c.Archive, c.Queued)
	}
	if got := c.Required(); len(got) != 2 || got[0] != c.Archive[0] || got[1].Path != "/b c" {
		t.Errorf("got %v required", got)
	}
	if c.QueueMax != 1<<30 || c.QueueMinFree != 64<<20 || c.Agent != "auto" {
		t.Errorf("got %+v", c)
	}
	if names := c.queueNames(); len(names) != 2 || names[0] == names[1] {
		t.Errorf("got %q", names)
	}
	alone, err := loadConfig(sources(t, "archive: file:///b queued\nl_archivedir: /q\nallow_local_only: on\n"))
	if err != nil || len(alone.Required()) != 0 || alone.kind() != "archive" {
		t.Errorf("got %v, %v", alone.Required(), err)
	}
}

// What waits must be found again by every later version.
func TestQueueNamesStay(t *testing.T) {
	for archive, want := range map[string]string{
		"file:///srv/archive":                         "archive-a71d49b1",
		"file:///mnt/archive":                         "archive-",
		"sftp://backup1/srv/archive":                  "backup1-a71d49b1",
		"sftp://u@backup1:23/srv/archive":             "backup1-a71d49b1",
		"sftp://[2001:db8::7]/srv/archive":            "2001:db8::7-a71d49b1",
		"file:///srv/.hidden":                         "_hidden-",
		"file:///srv/-x%20%0Ay%C3%A9":                 "_x__y_-",
		"file:///srv/" + strings.Repeat("x", 300):     strings.Repeat("x", 100) + "-",
		"file:///srv/" + strings.Repeat("%C3%A9", 99): strings.Repeat("_", 50) + "-",
	} {
		u, err := parseArchive(archive)
		if err != nil {
			t.Fatal(err)
		}
		if got := queueName(u); !strings.HasPrefix(got, want) || strings.HasSuffix(want, "b1") && got != want {
			t.Errorf("%s: got %q, want %q", archive, got, want)
		}
	}
	if all := (Config{Slaves: []string{"a", "b"}}).queueNames(); !slices.Equal(all, []string{"a", "b"}) {
		t.Errorf("got %q", all)
	}
}
