package test

import (
	"testing"
	"time"

	"pitr/test/proxy"
	"pitr/test/sshd"
)

// TestRestoreExitCodesOverSSH is the same table where the archive is on the
// other side of a real sshd, and what else can go wrong there. What differs only
// in the archive's files is not tried on live servers once more. Those that are have
// a fetcher.
func TestRestoreExitCodesOverSSH(t *testing.T) {
	t.Parallel()
	p := newPast(t)
	for _, f := range append(faults(), sshFaults()...) {
		prepare := f.prepare
		f.prepare = func(s *scene) {
			s.route = newRoute(s.t)
			s.archive.route = s.route
			if prepare != nil {
				prepare(s)
			}
		}
		t.Run(f.form+"/"+f.name, func(t *testing.T) {
			t.Parallel()
			t.Run("statuses", func(t *testing.T) { t.Parallel(); wantStatuses(t, newScene(t, p, f), f) })
			if f.live {
				f := f
				f.fetcher = true
				t.Run("recovery", func(t *testing.T) { t.Parallel(); wantRecovery(t, newScene(t, p, f), f) })
				t.Run("standby", func(t *testing.T) { t.Parallel(); wantStandby(t, newScene(t, p, f), f) })
			}
		})
	}
}

// sshFaults are those of the host, the network, and what is agreed upon.
func sshFaults() []fault {
	const half = 500_000 // bytes: in the middle of a raw segment, and after anything else
	plan := func(p proxy.Plan) func(*scene) func() {
		return func(s *scene) func() { return s.route.goes(p) }
	}
	variant := func(v func(*sshd.Config)) func(*scene) func() {
		return func(s *scene) func() { return s.route.becomes(v) }
	}
	return complete([]fault{
		{name: "host down", live: true, whole: true, prepare: func(s *scene) { s.route.direct() }, inject: func(s *scene) func() { return s.route.stop() }},
		{name: "host silent", live: true, whole: true, inject: plan(proxy.Silent())},
		{name: "cut in the handshake", whole: true, inject: plan(proxy.Plan{Down: proxy.Flow{After: 800, Then: proxy.Cut}})},
		{name: "cut in mid file", live: true, form: "flat", large: true, inject: plan(proxy.Plan{Down: proxy.Flow{After: half, Then: proxy.Cut}})},
		{name: "stalled in mid file", live: true, form: "flat", large: true, inject: plan(proxy.Plan{Down: proxy.Flow{After: half, Then: proxy.Stall}})},
		{name: "another host key", live: true, whole: true, inject: variant(withAnotherKey)},
		{name: "key refused", live: true, whole: true, inject: variant(refusingOurKey)},
		{name: "no sftp subsystem", live: true, whole: true, inject: variant(withoutSFTP)},
		{name: "no sftp-server", whole: true, inject: variant(func(c *sshd.Config) { c.SFTP = "/nonexistent/sftp-server" })},
		{name: "far away", form: "flat", inject: plan(proxy.Distance(20 * time.Millisecond)), answer: present},
	})
}
