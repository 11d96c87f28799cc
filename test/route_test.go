package test

import (
	"cmp"
	"testing"

	"pitr/test/proxy"
	"pitr/test/sshd"
)

// route is how an archive is reached over SSH: through a proxy, to an sshd.
type route struct {
	server *sshServer
	proxy  *proxy.Proxy
	addr   string // of the proxy, or of the sshd

	timeout string // ssh_timeout, if it is to be another one than a test has the patience for
}

func newRoute(t testing.TB) *route {
	t.Helper()
	s := newSSHD(t)
	p := s.behind(proxy.Plan{})
	return &route{server: s, proxy: p, addr: p.Addr()}
}

// direct leaves the proxy out: it takes connections also when the sshd is down.
func (r *route) direct() { r.addr = r.server.Addr() }

// url is the archive in a directory of the far side.
func (r *route) url(dir string) string {
	return "sftp://" + r.server.User + "@" + r.addr + dir
}

// lines are the configuration that lets pitr in, and does not let it wait.
func (r *route) lines() []string {
	return []string{"identity_file = " + r.server.Identity, "known_hosts = " + r.server.KnownHosts, "ssh_timeout = " + cmp.Or(r.timeout, "4s")}
}

// goes lets all connections, also those that there are, end or go through this.
func (r *route) goes(plan proxy.Plan) (mend func()) {
	r.proxy.Set(plan)
	r.proxy.Drop()
	return func() {
		r.proxy.Set(proxy.Plan{})
		r.proxy.Drop()
	}
}

// stop stops the sshd.
func (r *route) stop() (mend func()) {
	r.server.stop()
	return r.server.start
}

// becomes starts the sshd again as another one at the same place.
func (r *route) becomes(variant func(*sshd.Config)) (mend func()) {
	r.server.t.Helper()
	before, err := r.server.Change(variant)
	check(r.server.t, err)
	return func() {
		r.server.t.Helper()
		_, err := r.server.Change(func(c *sshd.Config) { *c = before })
		check(r.server.t, err)
	}
}
