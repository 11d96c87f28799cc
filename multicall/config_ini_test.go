package multicall

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Each case says what Python's ConfigParser makes of it where that differs.
// pitrtools ran on Python 2.
func TestINI(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want string // key=value, sorted as they stand, joined by |
	}{
		{"colon", "archive: file:///a", "archive=file:///a"},
		{"equals", "archive = file:///a,file:///b", "archive=file:///a,file:///b"},
		{"no blanks", "archive=file:///a", "archive=file:///a"},
		{"first delimiter wins: colon", "a: b=c", "a=b=c"},
		{"first delimiter wins: equals", "a = b:c", "a=b:c"},
		{"section", "[DEFAULT]\na: 1\n", "a=1"},
		{"section with a comment", "[DEFAULT] ; see [1]\na: 1\n", "a=1"},
		{"section twice", "[DEFAULT]\na: 1\n[DEFAULT]\nb: 2\n", "a=1|b=2"},
		{"no section (ConfigParser wants one)", "a: 1\n[DEFAULT]\nb: 2\n", "a=1|b=2"},
		{"empty file", "", ""},
		{"comments", "# x\n; y\n  # z\n\n   \na: 1", "a=1"},
		{"keys in any case", "Archive: file:///A", "archive=file:///A"},
		{"empty value", "a:\nb =\n", "a=|b="},
		{"blanks around a value", "a:   1  \t", "a=1"},
		{"no line end", "a: 1", "a=1"},
		{"CRLF", "[DEFAULT]\r\na: 1\r\nb: 2\r\n", "a=1|b=2"},
		{"BOM", "\xEF\xBB\xBFa: 1", "a=1"},
		{"comment after a blank", "a: 1 ; x", "a=1"},
		{"hash comment after a blank (part of the value in Python 2)", "a: 1 # x", "a=1"},
		{"comment after a tab", "a: 1\t; x", "a=1"},
		{"first comment wins", "a: 1 ; x # y", "a=1"},
		{"comment instead of a value (part of it in Python 2)", "a: ; x", "a="},
		{"; and # inside a value", "a: x;y#z", "a=x;y#z"},
		{"; and # in a URL", "archive: file:///a;b#c", "archive=file:///a;b#c"},
		{"double quotes stay", `a: "x"`, `a="x"`},
		{"single quotes stay", `a: 'x'`, `a='x'`},
		{"a quote inside", `a: it's "x" y`, `a=it's "x" y`},
		{"a backslash is a backslash", "a: x\\\nb: 2", `a=x\|b=2`},
		{"backslash before a comment sign", `a: x \; y`, `a=x \; y`},
		{"percent", "a: file:///x%20y", "a=file:///x%20y"},
		{"double percent (one in Python 3)", "a: 100%%", "a=100%%"},
		{"continued", "archive: file:///a,\n   file:///b\n\tfile:///c\nb: 2", "archive=file:///a,\nfile:///b\nfile:///c|b=2"},
		{"continued over a comment and an empty line", "a: 1,\n; x\n\n  # y\n  2", "a=1,\n2"},
		{"continued with a comment", "a: 1, ; x\n   2 ; y", "a=1,\n2"},
		{"continued from nothing", "a:\n  1\n  2", "a=1\n2"},
		{"a continued line that looks like some key", "a: 1\n  http://x", "a=1\nhttp://x"},
		{"first key indented (an error in Python 2)", "  a: 1\nb: 2", "a=1|b=2"},
		{"first key of a section indented", "a: 0\n[DEFAULT]\n  b: 1", "a=0|b=1"},
		{"all of it indented (one value in Python 2)", "    ; x\n    a: 1\n\n    b: 2,\n      3\n    c: 4\n", "a=1|b=2,\n3|c=4"},
		{"indented less than the key above (part of it in Python 2)", "  a: 1\n b: 2\n  3", "a=1|b=2\n3"},
		{"interpolation", "base: /srv\narchive: file://%(base)s/a", "base=/srv|archive=file:///srv/a"},
		{"interpolation in any case", "Base: /srv\na: %(BASE)s", "base=/srv|a=/srv"},
		{"interpolation forward and twice", "a: %(b)s%(b)s\nb: %(c)s.\nc: x", "a=x.x.|b=x.|c=x"},
		{"interpolation over a line end", "a: %(b)s\nb: 1,\n 2", "a=1,\n2|b=1,\n2"},
		{"a dash as key is no number", "a: 1\nx-y: 2", "a=1|x-y=2"},
	}
	for _, tt := range tests {
		got, err := iniText(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestINIRefuses(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want []string // parts of the problems, in order
	}{
		{"another section", "[server]\na: 1", []string{"line 1: unknown section [server]"}},
		{"default in small letters", "[default]\na: 1", []string{"line 1: unknown section [default]"}},
		{"unclosed section", "[DEFAULT\na: 1", []string{"line 1: unknown section [DEFAULT"}},
		{"no delimiter", "a: 1\nwhat\n", []string{"line 2: \"what\" is not `key = value`"}},
		{"no key", "= 1", []string{"line 1: \"= 1\" is not"}},
		{"key with a blank", "a b: 1", []string{"line 1: \"a b: 1\" is not"}},
		{"quoted key", "\"a\": 1", []string{"line 1:"}},
		{"twice (Python 2 takes the last, 3 refuses)", "a: 1\nb: 2\nA: 1", []string{"line 3: a stands in line 1 already"}},
		{"known key indented", "archive: file:///a\n  pgdata: /x", []string{`line 2: the indented line "pgdata" continues the value of archive`}},
		{"back quote", "a: `x", []string{"line 1: the value of a begins with a quote"}},
		{"three quotes", `a: """x`, []string{"line 1: the value of a begins with a quote"}},
		{"not text", "a: \xff", []string{"not UTF-8"}},
		{"UTF-16", "\xff\xfea\x00", []string{"not UTF-8"}},
		{"zero byte", "a: \x00", []string{"not UTF-8"}},
		{"undefined", "a: %(nope)s", []string{"%(nope)s is not defined"}},
		{"itself", "a: %(a)s", []string{"%(a)s names itself: a -> a"}},
		{"circle", "a: %(b)s\nb: x%(a)s", []string{"a -> b -> a", "b -> a -> b"}},
		{"malformed", "a: %(pgdata)/x", []string{`"%(pgdata" is not of the form %(name)s`}},
		{"unclosed", "a: %(pgdata", []string{"is not of the form %(name)s"}},
		{"all at once", "[x]\nwhat\na: 1\na: 2", []string{"line 1", "line 2", "line 4"}},
		{"binary line is cut", strings.Repeat("x", 5000), []string{"xxx...\" is not"}},
	}
	for _, tt := range tests {
		_, err := iniText(tt.in)
		if err == nil {
			t.Errorf("%s: got no error", tt.name)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, lines, tt.want)
			continue
		}
		for i := range lines {
			if !strings.Contains(lines[i], tt.want[i]) {
				t.Errorf("%s: got %q, want %q in it", tt.name, lines[i], tt.want[i])
			}
		}
	}
}

