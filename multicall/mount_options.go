package multicall

import (
	"slices"
	"strings"
)

// mountWords is what a list of options, as mount(8) and fstab(5) have it, comes
// to.
type mountWords struct {
	flags    mountFlags
	settings settingFlags
	debug    bool
}

// mountOption is a word of such a list.
type mountOption struct {
	name string
	// set takes the value, "" where there is none; nil: it says nothing to us.
	set func(*mountWords, string)
	// bare: it has no value.
	bare bool
}

// mountOptions is the table of options that mean something to pitr.
func mountOptions() []mountOption {
	return []mountOption{
		{name: "cache", set: func(w *mountWords, v string) { w.flags.CacheDir = v }},
		{name: "cache_size", set: func(w *mountWords, v string) { w.flags.CacheSize = v }},
		{name: "on_error", set: func(w *mountWords, v string) { w.flags.OnError = v }},
		{name: "retry", set: func(w *mountWords, v string) { w.flags.Retry = v }},
		{name: "ahead", set: func(w *mountWords, v string) { w.flags.Ahead = v }},
		{name: "uid", set: func(w *mountWords, v string) { w.flags.UID = v }},
		{name: "gid", set: func(w *mountWords, v string) { w.flags.GID = v }},
		{name: "log", set: func(w *mountWords, v string) { w.flags.Log = v }},
		{name: "allow_other", bare: true, set: func(w *mountWords, _ string) { w.flags.AllowOther = true }},
		{name: "debug", bare: true, set: func(w *mountWords, _ string) { w.debug = true }},
		// Settings, for an archive that is named by its URL.
		{name: "pgdata", set: func(w *mountWords, v string) { w.settings.PGData = &v }},
		{name: "layout", set: func(w *mountWords, v string) { w.settings.Layout = &v }},
		{name: "identity_file", set: func(w *mountWords, v string) { w.settings.IdentityFile = &v }},
		{name: "known_hosts", set: func(w *mountWords, v string) { w.settings.KnownHosts = &v }},
		{name: "host_key_policy", set: func(w *mountWords, v string) { w.settings.HostKeyPolicy = &v }},
		{name: "ssh_timeout", set: func(w *mountWords, v string) { w.settings.SSHTimeout = &v }},
		{name: "rate_limit", set: func(w *mountWords, v string) { w.settings.RateLimit = &v }},
	}
}

// kernelOptions are everybody's. The mount is read-only, nosuid and nodev
// whatever they say; the rest is for mount(8), systemd and the like.
func kernelOptions() []string {
	return []string{
		"ro", "rw", "defaults", "_netdev", "auto", "noauto", "nofail", "user", "nouser", "users", "owner", "group",
		"suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
		"strictatime", "nostrictatime", "lazytime", "nolazytime", "sync", "async", "dirsync", "silent", "loud", "mand", "nomand", "iversion", "noiversion",
		"default_permissions",
	}
}

// forOthers are options that carry a value for somebody else.
func forOthers(name string) bool {
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || name == "comment" || name == "user"
}

// take reads a list of options. An unknown one is an error, unless sloppy, which
// drops it.
func (w *mountWords) take(list string, sloppy func(word string) bool) error {
	for word := range strings.SplitSeq(list, ",") {
		name, value, hasValue := strings.Cut(word, "=")
		switch {
		case word == "", forOthers(name), !hasValue && slices.Contains(kernelOptions(), name):
			continue
		case name == "remount":
			return hint(usagef("a mount of an archive cannot be changed"), "umount it, and mount it again")
		}
		if err := w.one(name, value, hasValue); err != nil && !sloppy(word) {
			return err
		}
	}
	return nil
}

// one takes an option that ought to be ours.
func (w *mountWords) one(name, value string, hasValue bool) error {
	known := kernelOptions()
	for _, o := range mountOptions() {
		known = append(known, o.name)
		switch {
		case o.name != name:
		case o.bare && hasValue:
			return usagef("option %s has no value, and is given %q", name, value)
		case !o.bare && value == "":
			return hint(usagef("option %s needs a value", name), "%s=...", name)
		default:
			o.set(w, value)
			return nil
		}
	}
	if slices.Contains(kernelOptions(), name) {
		return usagef("option %s has no value, and is given %q", name, value)
	}
	return hint(usagef("unknown option %s", name), "%s", didYouMean(name, known))
}
