package multicall

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// expansionLimit bounds a value: keys that name each other twice grow without
// measure.
const expansionLimit = 64 << 10

// expander replaces %(key)s by the value of key, as ConfigParser does. A % that
// no parenthesis follows stands for itself, so %20 in a URL needs no care.
type expander struct {
	raw  map[string]string
	done map[string]string // each value is worked out once: they may fork
	// named are the keys that some value named.
	named map[string]bool
}

func newExpander(entries []entry) *expander {
	x := &expander{raw: map[string]string{}, done: map[string]string{}, named: map[string]bool{}}
	for _, e := range entries {
		x.raw[e.key] = e.value
	}
	return x
}

// value is the value of a key after interpolation.
func (x *expander) value(key string) (string, error) {
	return x.expand(key, nil)
}

func (x *expander) expand(key string, within []string) (string, error) {
	if v, ok := x.done[key]; ok {
		return v, nil
	}
	if slices.Contains(within, key) {
		return "", fmt.Errorf("%%(%s)s names itself: %s", key, strings.Join(append(within, key), " -> "))
	}
	raw, ok := x.raw[key]
	if !ok {
		return "", hint(fmt.Errorf("%%(%s)s is not defined", key), "%%(name)s stands for the value of another key of the same file.")
	}
	v, err := x.replace(raw, append(slices.Clip(within), key))
	if err == nil {
		x.done[key] = v
	}
	return v, err
}

// replace puts values in for the variables of a text.
func (x *expander) replace(text string, within []string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "%(")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, tail, err := variable(after)
		if err != nil {
			return "", err
		}
		x.named[name] = true
		inner, err := x.expand(name, within)
		if err != nil {
			return "", err
		}
		if b.WriteString(inner); b.Len() > expansionLimit {
			return "", errors.New("interpolation makes it too long")
		}
		text = tail
	}
}

// variable splits what follows `%(` into the name and the text after `)s`.
func variable(s string) (name, tail string, err error) {
	name, tail, ok := strings.Cut(s, ")")
	if !ok || !strings.HasPrefix(tail, "s") || strings.Contains(name, "(") {
		// What follows may be part of a secret: only the name is told.
		head, _ := span(name, letters+"0123456789_.-")
		return "", "", fmt.Errorf("%q is not of the form %%(name)s", "%("+shortened(head))
	}
	return strings.ToLower(name), tail[1:], nil
}
