package remote

import (
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/local"
)

// TestConformance: what every store has to pass, over OpenSSH's server and over
// one without its extensions.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve subsystem
	}{{"OpenSSH", openSSH}, {"plain", plain}} {
		t.Run(c.name, func(t *testing.T) {
			archivetest.TestStore(t, archivetest.Kind{Open: func(t *testing.T) archive.Store {
				f := newServer(t, c.serve).newFS(func(o *Options) { o.AllowNoSync = true })
				return files.NewStore(f, local.Writer())
			}})
		})
	}
}
