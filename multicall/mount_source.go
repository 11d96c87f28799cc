package multicall

import (
	"path/filepath"
	"strings"
)

// isURL tells an archive from a configuration file.
func isURL(source string) bool { return strings.Contains(source, "://") }

// mountSource is what is mounted: a configuration file, an archive's URL, or
// what the settings say, if it is empty.
type mountSource struct {
	text     string
	settings settingFlags
}

// sourceOf finds what is meant by the word before the directory, or by -C. Both
// may be a configuration file or a URL.
func sourceOf(word string, settings settingFlags) (mountSource, error) {
	text := word
	if settings.ConfigFile != nil {
		if word != "" {
			return mountSource{}, hint(usagef("there are two sources: %s and -C %s", word, *settings.ConfigFile), "name one: pitr mount SOURCE DIR")
		}
		text, settings.ConfigFile = *settings.ConfigFile, nil
	}
	s := mountSource{text: text, settings: settings}
	switch {
	case text == "":
	case isURL(text):
		if settings.Archive != nil {
			return s, hint(usagef("there are two sources: %s and --archive %s", text, *settings.Archive), "name one: pitr mount SOURCE DIR")
		}
		s.settings.Archive = &s.text
	default:
		full, err := filepath.Abs(text)
		if err != nil {
			return s, err
		}
		s.text, s.settings.ConfigFile = full, &full
	}
	return s, nil
}

// config is the configuration in force. A URL stands for itself: no file is read
// with it, which could be another cluster's.
func (s mountSource) config(c *call) (Config, error) {
	if isURL(s.text) {
		c.defaultFile = ""
		c.environ = without(c.environ, configVariable)
	}
	cfg, err := c.loadConfig(&s.settings)
	if err == nil {
		err = cfg.NeedArchive()
	}
	return cfg, err
}

// without is an environment that has no such variable.
func without(environ []string, name string) []string {
	var rest []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, name+"=") {
			rest = append(rest, kv)
		}
	}
	return rest
}

// shown is what mount(8) and `mount -a` know the mount by: the source as it was
// named, else the file that was found, else the first archive.
func (s mountSource) shown(cfg Config) string {
	switch {
	case s.text != "":
		return s.text
	case cfg.File != "":
		return cfg.File
	}
	return cfg.Archive[0].String()
}

// words are the source as a command line has it.
func (s mountSource) words() []string {
	settings := s.settings
	if isURL(s.text) {
		settings.Archive = nil
	}
	words := settingWords(&settings)
	if settings.PGData != nil {
		words = append(words, "--pgdata="+*settings.PGData)
	}
	if s.text == "" {
		return words
	}
	return append(words, "-C", s.text)
}
