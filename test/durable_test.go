package test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSuccessIsSaidAfterEverySync: what the system was asked to do, in this
// order, before status 0. Tests in memory believe a sync; this one has seen it.
func TestSuccessIsSaidAfterEverySync(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed: run test/setup")
	}
	c := newCluster(t, 15, 1)
	c.set("archive_mode = on", "archive_command = 'false'")
	c.start()
	c.sql("CREATE TABLE ledger (id int); SELECT pg_switch_wal()")
	segment := c.status(".ready")[0]
	c.kill()
	for form, want := range map[string]struct{ init, put, found []string }{
		"tree": {
			init: []string{"sync ..",
				"write wal/TEMP", "sync wal/TEMP", "rename wal/TEMP wal/archive.id", "sync wal", "sync .",
				"write .tmp-pending/TEMP", "sync .tmp-pending/TEMP", "rename .tmp-pending/TEMP archive.json", "sync ."},
			put:   []string{"write wal/TEMP", "sync wal/TEMP", "rename wal/TEMP wal/DIR/SEGMENT.zst", "sync wal/DIR", "sync wal", "sync ."},
			found: []string{"sync wal/DIR/SEGMENT.zst", "sync wal/DIR", "sync wal", "sync ."},
		},
		"flat": {
			init: []string{"sync ..",
				"write .tmp-pending/TEMP", "sync .tmp-pending/TEMP", "rename .tmp-pending/TEMP archive.json", "sync ."},
			put:   []string{"write .tmp-pending/TEMP", "sync .tmp-pending/TEMP", "rename .tmp-pending/TEMP SEGMENT", "sync ."},
			found: []string{"sync SEGMENT", "sync ."},
		},
	} {
		a := &archive{t: t, dir: filepath.Join(newDirectory(t, "a"), "archive")}
		config := c.configure([]*archive{a})
		push := []string{home.applet("archive_command"), "-C", config, filepath.Join("pg_wal", segment)}
		a.wantCalls(c, segment, form+", init", want.init, home.pitr, "init", "-C", config, "--layout", form)
		a.wantCalls(c, segment, form+", put", want.put, push...)
		a.wantCalls(c, segment, form+", found", want.found, push...)
	}
}

// wantCalls runs a command and compares what it does to the archive, before it
// ends with success.
func (a *archive) wantCalls(c *cluster, segment, what string, want []string, command ...string) {
	a.t.Helper()
	trace := filepath.Join(c.dir, "trace")
	cmd := home.command("strace", append([]string{"-f", "-y", "-s", "0", "-o", trace,
		"-e", "trace=write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,link,linkat,exit_group"}, command...)...)
	cmd.Dir = c.data
	if r := run(cmd); r.status != 0 {
		a.t.Fatal(r)
	}
	names := strings.NewReplacer(segment[:16]+"/"+segment, "DIR/SEGMENT", segment[:16]+"\n", "DIR\n", segment, "SEGMENT")
	text := names.Replace(strings.Join(a.calls(string(readFile(a.t, trace))), "\n") + "\n")
	got := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if want = append(slices.Clone(want), "exit 0"); !slices.Equal(got, want) {
		a.t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

var (
	temporary = regexp.MustCompile(`\.tmp-[^/ ]*-[0-9a-f]{16}`)
	onFile    = regexp.MustCompile(`^(write|pwrite64|writev|fsync|fdatasync)\(\d+<([^>]*)>.* = \d+$`)
	onNames   = regexp.MustCompile(`^(?:rename|link)[a-z0-9]*\([^"]*"([^"]*)"[^"]*"([^"]*)".* = 0$`)
	atTheEnd  = regexp.MustCompile(`^exit_group\((\d+)\)`)
)

// done is what the calls on an open file come to.
var done = map[string]string{"write": "write", "pwrite64": "write", "writev": "write", "fsync": "sync", "fdatasync": "sync"}

// calls is what a trace tells of the archive: names are relative to it. Writes
// to one file, one after the other, count as one.
func (a *archive) calls(trace string) []string {
	var all []string
	for _, line := range completed(trace) {
		call := ""
		if m := onFile.FindStringSubmatch(line); m != nil && a.within(m[2]) {
			call = done[m[1]] + " " + a.relative(m[2])
		} else if m := onNames.FindStringSubmatch(line); m != nil && a.within(m[2]) {
			call = "rename " + a.relative(m[1]) + " " + a.relative(m[2])
		} else if m := atTheEnd.FindStringSubmatch(line); m != nil {
			call = "exit " + m[1]
		}
		if call != "" {
			all = append(all, call)
		}
	}
	return slices.Compact(all)
}

// within tells whether a path is the archive's, or that of the directory which
// holds it.
func (a *archive) within(path string) bool {
	return strings.HasPrefix(path+"/", a.dir+"/") || path == filepath.Dir(a.dir)
}

func (a *archive) relative(path string) string {
	name, err := filepath.Rel(a.dir, path)
	check(a.t, err)
	return temporary.ReplaceAllString(name, "TEMP")
}

// completed are the calls of a trace, each where it came back: strace tears
// those apart during which another thread does something.
func completed(trace string) (calls []string) {
	begun := map[string]string{}
	for line := range strings.Lines(trace) {
		pid, call, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		call = strings.TrimLeft(call, " ")
		if head, torn := strings.CutSuffix(call, " <unfinished ...>"); torn {
			begun[pid] = head
			continue
		}
		if _, rest, resumed := strings.Cut(call, " resumed>"); resumed && strings.HasPrefix(call, "<... ") {
			call = begun[pid] + rest
		}
		calls = append(calls, call)
	}
	return calls
}
