// Package pg is a narrow client of a PostgreSQL server: one method for each
// thing that this project asks a server, and no way to send any other query.
package pg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postmaster is what a running server says of itself in postmaster.pid, as
// miscadmin.h lists its lines.
type Postmaster struct {
	PID       int
	Started   time.Time // to the second
	Port      int
	SocketDir string // empty: no Unix socket
	Listen    string // the first of its addresses, * for all; empty: no TCP
	Stopping  bool   // it was told to end
}

// ErrNotRunning says that a data directory has no postmaster.pid.
var ErrNotRunning = errors.New("no server is running in this data directory")

// statusLine is the last line of postmaster.pid. Before it is there, the lines
// above say that the server has no socket, when it only has none yet.
const statusLine = 8

// ReadPostmaster reads postmaster.pid of a data directory. Whether that process
// still lives is not looked at.
func ReadPostmaster(pgdata string) (Postmaster, error) {
	raw, err := os.ReadFile(filepath.Join(pgdata, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return Postmaster{}, ErrNotRunning
	}
	if err != nil {
		return Postmaster{}, err
	}
	line := strings.Split(string(raw), "\n")
	if len(line) <= statusLine {
		return Postmaster{}, errors.New("postmaster.pid is incomplete: the server is starting")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[0]))
	if err != nil || pid <= 0 { // negative: a server in single-user mode
		return Postmaster{}, fmt.Errorf("postmaster.pid: process id %q", line[0])
	}
	started, err := strconv.ParseInt(strings.TrimSpace(line[2]), 10, 64)
	if err != nil {
		return Postmaster{}, fmt.Errorf("postmaster.pid: start time %q", line[2])
	}
	port, err := strconv.Atoi(strings.TrimSpace(line[3]))
	if err != nil {
		return Postmaster{}, fmt.Errorf("postmaster.pid: port %q", line[3])
	}
	return Postmaster{
		PID: pid, Started: time.Unix(started, 0), Port: port,
		SocketDir: strings.TrimSpace(line[4]), Listen: strings.TrimSpace(line[5]),
		Stopping: strings.TrimSpace(line[7]) == "stopping",
	}, nil
}

// Server is a connection to a server. One goroutine uses it at a time.
type Server struct {
	conn *pgx.Conn
}

// Dial connects to the server of a data directory through its Unix socket, or
// where it has none through TCP. User and password come from libpq's environment
// and files (PGUSER, .pgpass), as pgx reads them. Where the environment says that
// another server is, or how to reach it, does not count; a PGSERVICE that cannot
// be found is an error all the same, which no connection string prevents: the
// caller takes it out of the environment.
func Dial(ctx context.Context, p Postmaster, database string) (*Server, error) {
	config, err := p.config(database)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Server{conn}, nil
}

// config says how to reach the server.
func (p Postmaster) config(database string) (*pgx.ConnConfig, error) {
	return pgx.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=%s sslmode=prefer sslrootcert='' target_session_attrs=any connect_timeout=0 application_name=pitr",
		quoted(p.host()), p.Port, quoted(database)))
}

// host is the directory of the socket, or the address.
func (p Postmaster) host() string {
	switch {
	case p.SocketDir != "":
		return p.SocketDir
	case p.Listen == "*", p.Listen == "0.0.0.0", p.Listen == "::":
		return "localhost"
	}
	return p.Listen
}

// quoted writes a value of a connection string.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// Close ends the connection.
func (s *Server) Close(ctx context.Context) error { return s.conn.Close(ctx) }

// ArchiveSettings is how a server is told to archive, and to restore.
type ArchiveSettings struct {
	Mode       string // archive_mode: off, on, always
	Command    string // archive_command, "(disabled)" while archive_mode is off
	Library    string // archive_library, from 15 on
	Timeout    time.Duration
	WALLevel   string
	InRecovery bool
	Restore    string // restore_command
}

// ArchiveSettings reads them.
func (s *Server) ArchiveSettings(ctx context.Context) (ArchiveSettings, error) {
	var a ArchiveSettings
	var timeout int
	err := s.conn.QueryRow(ctx, `
		SELECT current_setting('archive_mode'), current_setting('archive_command'),
		       coalesce(current_setting('archive_library', true), ''), current_setting('wal_level'),
		       (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout'), pg_is_in_recovery(),
		       current_setting('restore_command')`).
		Scan(&a.Mode, &a.Command, &a.Library, &a.WALLevel, &timeout, &a.InRecovery, &a.Restore)
	a.Timeout = time.Duration(timeout) * time.Second
	return a, err
}

// ArchiverStats is pg_stat_archiver. A zero time is never.
type ArchiverStats struct {
	Archived     int64
	LastArchived string
	LastTime     time.Time
	Failed       int64
	LastFailed   string
	LastFailure  time.Time
}

// ArchiverStats reads pg_stat_archiver.
func (s *Server) ArchiverStats(ctx context.Context) (ArchiverStats, error) {
	var a ArchiverStats
	var last, failure *time.Time
	err := s.conn.QueryRow(ctx, `
		SELECT archived_count, coalesce(last_archived_wal, ''), last_archived_time,
		       failed_count, coalesce(last_failed_wal, ''), last_failed_time FROM pg_stat_archiver`).
		Scan(&a.Archived, &a.LastArchived, &last, &a.Failed, &a.LastFailed, &failure)
	if last != nil {
		a.LastTime = *last
	}
	if failure != nil {
		a.LastFailure = *failure
	}
	return a, err
}
