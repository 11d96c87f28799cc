package test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pitr/test/proxy"
	"pitr/test/sshd"
)

// howTo is cmd_archiver.ini as pitrtools' how-to shows it, letter by letter.
const howTo = `
    ; online or offline
    state: online                    

    ; The base database directory

    pgdata: /var/lib/postgresql/8.4/main

    ; where to remotely copy archives
    r_archivedir: /var/lib/postgresql/archive

    ; where to locally copy archives
    l_archivedir: /var/lib/postgresql/archive

    ; where is ssh and what flags to add
    ssh: /usr/bin/ssh

    ; where is rsync                
    rsync_bin: /usr/bin/rsync            

    ; extra rsync flags
    rsync_flags: -z

    ; option 2 or 3, if running RHEL5 or similar it is likely 2
    ; if you are running something that ships remotely modern software
    ; it will be 3

    rsync_version = 3

    ; IP of slave                    
    slaves: bitarena-clone

    ; the user for the ssh connection to a standby
    user: postgres                

    ; if rsync can't connect in 10 seconds error
    ssh_timeout: 10

    ; command to process in ok                    
    notify_ok: echo OK

    ; command to process in warning
    notify_warning:  echo WARNING

    ; command to process in critical
    notify_critical: echo CRITICAL

    ; if you want to debug on/off only             
    debug: on

    ; if you want ssh debug (warning noisy)
    ssh_debug: off
`

// withoutAgent is added to it: nothing may outlive a test.
const withoutAgent = "\n    agent: off\n"

// farArchive is r_archivedir. All slaves are this machine, and have it in
// common: it is another directory in each one's SFTP server, which begins in a
// directory of its own.
const farArchive = "/proc/self/cwd/archive"

// slave is a host that is shipped to: an sshd, perhaps behind a proxy.
type slave struct {
	*sshServer
	*archive
	host  string // as slaves has it
	proxy *proxy.Proxy
	*arrivals
}

func newSlave(t *testing.T) *slave {
	t.Helper()
	dir := newDirectory(t, "r")
	s := newSSHD(t, func(c *sshd.Config) { c.SFTP = sshd.Internal + " -d " + dir })
	return &slave{sshServer: s, archive: &archive{t: t, dir: filepath.Join(dir, "archive")}, host: s.Host}
}

// newFarSlave is a slave behind a proxy, at an address with the port that all
// slaves have.
func newFarSlave(t *testing.T) *slave {
	t.Helper()
	s := newSlave(t)
	s.host = fmt.Sprintf("127.0.%d.%d", rand.N(256), 2+rand.N(250))
	addr := net.JoinHostPort(s.host, strconv.Itoa(s.Port))
	p, err := proxy.ListenAt(addr, s.Addr(), proxy.Plan{})
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	check(t, s.Know(addr))
	s.proxy = p
	return s
}

// shipping is a primary that ships to slaves with cmd_archiver.
type shipping struct {
	t       *testing.T
	primary *cluster
	slaves  []*slave
	config  string // cmd_archiver.ini
	queues  string // l_archivedir
	calls   string // what the calls of archive_command came to
	alerts  string // what notify_* wrote
}

// newShipping makes the queues and the archives. Only paths, hosts and the port
// of the how-to's configuration are changed, and the pairs that are given: the
// key of ours and of the slaves' goes into the flags of ssh. There is no agent
// unless one of the pairs changes withoutAgent.
func newShipping(t *testing.T, version int, slaves []*slave, changes ...string) *shipping {
	t.Helper()
	c := newCluster(t, version, 1)
	s := &shipping{
		t: t, primary: c, slaves: slaves, config: filepath.Join(c.dir, "cmd_archiver.ini"),
		queues: filepath.Join(c.dir, "queues"), calls: filepath.Join(c.dir, "calls"), alerts: filepath.Join(c.dir, "alerts"),
	}
	var hosts, known []string
	for _, slave := range slaves {
		hosts, known = append(hosts, slave.host), append(known, slave.KnownHosts)
	}
	first := slaves[0]
	ssh := fmt.Sprintf("ssh: /usr/bin/ssh -p %d -i %s -o 'UserKnownHostsFile=%s'\n", first.Port, first.Identity, strings.Join(known, " "))
	pairs := append(changes,
		"/var/lib/postgresql/8.4/main", c.data, "r_archivedir: /var/lib/postgresql/archive", "r_archivedir: "+farArchive,
		"l_archivedir: /var/lib/postgresql/archive", "l_archivedir: "+s.queues, "ssh: /usr/bin/ssh\n", ssh,
		"bitarena-clone", strings.Join(hosts, ", "), "user: postgres", "user: "+first.User, "echo ", "echo >> "+s.alerts+" ")
	writeFile(t, s.config, strings.NewReplacer(pairs...).Replace(howTo+withoutAgent))
	writeFile(t, s.calls, "")
	writeFile(t, s.alerts, "")
	if r := s.run("-I"); r.status != 0 || !strings.Contains(r.stdout, "We are initializing queues, one moment.\n") {
		t.Fatalf("cmd_archiver -I: %s", r)
	}
	for _, slave := range slaves {
		slave.arrivals = newArrivals(t, slave.dir)
	}
	return s
}

