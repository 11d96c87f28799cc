package multicall

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is a name of a unit and how many of the smallest one it holds.
type unit struct {
	name   string
	amount int64
}

// durationUnits are Go's and PostgreSQL's.
func durationUnits() []unit {
	return []unit{
		{"", int64(time.Second)},
		{"ms", int64(time.Millisecond)},
		{"s", int64(time.Second)},
		{"m", int64(time.Minute)}, {"min", int64(time.Minute)},
		{"h", int64(time.Hour)},
		{"d", int64(24 * time.Hour)},
	}
}

// sizeUnits count by 1024, as PostgreSQL's do.
func sizeUnits() []unit {
	return []unit{{"", 1}, {"B", 1}, {"kB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"TB", 1 << 40}}
}

// parseDuration reads `90`, seconds as in pitrtools, or numbers with units:
// `90s`, `10m`, `1h 30m`, `2d`. A negative one is refused.
func parseDuration(s string) (time.Duration, error) {
	n, err := parseUnits(s, durationUnits())
	if err != nil {
		return 0, hint(fmt.Errorf("%q is not a duration: %w", s, err), "a duration is seconds, or has units: 90s, 10m, 1h30m, 2d.")
	}
	return time.Duration(n), nil
}

// parseAge is parseDuration for what is removed by: a number alone could mean
// days as well as seconds.
func parseAge(s string) (time.Duration, error) {
	age, err := parseDuration(s)
	if _, rest := span(strings.TrimSpace(s), "0123456789"); err == nil && rest == "" {
		return 0, hint(fmt.Errorf("%q has no unit", s), "write %sd for days, %sh for hours.", strings.TrimSpace(s), strings.TrimSpace(s))
	}
	return age, err
}

// parseSize reads bytes, or a number with a unit: `16MB`, `16 MB`, `1GB`.
func parseSize(s string) (int64, error) {
	n, err := parseUnits(s, sizeUnits())
	if err != nil {
		return 0, hint(fmt.Errorf("%q is not a size: %w", s, err), "a size is bytes, or has a unit: 64kB, 16MB, 1GB.")
	}
	return n, nil
}

// parseUnits adds up numbers with units. A number without one is only accepted
// alone: in `10m 30` the 30 could be anything.
func parseUnits(s string, units []unit) (int64, error) {
	rest := strings.TrimSpace(s)
	if rest == "" {
		return 0, errors.New("it is empty")
	}
	if strings.HasPrefix(rest, "-") {
		return 0, errors.New("it is negative")
	}
	var sum int64
	for first := true; rest != ""; first = false {
		var number, name string
		number, rest = span(rest, "0123456789")
		name, rest = span(strings.TrimLeft(rest, " "), letters)
		rest = strings.TrimLeft(rest, " ")
		if number == "" {
			return 0, errors.New("expected a number")
		}
		if name == "" && (!first || rest != "") {
			return 0, errors.New("expected a unit")
		}
		amount, err := amountOf(number, name, units)
		if err != nil {
			return 0, err
		}
		if amount > math.MaxInt64-sum {
			return 0, errors.New("it is too large")
		}
		sum += amount
	}
	return sum, nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// span splits s after its leading characters of set.
func span(s, set string) (head, tail string) {
	end := len(s) - len(strings.TrimLeft(s, set))
	return s[:end], s[end:]
}

func amountOf(number, name string, units []unit) (int64, error) {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, errors.New("it is too large")
	}
	for _, u := range units {
		if !strings.EqualFold(u.name, name) {
			continue
		}
		if n > math.MaxInt64/u.amount {
			return 0, errors.New("it is too large")
		}
		return n * u.amount, nil
	}
	return 0, fmt.Errorf("unknown unit %q", name)
}

// parseBool reads the words of pitrtools' files.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "on", "yes", "true", "1":
		return true, nil
	case "off", "no", "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", s)
}
