package multicall

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// mountHelperName is what mount(8) looks for when it is told -t pitr.
const mountHelperName = "mount.pitr"

// errNoChild says that no process could be started.
var errNoChild = errors.New("no process can be started")

// mountHelperUsage is what --help prints.
const mountHelperUsage = `Usage: mount.pitr SOURCE DIR [-sfnv] [-o OPTION,...] [-t TYPE]

Mount the archives of a configuration file, or of a URL, on an empty directory, in the
background. mount(8) calls this for mount -t pitr and for lines of fstab.

  -o OPTION,...  ro, allow_other, uid=, gid=, cache=, cache_size=, on_error=block|fail,
                 retry=, ahead=, log=, debug; for a URL also identity_file=, known_hosts=,
                 host_key_policy=, ssh_timeout=, rate_limit=, layout=, pgdata=
  -s             drop options that are unknown
  -f             do everything but mount
  -v             tell every step
  -n, -t TYPE    mean nothing here
  -N NAMESPACE   is refused: nsenter --mount=NAMESPACE mount ...
`

// helperCall is a command line of mount.pitr.
type helperCall struct {
	source, dir  string
	words        mountWords
	sloppy, fake bool
}

// runMountHelper is mount.pitr.
func runMountHelper(ctx context.Context, c *call) error {
	if len(c.args) == 1 && (c.args[0] == "--help" || c.args[0] == "-h") {
		_, err := fmt.Fprint(c.stdout, mountHelperUsage)
		return errors.Join(err, errDone)
	}
	if len(c.args) == 1 && (c.args[0] == "--version" || c.args[0] == "-V") {
		_, err := fmt.Fprintln(c.stdout, thisBuild())
		return errors.Join(err, errDone)
	}
	h, err := c.parseHelper()
	if err != nil && len(hintsOf(err)) == 0 {
		err = hint(err, "mount.pitr SOURCE DIR [-sfnv] [-o OPTION,...]; mount.pitr --help")
	}
	if err != nil {
		return err
	}
	if h.words.debug {
		on := onOff("on")
		h.words.settings.Debug = &on
	}
	source, err := sourceOf(h.source, h.words.settings)
	if err != nil {
		return err
	}
	one := mounting{call: c, flags: h.words.flags, source: source, dir: h.dir}
	if h.fake {
		return one.rehearse()
	}
	err = one.detach(ctx)
	var child told
	if errors.As(err, &child) {
		return told(helperStatus(int(child)))
	}
	return err
}

// helperStatus is what mount(8) makes of a status of `pitr mount`.
func helperStatus(status int) int {
	switch {
	case status == statusOf(ErrUsage, colPitr):
		return statusOf(ErrUsage, colMount)
	case status > 128:
		return status
	}
	return doubts()[colMount]
}

// parseHelper reads the arguments as getopt does: options stand anywhere.
func (c *call) parseHelper() (helperCall, error) {
	var h helperCall
	var lists, words []string
	for rest := c.args; len(rest) > 0; {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			words = append(words, rest...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		letters, value := arg[1:], ""
		if at := strings.IndexAny(letters, "otN"); at >= 0 {
			letters, value = letters[:at+1], letters[at+1:]
			if value == "" && len(rest) > 0 {
				value, rest = rest[0], rest[1:]
			}
		}
		if err := h.letters(letters, value); err != nil {
			return h, err
		}
		if strings.HasSuffix(letters, "o") {
			lists = append(lists, value)
		}
	}
	if len(words) != 2 {
		return h, usagef("a source and a directory are needed, and there is %s", count(len(words), "word"))
	}
	h.source, h.dir = words[0], words[1]
	if err := h.words.take(strings.Join(lists, ","), c.drops(h.sloppy)); err != nil {
		return h, err
	}
	return h, h.words.flags.mustBeAbsolute()
}

// letters takes options of one letter; the last of them may have a value.
func (h *helperCall) letters(letters, value string) error {
	for _, letter := range letters {
		switch letter {
		case 's':
			h.sloppy = true
		case 'f':
			h.fake = true
		case 'v':
			h.words.debug = true
		case 'n':
		case 'o', 't':
			if value == "" {
				return usagef("-%c needs a value", letter)
			}
		case 'N':
			return hint(usagef("-N %s: this helper does not enter another namespace", value), "nsenter --mount=%s mount -t pitr ...", value)
		default:
			return usagef("unknown option -%c", letter)
		}
	}
	return nil
}

// drops tells which unknown options do not matter: none, unless mount(8) was told
// to be sloppy.
func (c *call) drops(sloppy bool) func(string) bool {
	return func(word string) bool {
		if sloppy {
			c.log.Debug("an option is dropped", "option", word)
		}
		return sloppy
	}
}

// rehearse is everything that needs neither the archive nor the mount.
func (m mounting) rehearse() error {
	cfg, err := m.source.config(m.call)
	if err != nil {
		return err
	}
	point, err := realDirectory(m.dir)
	if err != nil {
		return missing(err, m.dir)
	}
	if err := ownArchives(cfg.readFrom(), point); err != nil {
		return err
	}
	if _, err := m.flags.options(); err != nil {
		return err
	}
	_, _, _, err = m.flags.owner("")
	return err
}