// run is cmd_archiver in the data directory, as PostgreSQL runs it.
func (s *shipping) run(args ...string) result {
	cmd := home.command(home.applet("cmd_archiver"), append([]string{"-C", s.config}, args...)...)
	cmd.Dir = s.primary.data
	return run(cmd)
}

// change replaces a text of the configuration.
func (s *shipping) change(from, to string) {
	s.t.Helper()
	text := string(readFile(s.t, s.config))
	if !strings.Contains(text, from) {
		s.t.Fatalf("the configuration has no %q", from)
	}
	writeFile(s.t, s.config, strings.Replace(text, from, to, 1))
}

// command is archive_command of the how-to.
func (s *shipping) command() string {
	return home.applet("cmd_archiver") + " -C " + s.config + " -F %p"
}

// observe lets the primary archive by a script that also writes down when each
// call began, when it ended, and with which status.
func (s *shipping) observe() {
	s.t.Helper()
	script := filepath.Join(s.primary.dir, "archive")
	writeFile(s.t, script, fmt.Sprintf("#!/bin/sh\nbegan=$(date +%%s%%N)\n%s\nstatus=$?\necho \"$1 $began $(date +%%s%%N) $status\" >> %s\nexit $status\n",
		strings.Replace(s.command(), "%p", `"$1"`, 1), s.calls))
	check(s.t, os.Chmod(script, 0o700))
	s.primary.set("archive_mode = on", "archive_command = '"+script+" %p'")
}

// shipped is one call of archive_command.
type shipped struct {
	name         string
	began, ended time.Time
	status       int
}

func (s *shipping) called() (all []shipped) {
	s.t.Helper()
	for line := range strings.Lines(string(readFile(s.t, s.calls))) {
		var c shipped
		var began, ended int64
		_, err := fmt.Sscan(line, &c.name, &began, &ended, &c.status)
		check(s.t, err)
		c.name, c.began, c.ended = filepath.Base(c.name), time.Unix(0, began), time.Unix(0, ended)
		all = append(all, c)
	}
	return all
}

// waiting are the files in a slave's queue.
func (s *shipping) waiting(slave *slave) []string {
	s.t.Helper()
	return glob(s.t, s.queues, slave.host, "0*")
}

// alerted are the alerts so far, a line each. No more of them come: whoever
// gives one has ended.
func (s *shipping) alerted() []string {
	s.t.Helper()
	eventually(s.t, "all alerts are given", func() bool {
		for _, environ := range glob(s.t, "/proc/[0-9]*/environ") {
			text, _ := os.ReadFile(environ) // it may have ended
			if strings.Contains(string(text), "PITR_NOTIFIER=") && strings.Contains(string(text), s.queues) {
				return false
			}
		}
		return true
	})
	return strings.Split(strings.TrimSuffix(string(readFile(s.t, s.alerts)), "\n"), "\n")
}

// switches ends so many segments, and does not wait.
func (c *cluster) switches(segments int) {
	c.t.Helper()
	c.sql(strings.Repeat("SELECT pg_logical_emit_message(true, 'a', 'b'); SELECT pg_switch_wal();\n", segments))
}

// arrivals are the names that have appeared in a directory, in that order, as
// the kernel tells it: inotify(7).
type arrivals struct {
	mu    sync.Mutex // guards what follows
	names []string
	at    map[string]time.Time
}

func newArrivals(t *testing.T, dir string) *arrivals {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	check(t, err)
	events := os.NewFile(uintptr(fd), "inotify")
	_, err = syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE|syscall.IN_MOVED_TO)
	check(t, err)
	a := &arrivals{at: map[string]time.Time{}}
	ended := make(chan error, 1)
	go func() { ended <- a.read(events) }()
	t.Cleanup(func() {
		check(t, events.Close())
		if err := <-ended; !errors.Is(err, os.ErrClosed) {
			t.Errorf("inotify: %v", err)
		}
	})
	return a
}

func (a *arrivals) read(events *os.File) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := events.Read(buf)
		if err != nil {
			return err
		}
		now := time.Now()
		for at := 0; at < n; {
			end := at + syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[at+12:]))
			if binary.NativeEndian.Uint32(buf[at+4:])&syscall.IN_Q_OVERFLOW != 0 {
				return errors.New("events were lost")
			}
			a.add(strings.TrimRight(string(buf[at+syscall.SizeofInotifyEvent:end]), "\x00"), now)
			at = end
		}
	}
}

func (a *arrivals) add(name string, now time.Time) {
	if strings.HasPrefix(name, ".") {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, name)
	a.at[name] = now
}

// sofar are the names until now, and when each came.
func (a *arrivals) sofar() ([]string, map[string]time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := map[string]time.Time{}
	for name, when := range a.at {
		at[name] = when
	}
	return append([]string(nil), a.names...), at
}

// wantInOrder fails unless these segments came one after the other, each once.
func (a *arrivals) wantInOrder(t *testing.T, host string, segments []string) {
	t.Helper()
	names, _ := a.sofar()
	var came []string
	for _, name := range names {
		if len(name) == 24 {
			came = append(came, name)
		}
	}
	for i := 1; i < len(came); i++ {
		if came[i] != next(came[i-1]) {
			t.Errorf("%s: %s came after %s", host, came[i], came[i-1])
		}
	}
	if got, want := strings.Join(came, " "), strings.Join(segments, " "); got != want {
		t.Errorf("%s: got %s\nwant %s", host, got, want)
	}
}
