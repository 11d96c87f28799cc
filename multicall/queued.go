package multicall

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// Required are the archives that must have a file before PostgreSQL is told that
// it is archived. For the others their queue will do.
func (c Config) Required() []*url.URL {
	var required []*url.URL
	for _, u := range c.Archive {
		if !names(c.Queued, u) {
			required = append(required, u)
		}
	}
	return required
}

// queueProblems are problems of archives that are queued.
func (c Config) queueProblems() []error {
	if len(c.Queued) == 0 {
		return nil
	}
	var problems []error
	switch {
	case c.LArchiveDir == "":
		problems = append(problems, hint(fmt.Errorf("archive (%s) has a queued one, and l_archivedir is not set", c.Origin("archive")),
			"it is the directory of the queues, on this host: l_archivedir: /var/lib/postgresql/queues; pitr init makes it."))
	case c.PGData != "" && (below(c.LArchiveDir, c.PGData) || below(c.PGData, c.LArchiveDir)):
		problems = append(problems, queuesInPGData(c))
	}
	if len(c.Required()) == 0 && !c.AllowLocalOnly {
		problems = append(problems, hint(fmt.Errorf("archive (%s): all of them are queued", c.Origin("archive")),
			"PostgreSQL would recycle WAL of which the only copy is on this host: let one be required, or set allow_local_only: on."))
	}
	taken := map[string]*url.URL{}
	for _, u := range c.Queued {
		if other := taken[queueName(u)]; other != nil {
			problems = append(problems, hint(fmt.Errorf("archive (%s): %s and %s would have one queue, %s", c.Origin("archive"), other, u, queueName(u)),
				"a queue is named after the host and the directory: let them differ in one of the two."))
		}
		taken[queueName(u)] = u
	}
	return problems
}

func queuesInPGData(c Config) error {
	return hint(fmt.Errorf("l_archivedir %s and the data directory %s lie one in the other", c.LArchiveDir, c.PGData),
		"every base backup would hold the queues: put them elsewhere")
}

// queueName is the folder of an archive's queue: the host, or the last element of
// the path, and four bytes of the path's SHA-256. What waits there must be found
// again: neither another user nor another archive in the list changes it.
func queueName(u *url.URL) string {
	name := u.Hostname()
	if u.Scheme == "file" {
		name = path.Base(u.Path)
	}
	sum := sha256.Sum256([]byte(u.Path))
	return fmt.Sprintf("%s-%x", folderName(name), sum[:4])
}

// folderName makes of a text what can be the beginning of a folder's name.
func folderName(s string) string {
	const longest = 100
	s = strings.Map(func(r rune) rune {
		if strings.ContainsRune(letters+"0123456789._-:", r) {
			return r
		}
		return '_'
	}, s[:min(len(s), longest)])
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "-") {
		return "_" + s[1:]
	}
	return s
}

// queueNames are the folders of all queues.
func (c Config) queueNames() []string {
	if len(c.Archive) == 0 {
		return c.Slaves
	}
	var all []string
	for _, u := range c.Queued {
		all = append(all, queueName(u))
	}
	return all
}

// kind is what the queues' destinations are called.
func (c Config) kind() string {
	if len(c.Archive) == 0 {
		return "slave"
	}
	return "archive"
}
