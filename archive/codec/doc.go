// Package codec turns the raw bytes of a WAL file into what lies in the
// archive, and back.
//
// A compressed file is seekable Zstandard: independent frames of at most
// MaxFrame raw bytes with checksums, a digest frame (a skippable frame with the
// length and SHA-256 of the raw file), and the seek table, which lists the
// digest frame last with decompressed size 0. docs/format.md gives it byte by
// byte. `zstd -d` restores such a file without this project.
//
// The package promises that Decode returns nil only if every byte it wrote is
// covered by the stored digest. It knows nothing of names, of WAL or of stores.
package codec

import "errors"

// ErrDamaged is matched by every error that says that stored bytes are not what
// Encode wrote. Errors of the reader or the writer underneath do not match it.
var ErrDamaged = errors.New("stored form is damaged")

const (
	// frameSize is how many raw bytes Encode puts into one frame.
	frameSize = 1 << 20

	// MaxFrame is the largest number of raw bytes that a frame may hold. Decode
	// refuses a larger one, which bounds what a damaged table makes it allocate.
	MaxFrame = 4 << 20

	// inFlight is how many frames are compressed or decoded at a time: memory
	// is a few frames, whatever the size of the file.
	inFlight = 2

	// atOnce is how many files an Encoder works on at a time: one is read and
	// written while another one is compressed.
	atOnce = 2
)
