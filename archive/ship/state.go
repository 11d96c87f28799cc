package ship

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"pitr/archive"
)

// State is what a destination was after a call.
type State string

// The states of a destination, each worse than the one before.
const (
	Unknown State = ""       // nobody has written it down, or not legibly
	OK      State = "ok"     // it has everything
	Behind  State = "queued" // it is away or slow, and its queue takes everything
	// Failed: somebody has to act. It refuses what it is sent, or its queue
	// holds what it must not be sent, or its queue cannot take a file.
	Failed State = "failed"
)

// Worth tells whether a change from s is worth telling somebody about.
func (s State) Worth(after State) bool {
	return after != s && after != Unknown && (s != Unknown || after != OK)
}

// note is the file .state.
type note struct {
	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// Tried is when the destination was last waited for in vain.
	Tried time.Time `json:"tried,omitzero"`
}

// largestNote bounds what is read of a note.
const largestNote = 64 << 10

func (l *lane) readNote(ctx context.Context) note { return readNote(ctx, l.Disk, l.at(stateFile)) }

// readNote returns the zero note for one that is not there or makes no sense.
func readNote(ctx context.Context, disk Disk, name string) note {
	f, err := disk.Open(ctx, name)
	if err != nil {
		return note{}
	}
	defer f.Close()
	if f.Size() > largestNote {
		return note{}
	}
	text := make([]byte, f.Size())
	var n note
	if readFull(f, text, 0) != nil || json.Unmarshal(text, &n) != nil {
		return note{}
	}
	switch n.State {
	case OK, Behind, Failed:
		return n
	}
	return note{}
}

// conclude settles the states, and writes the note if it has to change.
func (l *lane) conclude(ctx context.Context, was note) {
	r := &l.result
	r.Before = was.State
	r.After = l.after(ctx, was.State)
	now := note{State: r.After, Since: was.Since, Tried: was.Tried}
	if r.After != was.State {
		now.Since = l.now().UTC()
	}
	if r.Outcome != Delivered {
		now.Reason = brief(errors.Join(r.Err, r.Reason))
		switch {
		case errors.Is(r.Reason, errNotTried):
		case r.Sent == 0 && l.silent():
			now.Tried = l.now().UTC()
		default:
			now.Tried = time.Time{}
		}
	}
	if now.State == was.State && now.Tried.Equal(was.Tried) || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	// Also when the call's time is over: what it came to must not be told anew
	// by the next one.
	if err := l.writeNote(context.WithoutCancel(ctx), now); err != nil {
		l.log().Debug("the state of a destination cannot be written down", "destination", r.Destination, "error", err)
	}
}

func (l *lane) after(ctx context.Context, before State) State {
	r := l.result
	switch {
	case r.Outcome == Delivered:
		return OK
	case errors.Is(ctx.Err(), context.Canceled):
		return before // the call was not given its time
	case l.background() && before == Failed:
		// What somebody had to be told of may be that a file was lost, which
		// says nothing of the destination: each attempt would tell otherwise.
		return Failed
	case r.Outcome == Lost, needsSomebody(r.Reason):
		return Failed
	case errors.Is(r.Reason, errNotTried):
		return before
	}
	return Behind
}

// needsSomebody tells whether a reason does not go away by itself.
func needsSomebody(reason error) bool {
	for _, e := range []error{archive.ErrConflict, archive.ErrForeign, archive.ErrIdentity, archive.ErrDamaged} {
		if errors.Is(reason, e) {
			return true
		}
	}
	return false
}

// brief is a reason in one line of bearable length.
func brief(err error) string {
	const most = 500
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// writeNote replaces the note.
func (l *lane) writeNote(ctx context.Context, n note) error {
	text, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	temp := l.at(l.Writer.NewTempName())
	f, err := l.Disk.Create(ctx, temp)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = l.Disk.Replace(ctx, temp, l.at(stateFile))
	}
	if err != nil {
		return errors.Join(err, ignoreAbsent(l.Disk.Remove(context.WithoutCancel(ctx), temp)))
	}
	return nil
}
