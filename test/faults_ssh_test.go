package test

import (
	"testing"

	"pitr/test/proxy"
)

// TestFarArchiveFaultLosesNothing is TestArchiveFaultLosesNothing where the
// archive is behind a real sshd, with what can happen to a host besides.
func TestFarArchiveFaultLosesNothing(t *testing.T) {
	t.Parallel()
	plan := func(p proxy.Plan) func(*testing.T, *archive) func() {
		return func(_ *testing.T, a *archive) func() { return a.route.goes(p) }
	}
	for _, f := range []archiveFault{
		{"full disk", "no space left", mountDisk, fillDisk},
		{"read-only file system", "read-only file system", mountDisk, remountReadOnly},
		{"read-only directory", "permission denied", nil, forbidWriting},
		{"missing directory", "no archive here", nil, moveAway},
		{"host down", "connection refused", func(_ *testing.T, a *archive) { a.route.direct() }, func(_ *testing.T, a *archive) func() { return a.route.stop() }},
		{"host silent", "push_timeout", nil, plan(proxy.Silent())},
		{"cut in mid file", "connection", nil, plan(proxy.Plan{Up: proxy.Flow{After: 500_000, Then: proxy.Cut}})},
		{"no sftp subsystem", "subsystem", nil, func(_ *testing.T, a *archive) func() { return a.route.becomes(withoutSFTP) }},
	} {
		disk := f.disk
		f.disk = func(t *testing.T, a *archive) {
			a.route = newRoute(t)
			if disk != nil {
				disk(t, a)
			}
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			wantNothingLost(t, f)
		})
	}
}
