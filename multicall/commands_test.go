package multicall

import (
	"compress/gzip"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"pitr/archive/archivetest"
	"pitr/archive/wal"
)

// TestCommands runs the applets and the admin tool on a cluster that lies there
// without a server: testdata of package wal, from a real PostgreSQL 15.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/commands",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("PITR_ARCHIVE", "file://"+filepath.Join(e.WorkDir, "archive"))
			agents, err := os.MkdirTemp("/tmp", "pitr") // a socket's path is short
			e.Setenv("AGENTS", agents)
			e.Defer(func() { _ = os.RemoveAll(agents) })
			if err != nil {
				return err
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": cmdStatus, "cluster": cmdCluster, "flip": cmdFlip, "age": cmdAge, "truncate": cmdTruncate, "zeros": cmdZeros,
			"append": cmdAppend, "smaller": cmdSmaller, "waitfor": cmdWaitFor,
		},
	})
}

// cmdCluster is `cluster DIR`: a data directory with 7 segments of 1 MB from
// 000000010000000000000007 on, of which the first two are real.
func cmdCluster(ts *testscript.TestScript, _ bool, args []string) {
	dir, real := ts.MkAbs(args[0]), filepath.Join("..", "archive", "wal", "testdata", "pg15")
	ts.Check(os.MkdirAll(filepath.Join(dir, "pg_wal"), 0o700))
	ts.Check(os.MkdirAll(filepath.Join(dir, "global"), 0o700))
	ts.Check(copyFile(filepath.Join(real, "PG_VERSION"), filepath.Join(dir, "PG_VERSION")))
	ts.Check(copyFile(filepath.Join(real, "pg_control"), filepath.Join(dir, "global", "pg_control")))
	packed, err := filepath.Glob(filepath.Join(real, "0*.gz"))
	ts.Check(err)
	for _, p := range packed {
		ts.Check(copyFile(p, filepath.Join(dir, "pg_wal", strings.TrimSuffix(filepath.Base(p), ".gz"))))
	}
	control, err := wal.ReadControl(dir)
	ts.Check(err)
	more := archivetest.NewWAL(control.SystemID, control.Major, 1, control.SegmentSize, 9, 1)
	more.Prev = lastRecord(ts, filepath.Join(dir, "pg_wal"), wal.SegmentName(1, 8, control.SegmentSize), control.SegmentSize)
	for range 5 {
		name, content := more.Next()
		ts.Check(os.WriteFile(filepath.Join(dir, "pg_wal", name.String()), content, 0o600))
	}
}

// lastRecord finds the last record that begins in a segment.
func lastRecord(ts *testscript.TestScript, dir string, name wal.Name, size wal.SegmentSize) wal.LSN {
	f, err := os.Open(filepath.Join(dir, name.String()))
	ts.Check(err)
	defer f.Close()
	var last wal.LSN
	_, err = wal.WalkSegment(f, name, size, wal.WalkerOptions{OnRecord: func(r wal.Record) { last = r.LSN }})
	ts.Check(err)
	return last
}

// cmdWaitFor is `waitfor DIR`: until an agent listens there.
func cmdWaitFor(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(lifetime); ; time.Sleep(10 * time.Millisecond) {
		sockets, err := filepath.Glob(filepath.Join(args[0], "*.sock"))
		ts.Check(err)
		if len(sockets) > 0 {
			if c, err := net.Dial("unix", sockets[0]); err == nil {
				ts.Check(c.Close())
				return
			}
		}
		if time.Now().After(end) {
			ts.Fatalf("no agent listens")
		}
	}
}

// copyFile copies a file, unpacked if it is a .gz.
func copyFile(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(from, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// cmdFlip is `flip FILE [AT]`: one bit of that byte, or in the middle of it.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	content, err := os.ReadFile(name)
	ts.Check(err)
	at := int64(len(content) / 2)
	if len(args) > 1 {
		at, err = parseSize(args[1])
		ts.Check(err)
	}
	content[at] ^= 8
	ts.Check(os.WriteFile(name, content, 0o600))
}

// cmdTruncate is `truncate FILE BYTES SIZE`: what follows BYTES is zeros.
func cmdTruncate(ts *testscript.TestScript, _ bool, args []string) {
	for _, size := range args[1:] {
		n, err := parseSize(size)
		ts.Check(err)
		ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
	}
}

// cmdZeros is `zeros FILE SIZE`.
func cmdZeros(ts *testscript.TestScript, _ bool, args []string) {
	size, err := parseSize(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), make([]byte, size), 0o600))
}

// cmdAppend is `append FILE TEXT`.
func cmdAppend(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	content, err := os.ReadFile(name)
	ts.Check(err)
	ts.Check(os.WriteFile(name, append(content, args[1]...), 0o600))
}

// cmdSmaller is `smaller A B`: file A has fewer bytes than B.
func cmdSmaller(ts *testscript.TestScript, _ bool, args []string) {
	a, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if a.Size() >= b.Size() {
		ts.Fatalf("got %s with %d bytes, want fewer than the %d of %s", args[0], a.Size(), b.Size(), args[1])
	}
}

// cmdAge is `age FILE DURATION`: it was last written that long ago.
func cmdAge(ts *testscript.TestScript, _ bool, args []string) {
	age, err := parseDuration(args[1])
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	then := info.ModTime().Add(-age)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), then, then))
}
