package test

import (
	"testing"

	"pitr/test/proxy"
)

// TestFarArchiveFaultLosesNothing is TestArchiveFaultLosesNothing where the
// archive is behind a real sshd, with what can happen to a host besides.
func TestFarArchiveFaultLosesNothing(t *testing.T) {
	t.Parallel()
	wantNothingLostFar(t, []archiveFault{
		{name: "full disk", says: "no space left", disk: mountDisk, inject: fillDisk},
		{name: "read-only file system", says: "read-only file system", disk: mountDisk, inject: remountReadOnly},
		{name: "read-only directory", says: "permission denied", inject: forbidWriting},
		{name: "missing directory", says: "no archive here", inject: moveAway},
		{name: "host down", says: "connection refused", disk: leaveOutProxy, inject: stopHost},
		{name: "host silent", says: "push_timeout", inject: through(proxy.Silent())},
		{name: "cut in mid file", says: "connection", inject: through(proxy.Plan{Up: proxy.Flow{After: 500_000, Then: proxy.Cut}})},
		{name: "no sftp subsystem", says: "subsystem", inject: func(_ *testing.T, a *archive) func() { return a.route.becomes(withoutSFTP) }},
	})
}

// TestAgentOutlivesFaults: the same, with an agent that is there before the fault
// begins, and has sent ahead what then fails.
func TestAgentOutlivesFaults(t *testing.T) {
	t.Parallel()
	wantNothingLostFar(t, []archiveFault{
		{name: "full disk", says: "no space left", disk: mountDisk, inject: fillDisk, agents: true},
		{name: "read-only file system", says: "read-only file system", disk: mountDisk, inject: remountReadOnly, agents: true},
		{name: "missing directory", says: "no archive here", inject: moveAway, agents: true},
		{name: "host down", says: "connection refused", disk: leaveOutProxy, inject: stopHost, agents: true},
		{name: "host silent", says: "it has not answered since", inject: through(proxy.Silent()), agents: true},
		{name: "cut in mid file", says: "connection", inject: through(proxy.Plan{Up: proxy.Flow{After: 500_000, Then: proxy.Cut}}), agents: true},
	})
}

func wantNothingLostFar(t *testing.T, faults []archiveFault) {
	for _, f := range faults {
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

func leaveOutProxy(_ *testing.T, a *archive) { a.route.direct() }

func stopHost(_ *testing.T, a *archive) (mend func()) { return a.route.stop() }

// through lets all connections go through a plan.
func through(p proxy.Plan) func(*testing.T, *archive) (mend func()) {
	return func(_ *testing.T, a *archive) func() { return a.route.goes(p) }
}
