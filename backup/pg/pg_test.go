package pg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// running is postmaster.pid of a server of PostgreSQL 15.
const running = `4711
/var/lib/postgresql/15/main
1795600000
5433
/var/run/postgresql
localhost
  1094743         4
ready   
`

func readPostmaster(t *testing.T, text string) (Postmaster, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadPostmaster(dir)
}

func TestPostmasterSaysWhereItListens(t *testing.T) {
	whole := Postmaster{PID: 4711, Started: time.Unix(1795600000, 0), Port: 5433, SocketDir: "/var/run/postgresql", Listen: "localhost"}
	noSocket, noTCP := whole, whole
	noSocket.SocketDir, noTCP.Listen = "", ""
	for name, c := range map[string]struct {
		text string
		want Postmaster
	}{
		"both":      {running, whole},
		"no socket": {strings.Replace(running, "/var/run/postgresql\n", "\n", 1), noSocket},
		"no TCP":    {strings.Replace(running, "localhost\n", "\n", 1), noTCP},
	} {
		if got, err := readPostmaster(t, c.text); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, c.want)
		}
	}
}

func TestPostmasterThatCannotBeAsked(t *testing.T) {
	lines := strings.SplitAfter(running, "\n")
	for name, c := range map[string]struct{ text, says string }{
		"empty":            {"", "incomplete"},
		"not yet a socket": {strings.Join(lines[:4], "") + "\n", "incomplete"},
		"not yet a status": {strings.Join(lines[:7], ""), "incomplete"},
		"single-user mode": {"-" + running, `process id "-4711"`},
		"no process":       {"x" + running, `process id "x4711"`},
		"no time":          {strings.Replace(running, "1795600000", "noon", 1), `start time "noon"`},
		"no port":          {strings.Replace(running, "5433", "", 1), `port ""`},
		"garbage":          {strings.Repeat("\x00\xff\n", 20), "process id"},
	} {
		if got, err := readPostmaster(t, c.text); err == nil || !strings.Contains(err.Error(), c.says) || got != (Postmaster{}) {
			t.Errorf("%s: got %+v, %v, want an error: ...%s...", name, got, err, c.says)
		}
	}
	if _, err := ReadPostmaster(t.TempDir()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no file: got %v, want %v", err, ErrNotRunning)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "postmaster.pid"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPostmaster(dir); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("a file that cannot be read: got %v, want another error than %v", err, ErrNotRunning)
	}
}

func TestQuotedValueIsOneValue(t *testing.T) {
	for _, value := range []string{"/run/a b", `/run/it's`, `/run/back\slash`, `/run/end\`, "/run/x port=1 host=elsewhere", `/run/' host='elsewhere`} {
		config, err := pgx.ParseConfig("host=" + quoted(value) + " port=5433")
		if err != nil || config.Host != value || config.Port != 5433 {
			t.Errorf("%s: got %+v, %v", value, config, err)
		}
	}
}

// The variables of whoever calls may be for another server.
func TestEnvironmentDoesNotLeadElsewhere(t *testing.T) {
	for name, value := range map[string]string{
		"PGHOST": "elsewhere", "PGPORT": "abc", "PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere/root.crt",
		"PGTARGETSESSIONATTRS": "standby", "PGCONNECT_TIMEOUT": "soon", "PGAPPNAME": "somebody",
		"PGUSER": "operator", "PGPASSWORD": "geheim", "PGDATABASE": "theirs",
	} {
		t.Setenv(name, value)
	}
	for host, p := range map[string]Postmaster{
		"/run/pg":   {Port: 5433, SocketDir: "/run/pg", Listen: "*"},
		"10.1.2.3":  {Port: 5433, Listen: "10.1.2.3"},
		"localhost": {Port: 5433, Listen: "*"},
	} {
		c, err := p.config("postgres")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if c.Host != host || c.Port != 5433 || c.Database != "postgres" || c.User != "operator" || c.Password != "geheim" || c.ValidateConnect != nil {
			t.Errorf("got %s:%d, database %s, user %s, want %s:5433, postgres, operator, of any kind", c.Host, c.Port, c.Database, c.User, host)
		}
		if (c.TLSConfig == nil) != (p.SocketDir != "") || c.TLSConfig != nil && !c.TLSConfig.InsecureSkipVerify {
			t.Errorf("%s: got TLS %+v, want none through a socket, and no certificate verified otherwise", host, c.TLSConfig)
		}
		for _, f := range c.Fallbacks {
			if f.Host != host || f.Port != 5433 {
				t.Errorf("%s: got a second try at %s:%d", host, f.Host, f.Port)
			}
		}
	}
	if c, err := (Postmaster{Port: 5433, SocketDir: "/run/pg"}).config("it's mine"); err != nil || c.Database != "it's mine" {
		t.Errorf("got %v, %v, want the database that was asked for", c, err)
	}
}
