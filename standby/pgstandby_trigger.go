package standby

import (
	"io"
	"os"
	"strings"
)

// lookForTrigger returns how the trigger file wants recovery to end, or state
// if there is none or it makes no sense (CheckForExternalTrigger).
//
// The file is never removed. fast is emptied, which means smart from then on:
// at the end of recovery PostgreSQL asks once more for the last segment, and
// must get it.
func (p *pgStandby) lookForTrigger(state failover) failover {
	if p.trigger == "" {
		return state
	}
	info, err := os.Stat(p.trigger)
	if err != nil {
		return state
	}
	// Its writer may be about to write "fast". That costs one segment at most:
	// the next call sees the word.
	if info.Size() == 0 {
		p.std.warnf("trigger file found: smart failover\n")
		return smartFailover
	}
	f, err := os.OpenFile(p.trigger, os.O_RDWR, 0)
	if err != nil {
		p.std.warnf("WARNING: could not open \"%s\": %s\n", p.trigger, reason(err))
		return state
	}
	defer f.Close()
	return p.readTrigger(f, state)
}

func (p *pgStandby) readTrigger(f *os.File, state failover) failover {
	content := make([]byte, len("smart"))
	n, err := f.Read(content)
	if err != nil && err != io.EOF {
		p.std.warnf("WARNING: could not read \"%s\": %s\n", p.trigger, reason(err))
		return state
	}
	word := string(content[:n])
	switch {
	case strings.HasPrefix(word, "smart"):
		p.std.warnf("trigger file found: smart failover\n")
		return smartFailover
	case strings.HasPrefix(word, "fast"):
		p.std.warnf("trigger file found: fast failover\n")
		if err := f.Truncate(0); err != nil {
			p.std.warnf("WARNING: could not truncate \"%s\": %s\n", p.trigger, reason(err))
		}
		return fastFailover
	}
	p.std.warnf("WARNING: invalid content in \"%s\"\n", p.trigger)
	return state
}
