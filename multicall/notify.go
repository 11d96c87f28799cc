package multicall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"mvdan.cc/sh/v3/syntax"

	"pitr/archive/ship"
	"pitr/archive/wal"
)

const (
	// notifierName is the name under which the binary looks after one alert. It
	// is no applet: nobody else calls it.
	notifierName = "pitr-notify"

	// notifierVariable brings it the alert, in the environment: a command line
	// could be read by everybody on the machine.
	notifierVariable = "PITR_NOTIFIER"

	// alertPatience is how long a command may run.
	alertPatience = 30 * time.Second

	// failedAlert, in a slave's queue, is what an alert came to that failed, and
	// failedAlertTold the same once it was logged.
	failedAlert     = ".notify"
	failedAlertTold = ".notify.told"
)

// alert is a command to be run, and all that its supervisor needs.
type alert struct {
	Words    []string      `json:"words"`
	Report   string        `json:"report"` // where to write what it came to if it failed
	Patience time.Duration `json:"patience"`
	// Event is what happened, for the report.
	Event string `json:"event"`
}

// notify runs the commands for what has changed, and waits for none of them. It
// also logs what an earlier one came to.
func (c *call) notify(cfg Config, results []ship.Result) {
	for _, r := range results {
		within(grace, func() { c.sayFailedAlert(cfg.queueOf(r.Destination)) })
		prefix := fmt.Sprintf("pitr: %s %s: ", cfg.kind(), r.Destination)
		if r.Before.Worth(r.After) {
			event, p := cfg.alertFor(r.After)
			c.alert(cfg, event, p, r, prefix+whatHappened(r))
		}
		if r.HalfFull {
			c.alert(cfg, "warning", cfg.NotifyWarning, r, prefix+fmt.Sprintf("with %s its queue holds more than half of queue_max", r.File))
		}
	}
}

// alert starts a command, if there is one.
func (c *call) alert(cfg Config, event string, p program, r ship.Result, message string) {
	if p.IsZero() {
		return
	}
	message = alertText(message)
	a := alert{Words: p.command(message), Report: filepath.Join(cfg.queueOf(r.Destination), failedAlert), Patience: alertPatience, Event: event}
	env := append(withoutSettings(c.environ),
		"PITR_EVENT="+event,
		"PITR_EVENT_MESSAGE="+message,
		"PITR_EVENT_DESTINATION="+r.Destination,
		"PITR_EVENT_FILE="+r.File.String(),
		"PITR_EVENT_TIME="+time.Now().UTC().Format(time.RFC3339),
		"PITR_EVENT_STATE="+string(r.After),
		"PITR_EVENT_STATE_BEFORE="+string(r.Before),
	)
	if err := a.start(env); err != nil {
		c.log.Warn("an alert could not be given", "event", event, cfg.kind(), r.Destination, "reason", err)
	}
}

// alertFor is the event that a state is, and the command for it.
func (c Config) alertFor(s ship.State) (event string, p program) {
	switch s {
	case ship.OK:
		return "ok", c.NotifyOK
	case ship.Behind:
		return "warning", c.NotifyWarning
	}
	return "critical", c.NotifyCritical
}

// whatHappened says what became of a file.
func whatHappened(r ship.Result) string {
	known := r.File != wal.Name{}
	switch {
	case r.After == ship.OK && !known:
		return "it has everything again"
	case r.Outcome == ship.Queued && !known:
		return fmt.Sprintf("what waits in its queue does not go out: %v", r.Reason)
	case r.After == ship.OK:
		return fmt.Sprintf("it has everything again, up to %s", r.File)
	case r.Outcome == ship.Queued:
		return fmt.Sprintf("%s waits in its queue: %v", r.File, r.Reason)
	}
	return fmt.Sprintf("%s is neither there nor in its queue: %v", r.File, errors.Join(r.Err, r.Reason))
}

// alertText is a message without line breaks, of bearable length.
func alertText(text string) string {
	text = strings.Join(strings.Fields(strings.ReplaceAll(text, "\x00", " ")), " ")
	const most = 4 << 10
	return strings.ToValidUTF8(text[:min(len(text), most)], "?")
}

// command is what is run with a message. Words get it as their last argument.
// To a script it is "$1", which is written behind a script that is one command
// and does not name it; no shell ever reads its text.
func (p program) command(message string) []string {
	if p.script == "" {
		return append(slices.Clone(p.words), message)
	}
	script := p.script
	if takesArgument(script) {
		script += ` "$1"`
	}
	return []string{"/bin/sh", "-c", script, "sh", message}
}

// takesArgument tells whether a word that is written behind a script is one more
// argument of its only command, which does not look at the message by itself,
// and does not take it for a script.
func takesArgument(script string) bool {
	s, call, simple := simpleCommand(script)
	if !simple || s.Semicolon.IsValid() || int(s.End().Offset()) != len(script) {
		return false
	}
	takes := call.Args[0].Lit() != "eval"
	syntax.Walk(s, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ParamExp:
			takes = takes && !slices.Contains([]string{"1", "@", "*", "PITR_EVENT_MESSAGE"}, n.Param.Value)
		case *syntax.Redirect:
			takes = takes && n.Hdoc == nil
		}
		return true
	})
	return takes
}

// withoutSettings is the environment without pitr's own variables: a command may
// be, or call, pitr.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool { return strings.HasPrefix(kv, "PITR_") })
}

// start starts the supervisor of an alert, in a session of its own and with
// nothing of ours open: it outlives this call, and must not hold PostgreSQL's
// log. Nobody waits for it here.
func (a alert) start(environ []string) error {
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	cmd := exec.Cmd{
		Path: self, Args: []string{notifierName}, Dir: "/",
		Env:         append(environ, notifierVariable+"="+string(text)),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

// closeOnExec lets no child inherit what PostgreSQL has left open. What this
// process opens itself has the mark already.
func closeOnExec() error {
	const first = 3
	err := unix.CloseRange(first, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	open, err := os.ReadDir("/proc/self/fd") // a kernel before 5.11, or a filter
	for _, e := range open {
		if fd, bad := strconv.Atoi(e.Name()); bad == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

// sayFailedAlert logs, once, that an alert failed. The note of it stays until
// one succeeds.
func (c *call) sayFailedAlert(queue string) {
	text, err := os.ReadFile(filepath.Join(queue, failedAlert))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		c.log.Warn("an alert failed", "alert", readFailedAlert(text))
		err = os.Rename(filepath.Join(queue, failedAlert), filepath.Join(queue, failedAlertTold))
	}
	if err != nil {
		c.log.Warn("what an alert came to cannot be seen", "reason", err)
	}
}

// failure is the file of an alert that failed.
type failure struct {
	Event  string    `json:"event"`
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

func readFailedAlert(text []byte) string {
	var f failure
	if json.Unmarshal(text, &f) != nil {
		return "the note of it makes no sense"
	}
	return fmt.Sprintf("%s, %s: %s", f.Event, f.Time.Format(time.RFC3339), f.Reason)
}
