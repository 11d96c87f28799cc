package multicall

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/files"
	"pitr/archive/local"
	"pitr/fusefs"
)

// table is what /proc/self/mountinfo says of a host with some mounts.
const table = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
40 22 0:41 / /mnt/a ro,nosuid,nodev,relatime shared:7 master:2 - fuse.pitr /etc/pitr/pitr.ini ro,user_id=0,group_id=0,default_permissions
41 22 0:42 / /mnt/with\040blank ro - fuse.pitr sftp://backup1/srv/a\040b ro,user_id=1000,group_id=1000
42 22 0:43 / /mnt/\134odd\011 rw - tmpfs tmp\043fs rw
43 22 0:41 /wal /srv/bound ro - fuse.pitr /etc/pitr/pitr.ini ro,user_id=0
44 22 0:44 / /mnt/covered ro - fuse.pitr below ro,user_id=0
45 44 0:45 / /mnt/covered rw - tmpfs above rw
46 40 0:46 / /mnt/a/wal rw - tmpfs inner rw
47 22 0:47 / /mnt/b ro - fuse.pitr b ro,user_id=0
`

func mountsOf(t *testing.T, text string) []mountEntry {
	t.Helper()
	all, err := parseMounts(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMountTable(t *testing.T) {
	all := mountsOf(t, table)
	for _, tt := range []struct {
		dir, source string
		pitr        bool
		owner       int
	}{
		{"/mnt/a", "/etc/pitr/pitr.ini", true, 0},
		{"/mnt/with blank", "sftp://backup1/srv/a b", true, 1000},
		{"/mnt/\\odd\t", "tmp#fs", false, nobody},
		{"/mnt/covered", "above", false, nobody}, // the last one is what one sees
	} {
		m, found := mountedAt(all, tt.dir)
		if !found || m.source != tt.source || m.isPitr() != tt.pitr || m.owner != tt.owner {
			t.Errorf("%q: got %+v, %v", tt.dir, m, found)
		}
	}
	if _, found := mountedAt(all, "/mnt/none"); found {
		t.Error("something is mounted where nothing is")
	}
	if inside := mountsBelow(all, "/mnt/a"); len(inside) != 1 || inside[0].source != "inner" {
		t.Errorf("below /mnt/a: got %+v", inside)
	}
	for _, bad := range []string{"nonsense\n", "1 2 0:1 / /x rw - ext4\n", "x 2 0:1 / /x rw - ext4 y rw\n"} {
		if _, err := parseMounts(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
	if own, err := readMounts(); err != nil || len(own) == 0 {
		t.Errorf("the mounts of this machine: got %d, %v", len(own), err)
	}
}

func TestOctalEscapesThatAreNone(t *testing.T) {
	for in, want := range map[string]string{`a\040b`: "a b", `\134040`: `\040`, `end\`: `end\`, `\04`: `\04`, `\999`: `\999`, "": ""} {
		if got := octalDecoded(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestArchiveThroughAMount(t *testing.T) {
	all := mountsOf(t, table)
	for path, want := range map[string]string{
		"/mnt/b":         "/mnt/b/wal",
		"/mnt/b/wal":     "/mnt/b/wal",
		"/mnt/b/backup":  "",
		"/srv/bound":     "/srv/bound", // wal/ of a mount, bound elsewhere
		"/mnt/bb":        "",           // no more than the beginning of its name
		"/mnt":           "",
		"/mnt/covered":   "",
		"/srv/ordinary":  "",
		"/mnt/a/wal/sub": "", // lies on what is mounted inside
	} {
		got, ok := seenThrough(all, path)
		if got.dir != want || ok != (want != "") {
			t.Errorf("%s: got %+v, %v, want %q", path, got, ok, want)
		}
	}
	if _, ok := throughMount(&url.URL{Scheme: "sftp", Host: "h", Path: "/mnt/a"}); ok {
		t.Error("an archive of another host was taken for a mount of this one")
	}
}

// Anybody may mount what calls itself pitr's: it vouches for nothing to others.
func TestMountOfAnotherUserIsNotTrusted(t *testing.T) {
	me := os.Geteuid()
	for owner, want := range map[int]bool{0: true, me: true, me + 1: false, nobody: false} {
		all := []mountEntry{{root: "/", point: "/mnt/x", kind: pitrType, owner: owner}}
		got, ok := seenThrough(all, "/mnt/x")
		if !ok || got.dir != "/mnt/x/wal" || got.trusted() != want {
			t.Errorf("a mount of user %d's: got %+v, %v, trusted %v", owner, got, ok, got.trusted())
		}
	}
}

func TestMountOptions(t *testing.T) {
	var w mountWords
	never := func(string) bool { return false }
	const list = "rw,ro,defaults,allow_other,uid=26,gid=staff,cache=/var/c,cache_size=4GB,on_error=fail,retry=1m,ahead=8,_netdev,noauto,nofail," +
		"user,users,user=joe,x-systemd.automount,x-systemd.device-timeout=10s,comment=anything,nosuid,nodev,noexec,relatime,log=/var/log/p,layout=flat,identity_file=/k,,debug"
	if err := w.take(list, never); err != nil {
		t.Fatal(err)
	}
	want := mountFlags{CacheDir: "/var/c", CacheSize: "4GB", OnError: "fail", Retry: "1m", Ahead: "8", AllowOther: true, UID: "26", GID: "staff", Log: "/var/log/p"}
	if w.flags != want {
		t.Errorf("got %+v, want %+v", w.flags, want)
	}
	if !w.debug || w.settings.Layout == nil || *w.settings.Layout != "flat" || *w.settings.IdentityFile != "/k" {
		t.Errorf("got settings %+v, debug %v", w.settings, w.debug)
	}
	o, err := w.flags.options()
	if err != nil || o.Cache.Bytes != 4<<30 || o.OnError != fusefs.Fail || o.Retry != time.Minute || o.Ahead != 8 {
		t.Errorf("got %+v, %v", o, err)
	}
}

func TestMountOptionsThatAreRefused(t *testing.T) {
	for list, says := range map[string]string{
		"alow_other":        `unknown option alow_other; did you mean "allow_other"?`,
		"cache-size=1GB":    `unknown option cache-size; did you mean "cache_size"?`,
		"nosiud":            `unknown option nosiud; did you mean "nosuid"?`,
		"ro=1":              `option ro has no value, and is given "1"`,
		"allow_other=1":     `option allow_other has no value, and is given "1"`,
		"uid":               "option uid needs a value; uid=...",
		"uid=":              "option uid needs a value; uid=...",
		"remount,ro":        "a mount of an archive cannot be changed; umount it, and mount it again",
		"ro,zzzzzzzzzzzzzz": "unknown option zzzzzzzzzzzzzz; known are: ",
	} {
		var w mountWords
		err := w.take(list, func(string) bool { return false })
		got := ""
		if err != nil {
			got = strings.Join(append([]string{err.Error()}, hintsOf(err)...), "; ")
		}
		if !strings.HasPrefix(got, says) || !errors.Is(err, ErrUsage) {
			t.Errorf("%s: got %q, want %q", list, got, says)
		}
	}
	var w mountWords
	if err := w.take("alow_other,uid=1", func(string) bool { return true }); err != nil || w.flags.UID != "1" {
		t.Errorf("sloppy: got %v, %+v", err, w.flags)
	}
}

func TestMountFlagsThatMakeNoSense(t *testing.T) {
	for _, f := range []mountFlags{
		{OnError: "wait"}, {Retry: "soon"}, {Ahead: "-1"}, {Ahead: "65"}, {Ahead: "many"}, {CacheSize: "0"}, {CacheSize: "much"},
	} {
		if _, err := f.options(); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: got %v", f, err)
		}
	}
	for _, f := range []mountFlags{{UID: "no such user"}, {GID: "no such group"}, {UID: "4294967295"}, {UID: "-1"}} {
		if _, _, _, err := f.owner(""); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: got %v", f, err)
		}
	}
}

// The kernel lets nobody in but the one who mounts: files that are somebody
// else's would be nobody's.
func TestMountOfAnothersFilesLetsOthersIn(t *testing.T) {
	me := uint32(os.Geteuid())
	for _, tt := range []struct {
		flags mountFlags
		uid   uint32
		allow bool
	}{
		{mountFlags{}, me, false},
		{mountFlags{AllowOther: true}, me, true},
		{mountFlags{UID: "54321"}, 54321, true},
	} {
		uid, _, allow, err := tt.flags.owner("")
		if err != nil || uid != tt.uid || allow != tt.allow {
			t.Errorf("%+v: got %d, %v, %v", tt.flags, uid, allow, err)
		}
	}
}

func TestMountCommandLineOfTheChild(t *testing.T) {
	layout := "flat"
	for _, tt := range []struct {
		word     string
		settings settingFlags
		want     []string
	}{
		{"", settingFlags{}, nil},
		{"/etc/a.ini", settingFlags{Layout: &layout}, []string{"--layout=flat", "-C", "/etc/a.ini"}},
		{"sftp://h/a", settingFlags{PGData: &layout}, []string{"--pgdata=flat", "-C", "sftp://h/a"}},
	} {
		source, err := sourceOf(tt.word, tt.settings)
		if err != nil {
			t.Fatal(err)
		}
		m := mounting{source: source, flags: mountFlags{UID: "7", AllowOther: true}, dir: "/mnt/-x"}
		words, err := m.words()
		want := append(append([]string{"pitr", "mount", "--background"}, tt.want...), "--uid=7", "--allow-other", "--", "/mnt/-x")
		if err != nil || !slices.Equal(words, want) {
			t.Errorf("got %q, %v, want %q", words, err, want)
		}
	}
	file := "/etc/a.ini"
	if _, err := sourceOf("/etc/b.ini", settingFlags{ConfigFile: &file}); !errors.Is(err, ErrUsage) {
		t.Errorf("two sources: got %v", err)
	}
}

// A URL stands for itself: a configuration that happens to be there may be
// another cluster's.
func TestMountOfAURLReadsNoFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pitr.ini")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := sourceOf("file:///srv/archive", settingFlags{})
	if err != nil {
		t.Fatal(err)
	}
	c := &call{environ: []string{configVariable + "=" + file}, surroundings: surroundings{defaultFile: file}}
	cfg, err := source.config(c)
	if err != nil || source.shown(cfg) != "file:///srv/archive" || len(cfg.Archive) != 1 {
		t.Errorf("got %v, %v", cfg.Archive, err)
	}
}

func TestMountHelperCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args string
		want helperCall
		bad  bool
	}{
		{args: "src /mnt -o rw", want: helperCall{source: "src", dir: "/mnt"}},
		{args: "src /mnt -sfnv -t pitr -o ro,uid=7", want: helperCall{source: "src", dir: "/mnt", sloppy: true, fake: true, words: mountWords{flags: mountFlags{UID: "7"}, debug: true}}},
		{args: "-o ro,nonsense -s src /mnt", want: helperCall{source: "src", dir: "/mnt", sloppy: true}},
		{args: "-nouid=7 -ogid=8 src /mnt", want: helperCall{source: "src", dir: "/mnt", words: mountWords{flags: mountFlags{UID: "7", GID: "8"}}}},
		{args: "-- -src /mnt", want: helperCall{source: "-src", dir: "/mnt"}},
		{args: "src", bad: true},
		{args: "src /mnt more", bad: true},
		{args: "src /mnt -o", bad: true},
		{args: "src /mnt -x", bad: true},
		{args: "src /mnt -N /proc/7/ns/mnt", bad: true},
		{args: "src /mnt -o nonsense", bad: true},
		{args: "src /mnt -o cache=/c,log=/l", want: helperCall{source: "src", dir: "/mnt", words: mountWords{flags: mountFlags{CacheDir: "/c", Log: "/l"}}}},
		{args: "src /mnt -o cache=c", bad: true},
		{args: "src /mnt -s -o log=./l", bad: true}, // -s drops what is unknown, and this is not
		{args: "", bad: true},
	} {
		c := &call{args: strings.Fields(tt.args), log: slog.New(slog.DiscardHandler)}
		got, err := c.parseHelper()
		if tt.bad {
			if !errors.Is(err, ErrUsage) {
				t.Errorf("%q: got %v", tt.args, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.args, got, err, tt.want)
		}
	}
}

func TestMountHelperStatuses(t *testing.T) {
	for child, want := range map[int]int{1: 32, 2: 1, 3: 32, 5: 32, 143: 143, 137: 137} {
		if got := helperStatus(child); got != want {
			t.Errorf("%d: got %d, want %d", child, got, want)
		}
	}
}

// What serves a mount would wait for itself.
func TestMountUponItsOwnArchiveIsRefused(t *testing.T) {
	dir := must(filepath.EvalSymlinks(t.TempDir()))
	point, link := filepath.Join(dir, "m"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(point, 0o700), os.Symlink("m", link), os.Mkdir(point+"x", 0o700)); err != nil {
		t.Fatal(err)
	}
	for path, refused := range map[string]bool{
		point: true, point + "/wal": true, point + "/../m/none/deep": true, link: true, link + "/a/b": true,
		point + "x": false, point + "x/m": false, dir: false, "/none/at/all": false,
	} {
		c := &call{args: []string{"file://" + path, point, "-f"}, log: slog.New(slog.DiscardHandler)}
		if err := runMountHelper(t.Context(), c); errors.Is(err, ErrUsage) != refused || (err != nil) != refused {
			t.Errorf("archive %s: got %v", path, err)
		}
		m := mounting{call: c, flags: mountFlags{CacheDir: path, Log: path}, dir: point}
		var o fusefs.Options
		if err := m.place(&o, point); errors.Is(err, ErrUsage) != refused || (err != nil) != refused {
			t.Errorf("cache %s: got %v", path, err)
		}
		if !refused {
			continue
		}
		if err := m.serveBehind(t.Context()); !errors.Is(err, ErrUsage) {
			t.Errorf("log %s: got %v", path, err)
		}
	}
	if left := must(os.ReadDir(point)); len(left) > 0 {
		t.Errorf("%s was written to: %v", point, left)
	}
	c := &call{environ: []string{"HOME=" + point, "XDG_CACHE_HOME=" + point}, surroundings: surroundings{uid: 1}}
	if err := (mounting{call: c}).place(&fusefs.Options{}, point); !errors.Is(err, ErrUsage) {
		t.Errorf("the usual cache: got %v", err)
	}
}

func TestMountPointThatIsNone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(filepath.Join(dir, "empty"), 0o700), os.Symlink("empty", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		filepath.Join(dir, "none"):         "is not there",
		filepath.Join(dir, "none", "deep"): "is not there",
		file:                               "is not a directory",
		dir:                                "is not empty",
	} {
		_, err := mountPoint(t.Context(), path, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), says) || len(hintsOf(err)) == 0 {
			t.Errorf("%s: got %v, %q", path, err, hintsOf(err))
		}
	}
	for _, path := range []string{"empty", "link"} {
		got, err := mountPoint(t.Context(), filepath.Join(dir, path), slog.New(slog.DiscardHandler))
		if err != nil || filepath.Base(got) != "empty" {
			t.Errorf("%s: got %s, %v", path, got, err)
		}
	}
}

func TestMountPointIsOnesWhoMounts(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	mine, err := claim(t.Context(), dir, log)
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := claim(ended, dir, log); !errors.Is(err, context.Canceled) {
		t.Errorf("while another one mounts there: got %v", err)
	}
	if err := mine.Close(); err != nil {
		t.Fatal(err)
	}
	mine, err = claim(ended, dir, log)
	if err != nil {
		t.Fatalf("after that: got %v", err)
	}
	_ = mine.Close()
}

func TestUmountOfWhatIsNoArchive(t *testing.T) {
	all := mountsOf(t, table)
	for dir, says := range map[string]string{
		"/":            "/ is not a mount of pitr: it is /dev/sda1 of type ext4",
		"/mnt/covered": "/mnt/covered is not a mount of pitr: it is above of type tmpfs",
		"/mnt/b/wal":   "nothing is mounted on /mnt/b/wal; the archive is mounted on /mnt/b",
		"/mnt/none":    "nothing is mounted on /mnt/none; archives are mounted on: /mnt/a, ",
	} {
		_, err := pitrAt(all, dir)
		got := ""
		if err != nil {
			got = strings.Join(append([]string{err.Error()}, hintsOf(err)...), "; ")
		}
		if !strings.HasPrefix(got, says) {
			t.Errorf("%s: got %q, want %q", dir, got, says)
		}
	}
	if _, err := pitrAt(all, "/mnt/a"); err != nil {
		t.Error(err)
	}
}

// TestHoldersAreFound takes a directory for a mount: what a process has below it
// is what keeps one busy.
func TestHoldersAreFound(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(open)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Dir, cmd.Stdin = dir, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()

	at := mountEntry{point: dir, device: "4000:1"}
	want := holder{cmd.Process.Pid, "sleep 1000", []string{"working directory " + dir, "open file " + open}}
	found, _ := holders(at)
	if len(found) != 1 || found[0].String() != want.String() {
		t.Errorf("got %v, want %v", found, want)
	}
	if err := busy(at, nil); !strings.Contains(err.Error(), want.String()) {
		t.Errorf("got %v", err)
	}
	elsewhere, _ := holders(mountEntry{point: dir + "x", device: "4000:1"})
	if len(elsewhere) > 0 {
		t.Errorf("got %v, who hold nothing", elsewhere)
	}
}

// TestMappedFilesAreFound maps this process's own program.
func TestMappedFilesAreFound(t *testing.T) {
	var st syscall.Stat_t
	self, err := os.Executable()
	if err == nil {
		err = syscall.Stat(self, &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, inside, found := mountOf(must(readMounts()), self)
	if !found {
		t.Fatalf("no mount holds %s", self)
	}
	want := "mapped file " + self
	if held := mappedBy("/proc/self", m); !slices.Contains(held, want) {
		t.Errorf("got %q, without %q (%s of %+v)", held, want, inside, m)
	}
	if got := inHex("259:17"); got != "103:11" {
		t.Errorf("got %s", got)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestManyHeldFilesAreCounted(t *testing.T) {
	h := holder{7, "cat", []string{"a", "b", "c", "d", "e"}}
	if got, want := h.String(), "process 7 (cat): a, b, c, 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestManyUsersAreCounted(t *testing.T) {
	users := strings.Split("abcdefghij", "")
	if got, want := firstOf(users), "a; b; c; d; e; f; g; h; i; j"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := firstOf(append(users, "k", "l")), "a; b; c; d; e; f; g; h; i; j; and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDaemonOfAMountIsNone(t *testing.T) {
	if d, found := daemonOf(mountEntry{point: "/no/such/mount", device: "0:4294967295"}); found {
		t.Errorf("got %+v", d)
	}
}

func TestStoppedProcessIsSeen(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	dir := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	if isStopped(dir) {
		t.Error("it runs, and counts as stopped")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if isStopped(dir) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is stopped, and does not count as that")
}

func TestServiceManagerIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{filepath.Join(dir, "notify"), "@pitr-test-" + filepath.Base(dir)} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c := &call{environ: []string{notifyVariable + "=" + name}}
		if err := c.notifyManager("READY=1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got := make([]byte, 64)
		_ = l.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := l.Read(got)
		if err != nil || string(got[:n]) != "READY=1" {
			t.Errorf("%s: got %q, %v", name, got[:n], err)
		}
	}
	for name, bad := range map[string]bool{"": false, "relative": true, filepath.Join(dir, "gone"): true} {
		c := &call{environ: []string{notifyVariable + "=" + name}}
		if err := c.notifyManager("READY=1"); (err != nil) != bad {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func TestMountHints(t *testing.T) {
	fine := mountFacts{capable: true, root: true, helper: true}
	with := func(change func(*mountFacts)) mountFacts { f := fine; change(&f); return f }
	for name, tt := range map[string]struct {
		facts mountFacts
		want  []string // what each hint holds
	}{
		"nothing is wrong":           {fine, nil},
		"no device":                  {with(func(f *mountFacts) { f.device = fs.ErrNotExist }), []string{"/dev/fuse is missing"}},
		"no module":                  {with(func(f *mountFacts) { f.device = syscall.ENODEV }), []string{"modprobe fuse"}},
		"a container without device": {with(func(f *mountFacts) { f.device = syscall.EPERM }), []string{"--device /dev/fuse"}},
		"root without capability":    {with(func(f *mountFacts) { f.capable = false }), []string{"--cap-add SYS_ADMIN"}},
		"a user, device 0600": {
			with(func(f *mountFacts) {
				f.root, f.capable, f.device = false, false, &fs.PathError{Op: "open", Path: fuseDevice, Err: syscall.EACCES}
			}),
			[]string{"chmod 666 /dev/fuse"},
		},
		"a user without helper": {with(func(f *mountFacts) { f.root, f.capable, f.helper = false, false, false }), []string{"install fuse3"}},
		"a user for others":     {with(func(f *mountFacts) { f.root, f.capable, f.others = false, false, true }), []string{"user_allow_other"}},
		"the same, allowed":     {with(func(f *mountFacts) { f.root, f.capable, f.others, f.mayOthers = false, false, true, true }), nil},
		"root for others":       {with(func(f *mountFacts) { f.others = true }), nil},
	} {
		got := tt.facts.hints()
		if len(got) != len(tt.want) {
			t.Errorf("%s: got %q", name, got)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: got %q, want %q", name, got[i], want)
			}
		}
	}
}

// Who can write to the cache decides what PostgreSQL replays.
func TestMountWithACacheOfEverybodysIsRefused(t *testing.T) {
	place, cache := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	store := files.NewStore(local.New(place), local.Writer())
	id := archive.Identity{SystemID: 5, Major: 15, SegmentSize: 1 << 20, Layout: archive.Tree, Codec: archive.Zstd, CreatedBy: "test"}
	if _, err := archive.Init(t.Context(), store, id); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(cache, 0o700), os.Chmod(cache, 0o777)); err != nil {
		t.Fatal(err)
	}
	m := mounting{call: &call{log: slog.New(slog.DiscardHandler)}}
	o := fusefs.Options{Archives: archive.Set{archive.New("a", store, archive.Options{})}, Cache: fusefs.CacheOptions{Dir: cache}, Log: m.call.log}
	if err := m.ask(t.Context(), &o); err != nil || o.Cache.Bytes != cacheDefault {
		t.Fatalf("got a cache of %d bytes, %v", o.Cache.Bytes, err)
	}
	_, err := m.mountOn(t.Context(), t.TempDir(), o)
	if !errors.Is(err, fusefs.ErrCacheUnsafe) || len(hintsOf(err)) != 1 || !strings.Contains(hintsOf(err)[0], "--cache-dir") {
		t.Errorf("got %v, %q", err, hintsOf(err))
	}
}

func TestFuseConfiguration(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "#user_allow_other\n": false, "mount_max = 3\nuser_allow_other\n": true, " user_allow_other ": true, "user_allow_other=1\n": false,
	} {
		if got := allowsOthers([]byte(text)); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

// TestMountLogHasTimeInAFile: PostgreSQL's log and syslog have their own.
func TestMountLogHasTimeInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	m := mounting{flags: mountFlags{Log: file}}
	w, f, err := m.openLog()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := w.Write([]byte("pitr: INFO: mounted\npitr: more\n")); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(must(os.ReadFile(file)))), "\n")
	for i, want := range []string{"pitr: INFO: mounted", "pitr: more"} {
		stamp, rest, _ := strings.Cut(lines[i], " pitr")
		if _, err := time.Parse("2006-01-02 15:04:05.000 MST", stamp); err != nil || "pitr"+rest != want {
			t.Errorf("got %q", lines[i])
		}
	}
	if _, _, err := (mounting{flags: mountFlags{Log: filepath.Dir(file)}}).openLog(); err == nil {
		t.Error("a directory is no log")
	}
}

func TestOnlyOrdinarySignalsEndAMountWell(t *testing.T) {
	for sig, want := range map[syscall.Signal]bool{syscall.SIGTERM: true, syscall.SIGINT: true, syscall.SIGHUP: false} {
		if got := toldToEnd(interrupted(sig)); got != want {
			t.Errorf("%v: got %v", sig, got)
		}
	}
	if toldToEnd(context.Canceled) {
		t.Error("a context that ended is no signal")
	}
}
