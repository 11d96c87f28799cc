package multicall

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// parseArchives reads a comma list of archives. Line breaks may follow the
// commas. A comma that belongs to a path is written %2C.
func parseArchives(v string) ([]*url.URL, error) {
	if v == "" {
		return nil, nil
	}
	var urls []*url.URL
	for item := range strings.SplitSeq(v, ",") {
		u, err := parseArchive(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		if names(urls, u) {
			return nil, fmt.Errorf("%q is there twice", u)
		}
		urls = append(urls, u)
	}
	return urls, nil
}

// setArchives reads the list of archives, of which each may be followed by the
// word that says when PostgreSQL may be told that it has a file.
func setArchives(c *Config, v string) error {
	var items []string
	var queued []bool
	for item := range strings.SplitSeq(v, ",") {
		u, word := strings.TrimSpace(item), ""
		if at := strings.LastIndexAny(u, " \t"); at >= 0 {
			word = strings.ToLower(u[at+1:])
		}
		if word == "required" || word == "queued" {
			u = strings.TrimSpace(u[:len(u)-len(word)])
		}
		items, queued = append(items, u), append(queued, word == "queued")
	}
	all, err := parseArchives(strings.Join(items, ","))
	if err != nil {
		return err
	}
	c.Archive = all
	for i, u := range all {
		if strings.ContainsAny(items[i], " \t") {
			return hint(fmt.Errorf("%q: what follows an archive is required or queued", items[i]), "a space in a path is written %%20.")
		}
		if queued[i] {
			c.Queued = append(c.Queued, u)
		}
	}
	return nil
}

// parseArchive reads one archive: file:// or sftp:// with an absolute path.
// Its errors show the text without a password; those of net/url would not.
func parseArchive(s string) (*url.URL, error) {
	switch {
	case s == "":
		return nil, errors.New("the list has an empty entry")
	case strings.HasPrefix(s, "/"):
		return nil, hint(fmt.Errorf("%q is not a URL", s), "write file://%s", (&url.URL{Path: s}).EscapedPath())
	case strings.ContainsAny(s, "\n\r"):
		return nil, hint(fmt.Errorf("%q is more than one line", redacted(s)), "archives are separated by commas; an indented line continues the one above.")
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		err := fmt.Errorf("%q is not a URL", redacted(s))
		if strings.Contains(s, "%") {
			err = hint(err, "in a path, %% is written %%25.")
		}
		return nil, err
	}
	switch u.Scheme {
	case "file":
		return fileURL(s, u)
	case "sftp":
		return sftpURL(s, u)
	}
	return nil, fmt.Errorf("%q: this version knows file:// and sftp:// only", redacted(s))
}

func fileURL(s string, u *url.URL) (*url.URL, error) {
	if u.Host != "" || u.User != nil {
		return nil, hint(fmt.Errorf("%q names a host, and file:// is always this one", redacted(s)), "an absolute path has three slashes: file:///srv/archive")
	}
	if err := onlyPath(s, u); err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "file", Path: path.Clean(u.Path)}, nil
}

// sftpURL accepts sftp://user@host:port/abs/dir. User and port may be missing.
func sftpURL(s string, u *url.URL) (*url.URL, error) {
	user := u.User.Username()
	_, password := u.User.Password()
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "22"), 10, 16)
	switch {
	case password:
		return nil, hint(fmt.Errorf("%q has a password in it", redacted(s)), "pitr logs in with keys: leave the password out, and see identity_file.")
	case u.Host == "":
		return nil, hint(fmt.Errorf("%q names no host", s), "write sftp://user@host/srv/archive")
	case err != nil || port == 0:
		return nil, fmt.Errorf("%q has no port that can be: %q", s, u.Port())
	case strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%q has no port after its colon", s)
	}
	if err := errors.Join(hostName(u.Hostname()), userName(user)); err != nil {
		return nil, fmt.Errorf("%q: %w", s, err)
	}
	if err := onlyPath(s, u); err != nil {
		return nil, err
	}
	clean := &url.URL{Scheme: "sftp", Host: u.Host, Path: path.Clean(u.Path)}
	if user != "" {
		clean.User = url.User(user)
	}
	return clean, nil
}

// onlyPath refuses what an archive's URL has no use for.
func onlyPath(s string, u *url.URL) error {
	switch {
	case u.Opaque != "" || !strings.HasPrefix(u.Path, "/"):
		return fmt.Errorf("%q has no absolute path", s)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return hint(fmt.Errorf("%q has more than a path", redacted(s)), "in a path, ? is written %%3F and # is written %%23.")
	case strings.ContainsRune(u.Path, 0):
		return fmt.Errorf("%q has a zero byte in it", s)
	case path.Clean(u.Path) == "/":
		return fmt.Errorf("%q is the root of the file system", s)
	}
	return nil
}

// names tells whether the list has this archive.
func names(list []*url.URL, u *url.URL) bool {
	for _, have := range list {
		if have.String() == u.String() {
			return true
		}
	}
	return false
}

// redacted is the text without the passwords of its URLs. It is generous: what
// is hidden without need does no harm.
func redacted(s string) string {
	first, rest, found := strings.Cut(s, "://")
	if !found || !strings.Contains(s, "@") {
		return s
	}
	return first + "://" + redactedAuthority(rest)
}

// redactedAuthority hides what stands between the first colon of an authority,
// unless that begins a port, and the last @ before the next URL.
func redactedAuthority(s string) string {
	here, next, more := strings.Cut(s, "://")
	if more {
		next = "://" + redactedAuthority(next)
	}
	user, password, _ := strings.Cut(here, ":")
	port, _ := span(password, "0123456789")
	end := strings.LastIndex(password, "@")
	if strings.ContainsAny(user, "/@ ") || end < 0 || strings.HasPrefix(password[len(port):], "/") {
		return here + next
	}
	return user + ":***" + password[end:] + next
}

// holdsPassword tells whether some URL in the text has a password.
func holdsPassword(s string) bool { return redacted(s) != s }
