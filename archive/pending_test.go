package archive

import (
	"testing"

	"pitr/archive/files"
)

// The archive may not know a store, and yet sweeps where this one has the
// temporary files of objects in the root.
func TestPendingDirectoryIsThatOfTheStore(t *testing.T) {
	if pendingDirectory != files.PendingDirectory {
		t.Errorf("got %s, want %s", pendingDirectory, files.PendingDirectory)
	}
}