// iniText reads and interpolates a file, and writes it down in one line.
func iniText(in string) (string, error) {
	entries, problems := readINI([]byte(in))
	x := newExpander(entries)
	var out []string
	for _, e := range entries {
		v, err := x.value(e.key)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		out = append(out, e.key+"="+v)
	}
	return strings.Join(out, "|"), errors.Join(problems...)
}

func TestINILongContinuedValue(t *testing.T) {
	var in strings.Builder
	in.WriteString("a: 0,\n")
	for i := range 5000 {
		fmt.Fprintf(&in, "  value number %d,\n", i)
	}
	in.WriteString("b: 2\n")
	got, err := iniText(in.String())
	if err != nil || strings.Count(got, "\n") != 5000 || !strings.HasSuffix(got, "|b=2") {
		t.Errorf("got %d lines, %v, want 5000 and then b", strings.Count(got, "\n"), err)
	}
}

// Keys that each name the one before twice: without a bound the value, or, if
// it is empty, the time, would double with every key.
func TestINILaughsAreBounded(t *testing.T) {
	for word, want := range map[string]string{"ha": "too long", "": ""} {
		in := "k0: " + word + "\n"
		for i := 1; i < 60; i++ {
			in += fmt.Sprintf("k%d: %%(k%d)s%%(k%d)s\n", i, i-1, i-1)
		}
		if _, err := iniText(in); !fits(err, want) {
			t.Errorf("%q: got %v, want %q", word, err, want)
		}
	}
}

func FuzzINI(f *testing.F) {
	for _, seed := range []string{
		"[DEFAULT]\narchive: file:///a, ; x\n  file:///b\npgdata = %(base)s/x\nbase: /srv\n",
		"a: %(b)s\nb: %(a)s", "\"\"\"x\"\"\" = `y", "a = \"\"\"b\nc", "- = x", "a: x\\\n", "[x", "\xEF\xBB\xBFa:1\r\n b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, problems := readINI(data)
		if len(problems) > 0 {
			return
		}
		seen := map[string]bool{}
		x := newExpander(entries)
		for _, e := range entries {
			if seen[e.key] || e.line == 0 {
				t.Errorf("key %q: twice, or in no line", e.key)
			}
			seen[e.key] = true
			if v, err := x.value(e.key); err == nil && len(v) > len(data)+2*expansionLimit {
				t.Errorf("key %q: %d bytes", e.key, len(v))
			}
		}
	})
}
