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
	// failedAlertTold the same once it was logged. An agent has a file of its own
	// for both.
	failedAlert     = ".notify"
	failedAlertTold = failedAlert + toldSuffix
	toldSuffix      = ".told"
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
		within(grace, func() { c.sayFailedAlert(filepath.Join(cfg.queueOf(r.Destination), failedAlert)) })
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

// alert starts a command for what happened to a queue, if there is one.
func (c *call) alert(cfg Config, word string, p program, r ship.Result, message string) {
	c.give(p, event{
		word: word, message: message, destination: r.Destination, file: r.File.String(),
		more: []string{"PITR_EVENT_STATE=" + string(r.After), "PITR_EVENT_STATE_BEFORE=" + string(r.Before)},
	}, filepath.Join(cfg.queueOf(r.Destination), failedAlert))
}

// event is what the command of an alert is told.
type event struct {
	word        string // ok, warning or critical
	message     string
	destination string // may be empty, as may file
	file        string
	more        []string // NAME=value
}

// give starts the command of an alert, if there is one. report is the file that
// says what it came to if it failed.
func (c *call) give(p program, e event, report string) {
	if p.IsZero() {
		return
	}
	message := alertText(e.message)
	a := alert{Words: p.command(message), Report: report, Patience: alertPatience, Event: e.word}
	env := append(withoutSettings(c.environ),
		"PITR_EVENT="+e.word,
		"PITR_EVENT_MESSAGE="+message,
		"PITR_EVENT_DESTINATION="+e.destination,
		"PITR_EVENT_FILE="+e.file,
		"PITR_EVENT_TIME="+time.Now().UTC().Format(time.RFC3339),
	)
	if err := a.start(append(env, e.more...)); err != nil {
		c.log.Warn("an alert could not be given", "event", e.word, "destination", e.destination, "reason", err)
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
// log. Nobody waits for it here, but an agent lives long enough to be asked for its
// exit status.
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
	go func() { _ = cmd.Wait() }()
	return nil
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
func (c *call) sayFailedAlert(report string) {
	text, err := os.ReadFile(report)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		c.log.Warn("an alert failed", "alert", readFailedAlert(text))
		err = os.Rename(report, report+toldSuffix)
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
