package multicall

import (
	"context"
	"io"
	"log/slog"
	"strconv"
)

// session is what a command of the admin tool works with once the
// configuration is good.
type session struct {
	ctx    context.Context
	call   *call
	cfg    Config
	log    *slog.Logger
	stdout io.Writer
	stderr io.Writer
}

// session loads the configuration; a bad one is the command's error.
func (c *call) session(ctx context.Context, flags *settingFlags) (*session, error) {
	cfg, err := c.loadConfig(flags)
	if err != nil {
		return nil, err
	}
	return &session{ctx: ctx, call: c, cfg: cfg, log: c.log, stdout: c.stdout, stderr: c.stderr}, nil
}

// formatSize writes a number of bytes as PostgreSQL does, 16MB, with a decimal
// where it is not a whole number of units.
func formatSize(n int64) string {
	units := sizeUnits()[1:]
	i := 0
	for i+1 < len(units) && n >= units[i+1].amount {
		i++
	}
	if n%units[i].amount == 0 {
		return strconv.FormatInt(n/units[i].amount, 10) + units[i].name
	}
	return strconv.FormatFloat(float64(n)/float64(units[i].amount), 'f', 1, 64) + units[i].name
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
