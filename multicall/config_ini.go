package multicall

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"gopkg.in/ini.v1"
)

// entry is a key of a configuration file, with its value before interpolation.
type entry struct {
	key   string
	value string
	line  int
}

// readINI reads a file as pitrtools did, that is, as Python's ConfigParser
// does: `key: value` or `key = value`, keys in any case, a line that is indented
// deeper than a key continues its value, quotes and backslashes are characters
// like any other. So a file may be indented as a whole, as pitrtools' how-to
// shows it (Python 2 takes that for one long value). A comment begins with # or ;
// at the start of a line or after a blank (Python 2 knows only ; after a blank). Stricter than Python 2: a key may stand
// there once, and [DEFAULT] is the only section. All problems are returned at
// once.
func readINI(data []byte) ([]entry, []error) {
	text, problems := plainText(data)
	if len(problems) > 0 {
		return nil, problems
	}
	c := iniCleaner{lines: map[string]int{}}
	for i, line := range strings.Split(text, "\n") {
		c.add(i+1, line)
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	return c.entries()
}

func plainText(data []byte) (string, []error) {
	data = bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return "", []error{errors.New("it is not UTF-8 text")}
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n"), nil
}

// iniCleaner leaves of a file what ini.v1 and ConfigParser read alike, and
// refuses the rest, by line: ini.v1 gives no line numbers.
type iniCleaner struct {
	out      strings.Builder
	last     string         // the key that a line continues which is indented deeper
	indent   int            // how deep that key stands
	lines    map[string]int // where each key stands
	problems []error
}

func (c *iniCleaner) add(n int, line string) {
	indent := len(line) - len(strings.TrimLeft(line, " \t\f\v"))
	text := strings.TrimSpace(withoutComment(line))
	switch {
	case text == "":
	case text[0] == '[':
		c.section(n, text)
	case indent > c.indent && c.last != "":
		c.continuation(n, text)
	default:
		c.indent = indent
		c.keyValue(n, text)
	}
}

// withoutComment cuts a comment off: # or ; at the start or after a blank.
func withoutComment(line string) string {
	for i := range len(line) {
		comment := line[i] == '#' || line[i] == ';'
		if comment && (i == 0 || strings.IndexByte(" \t\f\v", line[i-1]) >= 0) {
			return line[:i]
		}
	}
	return line
}

func (c *iniCleaner) section(n int, text string) {
	c.last = ""
	if text != "[DEFAULT]" {
		c.fail(n, hint(fmt.Errorf("unknown section %s", text), "all keys stand in [DEFAULT]."))
	}
}

func (c *iniCleaner) continuation(n int, text string) {
	if key, _, ok := splitKey(text); ok && isSetting(key) {
		c.fail(n, hint(fmt.Errorf("the indented line %q continues the value of %s", key, c.last), "a key is not indented deeper than the one above."))
		return
	}
	fmt.Fprintf(&c.out, " %s\n", text)
}

func (c *iniCleaner) keyValue(n int, text string) {
	key, value, ok := splitKey(text)
	if !ok {
		c.fail(n, fmt.Errorf("%q is not `key = value`", shortened(redacted(text))))
		return
	}
	c.last = key
	if before, twice := c.lines[key]; twice {
		c.fail(n, fmt.Errorf("%s stands in line %d already", key, before))
		return
	}
	c.lines[key] = n
	// ini.v1 has its own quotes here, over several lines; ConfigParser has not.
	if strings.HasPrefix(value, "`") || strings.HasPrefix(value, `"""`) {
		c.fail(n, fmt.Errorf("the value of %s begins with a quote", key))
		return
	}
	fmt.Fprintf(&c.out, "%s = %s\n", key, value)
}

func (c *iniCleaner) fail(n int, err error) {
	c.problems = append(c.problems, fmt.Errorf("line %d: %w", n, err))
}

// splitKey splits at the first = or :. The key comes in lower case.
func splitKey(text string) (key, value string, ok bool) {
	i := strings.IndexAny(text, "=:")
	if i < 0 {
		return "", "", false
	}
	key = strings.ToLower(strings.TrimSpace(text[:i]))
	if key == "" || !letter(rune(key[0])) || strings.ContainsFunc(key, notOfAKey) {
		return "", "", false
	}
	return key, strings.TrimSpace(text[i+1:]), true
}

func notOfAKey(r rune) bool {
	return !letter(r) && (r < '0' || r > '9') && r != '.' && r != '-'
}

func letter(r rune) bool { return r >= 'a' && r <= 'z' || r == '_' }

// shortened keeps what may be a whole binary file out of an error.
func shortened(s string) string {
	if len(s) <= 60 {
		return s
	}
	return strings.ToValidUTF8(s[:60], "") + "..."
}

// entries has ini.v1 split what is left. Its own interpolation is not used: it
// recurses without end where a key names itself.
func (c *iniCleaner) entries() ([]entry, []error) {
	text := c.out.String()
	file, err := ini.LoadSources(ini.LoadOptions{
		AllowPythonMultilineValues: true,
		IgnoreContinuation:         true,
		IgnoreInlineComment:        true,
		PreserveSurroundedQuote:    true,
		// A value that continues beyond the buffer would be cut.
		ReaderBufferSize: len(text) + 1,
	}, []byte(text))
	if err != nil {
		return nil, []error{err}
	}
	var all []entry
	for _, k := range file.Section(ini.DefaultSection).Keys() {
		all = append(all, entry{k.Name(), tidied(k.Value()), c.lines[k.Name()]})
	}
	return all, nil
}

// tidied drops the indentation of continued lines.
func tidied(value string) string {
	lines := strings.Split(value, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
