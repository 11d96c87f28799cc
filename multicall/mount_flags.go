package multicall

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"pitr/fusefs"
)

// mountFlags are how an archive is shown: flags of `pitr mount`, options of
// mount.pitr. What is empty is the default.
type mountFlags struct {
	CacheDir   string `placeholder:"DIR" help:"Where verified segments are kept; it may be deleted at any time. Default: one for each mount point, in /var/cache/pitr or ~/.cache/pitr."`
	CacheSize  string `placeholder:"SIZE" help:"How large the cache may become. Default: 2GB, or 8 segments where that is more."`
	OnError    string `placeholder:"WORD" help:"What readers get while no archive answers: block (they wait for --retry) or fail (an error at once). Default: block."`
	Retry      string `placeholder:"TIME" help:"How long a reader waits then. Default: 10m."`
	Ahead      string `placeholder:"N" help:"How many segments are fetched ahead of a reader in sequence; 0 is none. Default: 4."`
	AllowOther bool   `help:"Let other users in. It is implied where the files are shown as another user's than the one who mounts."`
	UID        string `name:"uid" placeholder:"USER" help:"Whose the files are. Default: the owner of pgdata if root mounts, else who mounts."`
	GID        string `name:"gid" placeholder:"GROUP" help:"Their group. Default: that of the user."`
	Log        string `placeholder:"FILE" help:"Where a mount in the background tells what happens. Default: syslog."`
}

// words are the flags as a command line has them.
func (f mountFlags) words() []string {
	var words []string
	add := func(flag, v string) {
		if v != "" {
			words = append(words, flag+"="+v)
		}
	}
	add("--cache-dir", f.CacheDir)
	add("--cache-size", f.CacheSize)
	add("--on-error", f.OnError)
	add("--retry", f.Retry)
	add("--ahead", f.Ahead)
	add("--uid", f.UID)
	add("--gid", f.GID)
	add("--log", f.Log)
	if f.AllowOther {
		words = append(words, "--allow-other")
	}
	return words
}

// absolute makes the paths good for a process that works in another directory.
func (f mountFlags) absolute() (mountFlags, error) {
	for _, p := range []*string{&f.CacheDir, &f.Log} {
		if *p == "" {
			continue
		}
		full, err := filepath.Abs(*p)
		if err != nil {
			return f, err
		}
		*p = full
	}
	return f, nil
}

// mustBeAbsolute refuses paths that would depend on where mount(8) was called.
func (f mountFlags) mustBeAbsolute() error {
	for option, path := range map[string]string{"cache": f.CacheDir, "log": f.Log} {
		if path != "" && !filepath.IsAbs(path) {
			return usagef("option %s needs an absolute path, and is given %q", option, path)
		}
	}
	return nil
}

// options are what the flags ask of the file system. All problems are usage
// errors.
func (f mountFlags) options() (o fusefs.Options, err error) {
	var word string
	bad := func(flag string, e error) {
		if e != nil {
			err = errors.Join(err, classed{fmt.Errorf("%s: %w", flag, e), ErrUsage})
		}
	}
	if f.OnError != "" {
		bad("on-error", oneOf(&word, f.OnError, "block", "fail"))
	}
	if word == "fail" {
		o.OnError = fusefs.Fail
	}
	if f.Retry != "" {
		var e error
		o.Retry, e = parseDuration(f.Retry)
		bad("retry", e)
		if e == nil && o.Retry == 0 {
			o.OnError, o.Retry = fusefs.Fail, time.Second // once, as restore_retry has it
		}
	}
	if f.Ahead != "" {
		n, e := strconv.Atoi(f.Ahead)
		if e != nil || n < 0 || n > mostAhead {
			bad("ahead", fmt.Errorf("%q is not a number from 0 to %d", f.Ahead, mostAhead))
		}
		if o.Ahead = n; n == 0 {
			o.Ahead = -1
		}
	}
	if f.CacheSize != "" {
		var e error
		o.Cache.Bytes, e = parseSize(f.CacheSize)
		if e == nil && o.Cache.Bytes == 0 {
			e = hint(errors.New("0 leaves no room for a segment"), "a cache holds what is being read: at least one segment for each reader.")
		}
		bad("cache-size", e)
	}
	return o, err
}

// mostAhead is more than any reader outruns.
const mostAhead = 64

// owner is whose the files are: those named, else the owner of the data directory
// if root mounts, else who mounts. allow tells whether others than the one who
// mounts have to be let in for that.
func (f mountFlags) owner(pgdata string) (uid, gid uint32, allow bool, err error) {
	me := uint32(os.Geteuid())
	uid, gid = me, uint32(os.Getegid())
	if info, e := os.Stat(pgdata); me == 0 && pgdata != "" && e == nil && isHostRoot() {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = st.Uid, st.Gid
		}
	}
	if f.UID != "" {
		if uid, gid, err = lookUpUser(f.UID, gid); err != nil {
			return 0, 0, false, err
		}
	}
	if f.GID != "" {
		if gid, err = lookUpGroup(f.GID); err != nil {
			return 0, 0, false, err
		}
	}
	return uid, gid, f.AllowOther || uid != me, nil
}

// lookUpUser finds a user by number or name, with its group if it has one.
func lookUpUser(text string, otherwise uint32) (uid, gid uint32, err error) {
	u, lost := user.Lookup(text)
	if lost != nil {
		n, bad := parseID(text)
		if bad != nil {
			return 0, 0, usagef("uid: there is no user %q", text)
		}
		if u, lost = user.LookupId(text); lost != nil {
			return n, otherwise, nil
		}
	}
	uid, err1 := parseID(u.Uid)
	gid, err2 := parseID(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

func lookUpGroup(text string) (uint32, error) {
	if g, err := user.LookupGroup(text); err == nil {
		return parseID(g.Gid)
	}
	n, err := parseID(text)
	if err != nil {
		return 0, usagef("gid: there is no group %q", text)
	}
	return n, nil
}

func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err == nil && n == math.MaxUint32 {
		err = errors.New("it stands for no user at all")
	}
	return uint32(n), err
}
