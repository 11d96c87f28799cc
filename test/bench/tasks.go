package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"pitr/test/sshd"
)

// bench is the place where everything lies: WAL, archives, results.
type bench struct {
	dir, pitr string
	server    string              // where PostgreSQL's programs are
	user      *syscall.Credential // who archives and who serves; nil is this process's user
	keys      sshd.Keys
	segments  []string // paths of pgbench WAL
	fars      int      // how many far sides there were so far
	own       string   // a data directory instead of that of the server that has made the segments
	warned    bool     // that the cache cannot be emptied
}

// forms are the archives that are measured, with the flags of pitr init.
var forms = []struct {
	name  string
	flags []string
}{
	{"tree, zstd 1", nil},
	{"tree, raw", []string{"--compress=none"}},
	{"flat, raw", []string{"--layout=flat"}},
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

// prepare makes real WAL, the archives, and a Go program that does nothing.
func (b *bench) prepare(segments int) error {
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if err := b.chooseUser(); err != nil {
		return err
	}
	if err := b.makeWAL(segments); err != nil {
		return fmt.Errorf("make WAL: %w", err)
	}
	for i, f := range forms {
		if out, err := b.call(i, append([]string{"init", "--force"}, f.flags...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("init: %w: %s", err, out)
		}
	}
	return b.buildNothing()
}

func (b *bench) buildNothing() error {
	nothing := b.path("nothing.go")
	if err := os.WriteFile(nothing, []byte("package main\n\nimport \"os\"\n\nfunc main() { os.Exit(1) }\n"), 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.path("nothing"), nothing)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// makeWAL runs pgbench on a server of its own until there are so many segments,
// as the user postgres if this is root. They stay in its pg_wal, too. They begin
// with the one that a base backup begins in.
func (b *bench) makeWAL(segments int) error {
	script := fmt.Sprintf(`set -e
cd %[1]s/server
%[2]s/initdb -D d -A trust -U postgres >/dev/null
mkdir wal
cat >>d/postgresql.conf <<END
listen_addresses = ''
unix_socket_directories = '$PWD'
archive_mode = on
archive_command = 'cp %%p $PWD/wal/%%f'
max_wal_size = 8GB
wal_keep_size = 8GB
checkpoint_timeout = 1h
fsync = off
END
%[2]s/pg_ctl -D d -l log -w start >/dev/null
trap '%[2]s/pg_ctl -D d -m fast stop >/dev/null' EXIT
%[2]s/pgbench -h $PWD -U postgres -i -s 20 -q postgres >/dev/null 2>&1
%[2]s/pg_basebackup -h $PWD -U postgres -D base -X none -c fast 2>/dev/null
begins=$(basename wal/*.backup | cut -c1-24)
for i in $(seq 60); do
  [ $(ls wal | awk -v b=$begins 'length($0) == 24 && $0 >= b' | wc -l) -le %[3]d ] || break
  %[2]s/psql -h $PWD -U postgres -Xqc CHECKPOINT postgres # whole pages follow
  %[2]s/pgbench -h $PWD -U postgres -c 4 -T 3 postgres >/dev/null 2>&1
done
`, b.dir, b.server, segments+1)
	home := b.path("server")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	shell := []string{"sh", "-c", script}
	if os.Getuid() == 0 {
		if out, err := exec.Command("chown", "postgres", home).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		shell = append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"}, shell...)
	}
	if out, err := exec.Command(shell[0], shell[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	labels, err := filepath.Glob(b.path("server", "wal", "*.backup"))
	if err != nil || len(labels) != 1 {
		return errors.Join(err, fmt.Errorf("%d base backups", len(labels)))
	}
	all, err := filepath.Glob(b.path("server", "wal", strings.Repeat("[0-9A-F]", 24)))
	all = slices.DeleteFunc(all, func(path string) bool { return filepath.Base(path) < filepath.Base(labels[0])[:24] })
	slices.Sort(all)
	if len(all) < segments {
		return fmt.Errorf("%d segments, want %d", len(all), segments)
	}
	b.segments = all[:segments] // pgbench's, not those of the initial load
	return err
}

// call is pitr on the archive of a form, with no other settings.
func (b *bench) call(form int, args ...string) *exec.Cmd {
	cmd := exec.Command(b.pitr, args...)
	cmd.Dir = b.dir
	cmd.Env = []string{"PITR_AGENT=off", "PITR_ARCHIVE=file://" + b.path(fmt.Sprintf("archive%d", form)), "PITR_PGDATA=" + b.path("server", "d")}
	return cmd
}

func (b *bench) localTasks() []*task {
	push := &task{name: "push one 16 MB segment"}
	found := &task{name: "push a segment that is there already"}
	get := &task{name: "get one 16 MB segment"}
	push.contenders = append(push.contenders, b.copyAndSync("cp.%d"))
	found.contenders = append(found.contenders, b.copyAndSync("again.%d"))
	get.contenders = append(get.contenders, b.copyBack())
	for i, f := range forms {
		push.contenders = append(push.contenders, &contender{
			name:    "archive_command (" + f.name + ")",
			command: func(n int) *exec.Cmd { return b.call(i, "archive_command", b.segments[n]) },
		})
		found.contenders = append(found.contenders, &contender{
			name:    "archive_command (" + f.name + ")",
			command: func(n int) *exec.Cmd { return b.call(i, "archive_command", b.segments[n]) },
		})
		get.contenders = append(get.contenders, &contender{
			name: "restore_command (" + f.name + ")",
			command: func(n int) *exec.Cmd {
				return b.call(i, "restore_command", filepath.Base(b.segments[n]), b.path("restored"))
			},
			check: func(n int) error { return same(b.segments[n], b.path("restored")) },
		})
	}
	return []*task{push, found, get, b.absent()}
}

// copyAndSync is cp and fsync in one process.
func (b *bench) copyAndSync(pattern string) *contender {
	return &contender{name: "dd conv=fsync", command: func(n int) *exec.Cmd {
		return exec.Command("dd", "if="+b.segments[n], "of="+b.path(fmt.Sprintf(pattern, n)), "bs=1M", "conv=fsync")
	}}
}

func (b *bench) copyBack() *contender {
	return &contender{
		name:    "cp",
		command: func(n int) *exec.Cmd { return exec.Command("cp", b.path(fmt.Sprintf("cp.%d", n)), b.path("copied")) },
		before:  func(int) error { return ignoreAbsent(os.Remove(b.path("copied"))) },
	}
}

func ignoreAbsent(err error) error {
	if os.IsNotExist(err) || err == syscall.ENOENT {
		return nil
	}
	return err
}

// absent is the answer to a name that is not there.
func (b *bench) absent() *task {
	t := &task{name: "restore_command for an absent name"}
	t.contenders = []*contender{{
		name: "a Go program that exits", status: 1,
		command: func(int) *exec.Cmd { return exec.Command(b.path("nothing")) },
	}}
	last := filepath.Base(b.segments[len(b.segments)-1])
	beyond := strings.ToUpper(last[:16]) + "000000FF"
	for i, f := range forms {
		t.contenders = append(t.contenders, &contender{
			name: "restore_command (" + f.name + ")", status: 1,
			command: func(int) *exec.Cmd { return b.call(i, "restore_command", beyond, b.path("restored")) },
		})
	}
	return t
}

// same compares files in another process: what this one has in memory would
// count as the peak of the next command, which begins as a copy of it.
func same(a, b string) error {
	if out, err := exec.Command("cmp", a, b).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
