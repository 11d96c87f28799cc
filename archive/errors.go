package archive

import (
	"errors"
	"fmt"
)

// What an operation on an archive can come to besides success. Match them with
// errors.Is. An error that matches none of them is a doubt: the archive could
// not be asked, or what it said proves nothing.
var (
	// ErrAbsent: the archive was seen to be this cluster's, and said that it
	// has no such file, nor any later WAL that would make this a gap.
	ErrAbsent = errors.New("not in the archive")

	// ErrGap: the file is not there, but later WAL of its timeline is or was.
	ErrGap = errors.New("gap in the archive")

	// ErrConflict: other content stands in the archive under this name.
	ErrConflict = errors.New("the archive holds another file of this name")

	// ErrForeign: the file to be stored is not what its name says, or is of
	// another cluster. Nothing was stored.
	ErrForeign = errors.New("refused")

	// ErrIdentity: the archive belongs to another cluster, or to a version of
	// pitr that this one does not understand.
	ErrIdentity = errors.New("wrong archive")

	// ErrDamaged: what the archive holds under this name is not what was
	// stored: wrong digest, wrong header, cut short.
	ErrDamaged = errors.New("damaged in the archive")

	// ErrNoIdentity: the directory holds no archive.json. It may be an
	// unmounted file system, so this says nothing about what is archived.
	ErrNoIdentity = errors.New("no archive here")
)

// WithHint gives an error advice for the operator: one sentence, which is shown
// on a line of its own. nil stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return hinted{err, fmt.Sprintf(format, args...)}
}

// hinted is an error with advice.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint is what the operator may do about it: one sentence.
func (h hinted) Hint() string { return h.hint }
