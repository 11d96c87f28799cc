package multicall

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"pitr/archive"
)

// What a call and an agent say to each other: see "What is said" in docs/agent.md.

// agentVersion is that of these messages.
const agentVersion = 1

// What an agent can be asked.
const (
	opPush    = "push"
	opRestore = "restore" // of a fetcher
	opStatus  = "status"
	opStop    = "stop"
)

// agentRequest is what is asked, in one line.
type agentRequest struct {
	Version  int    `json:"version"`
	Build    string `json:"build"`
	Config   string `json:"config"`
	Op       string `json:"op"`
	Path     string `json:"path,omitempty"`
	Patience int64  `json:"patience_ms,omitempty"` // 0: push_timeout
	// Name is the file to be restored, and Mode what PostgreSQL does meanwhile.
	Name string `json:"name,omitempty"`
	Mode string `json:"mode,omitempty"`
}

// agentAnswer is what comes back: any number with Busy, and one with Done.
type agentAnswer struct {
	Busy     bool            `json:"busy,omitempty"`
	Done     bool            `json:"done,omitempty"`
	Declined string          `json:"declined,omitempty"`
	Errors   []toldError     `json:"errors,omitempty"`
	Log      []string        `json:"log,omitempty"`
	From     string          `json:"from,omitempty"` // the archive of a restored file
	Status   json.RawMessage `json:"status,omitempty"`
}

// toldError is an error as it goes over the socket.
type toldError struct {
	Text    string   `json:"text"`
	Hints   []string `json:"hints,omitempty"`
	Classes []string `json:"classes,omitempty"`
}

// errorClass is a class of errors that decides a status, and its word.
type errorClass struct {
	word string
	err  error
}

func errorClasses() []errorClass {
	return []errorClass{
		{"usage", ErrUsage}, {"config", ErrConfig}, {"conflict", archive.ErrConflict}, {"foreign", archive.ErrForeign},
		{"identity", archive.ErrIdentity}, {"offline", ErrOffline}, {"internal", errInternal},
	}
}

// verdictClasses are those of what an archive said of a file to be restored.
func verdictClasses() []errorClass {
	return append(errorClasses(),
		errorClass{"absent", archive.ErrAbsent}, errorClass{"gap", archive.ErrGap},
		errorClass{"damaged", archive.ErrDamaged}, errorClass{"no identity", archive.ErrNoIdentity})
}

// tellVerdicts takes the error of a fetch apart: one for each archive.
func tellVerdicts(err error) []toldError {
	if err == nil {
		return nil
	}
	var all []toldError
	for _, e := range archive.Verdicts(err) {
		all = append(all, toldError{Text: e.Error(), Hints: hintsOf(e), Classes: classesIn(verdictClasses(), e)})
	}
	return all
}

// hearVerdicts puts it together again.
func hearVerdicts(all []toldError) error {
	if len(all) == 0 {
		return nil
	}
	var each []error
	for _, t := range all {
		each = append(each, t.hear())
	}
	return archive.JoinVerdicts(each)
}

// tellErrors takes an error apart as report does.
func tellErrors(err error) []toldError {
	if err == nil {
		return nil
	}
	var all []toldError
	for _, e := range problemsIn(err) {
		// Of the whole: what is split for its lines keeps its class.
		all = append(all, toldError{Text: e.Error(), Hints: hintsOf(e), Classes: classesOf(err)})
	}
	return all
}

// classesOf are the words for an error.
func classesOf(err error) []string { return classesIn(errorClasses(), err) }

func classesIn(classes []errorClass, err error) []string {
	var words []string
	for _, c := range classes {
		if errors.Is(err, c.err) {
			words = append(words, c.word)
		}
	}
	return words
}

// hearErrors puts it together again.
func hearErrors(all []toldError) error {
	var errs []error
	for _, t := range all {
		errs = append(errs, t.hear())
	}
	return errors.Join(errs...)
}

// hear makes an error of it.
func (t toldError) hear() error {
	var err error = heard{t}
	for _, h := range t.Hints {
		err = hint(err, "%s", h)
	}
	return err
}

// heard is an error that an agent told.
type heard struct{ toldError }

func (h heard) Error() string { return h.Text }

// Is gives it the classes that it had.
func (h heard) Is(target error) bool {
	for _, c := range verdictClasses() {
		if c.err == target {
			return slices.Contains(h.Classes, c.word)
		}
	}
	return false
}

// longestMessage bounds what one side reads of the other.
const longestMessage = 1 << 20

// send writes one message.
func send(c net.Conn, message any, patience time.Duration) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = c.Write(append(text, '\n'))
	return err
}

// hear reads messages.
func hear(c net.Conn) *bufio.Scanner {
	s := bufio.NewScanner(c)
	s.Buffer(make([]byte, 0, 4<<10), longestMessage)
	return s
}

// receive reads the next one, within patience.
func receive(c net.Conn, from *bufio.Scanner, patience time.Duration, message any) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if !from.Scan() {
		if err := from.Err(); err != nil {
			return err
		}
		return errHungUp
	}
	if err := json.Unmarshal(from.Bytes(), message); err != nil {
		return fmt.Errorf("a message makes no sense: %w", err)
	}
	return nil
}

// errHungUp says that the other side has gone.
var errHungUp = errors.New("the other side has hung up")
