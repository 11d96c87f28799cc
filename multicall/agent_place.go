package multicall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// agentPlace is where an agent is found: see "Who it is" in docs/agent.md.
type agentPlace struct {
	dir    string
	key    string
	theirs bool // it is another user's: where that one's agents are by default
}

func (p agentPlace) socket() string { return filepath.Join(p.dir, p.key+".sock") }
func (p agentPlace) lock() string   { return filepath.Join(p.dir, p.key+".lock") }

// agentIdentity is what tells one agent from another, and whether it is still the
// right one.
type agentIdentity struct {
	configFile string   // absolute, or "": there is none
	pgdata     string   // absolute, without symbolic links
	flags      []string // the settings of the command line
	environ    []string
	// restores: it is a fetcher, which works for restore_command.
	restores bool
}

// role is what it is called.
func (id agentIdentity) role() string {
	if id.restores {
		return "fetcher"
	}
	return "agent"
}

// place is where the agent of an identity is found. dir may be empty.
func (id agentIdentity) place(dir string) agentPlace {
	theirs := false
	if dir == "" {
		uid := ownerOf(id.pgdata)
		dir, theirs = filepath.Join("/tmp", "pitr-"+strconv.Itoa(uid)), uid != os.Geteuid()
	}
	h := sha256.New()
	for _, part := range append([]string{id.configFile, id.pgdata}, id.flags...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	if id.restores {
		fmt.Fprint(h, id.role())
	}
	return agentPlace{dir: dir, key: hex.EncodeToString(h.Sum(nil)[:8]), theirs: theirs}
}

// ownerOf is the user whose data directory it is, and who runs its server: PostgreSQL
// insists on that. Ourselves, if nobody knows.
func ownerOf(pgdata string) int {
	var st unix.Stat_t
	if pgdata == "" || unix.Stat(pgdata, &st) != nil {
		return os.Geteuid()
	}
	return int(st.Uid)
}

// digest is what the configuration amounts to, without understanding it.
func (id agentIdentity) digest() (string, error) {
	h := sha256.New()
	if id.configFile != "" {
		text, _, err := readRegular(id.configFile)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	var set []string
	for _, kv := range id.environ {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "PITR_") && name != configVariable && value != "" {
			set = append(set, kv)
		}
	}
	slices.Sort(set)
	for _, kv := range set {
		fmt.Fprintf(h, "%d:%s", len(kv), kv)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// buildID is what the linker called this binary: equal for equal ones, wherever
// they lie.
func buildID() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return Version()
	}
	defer f.Close()
	head := make([]byte, 16<<10) // the note stands at the beginning
	n, _ := f.ReadAt(head, 0)
	if id := buildNote(head[:n]); id != "" {
		return id
	}
	return Version()
}

// buildNote finds Go's note in the head of an ELF file: the lengths of name and
// content, the type, the name, the content (debug/buildinfo reads the same).
func buildNote(head []byte) string {
	mark := []byte("\x04\x00\x00\x00Go\x00\x00")
	at := bytes.Index(head, mark)
	if at < 4 {
		return ""
	}
	length := int(head[at-4]) | int(head[at-3])<<8
	content := head[at+len(mark):]
	if length > len(content) {
		return ""
	}
	return string(content[:length])
}

// errPlace says that the directory of agents cannot be trusted.
var errPlace = errors.New("not a safe place for an agent")

// trusted tells whether the directory is ours alone. fs.ErrNotExist if there is none.
func (p agentPlace) trusted() error {
	info, err := os.Lstat(p.dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(st.Uid) != os.Geteuid() {
		return p.notOurs()
	}
	if !info.IsDir() || !ok || info.Mode().Perm()&0o022 != 0 {
		return hint(fmt.Errorf("%s: %w", p.dir, errPlace), "it must be a directory of this user that nobody else can write to; agent_dir names another one")
	}
	return nil
}

// notOurs says that the directory is another user's.
func (p agentPlace) notOurs() error {
	return hint(fmt.Errorf("%s: %w: it is another user's", p.dir, errPlace), "run this as the user of PostgreSQL, whom the data directory belongs to; if that is so already, agent_dir names another place")
}

// make makes the directory if it is missing. Not for another user, who could not
// use it then.
func (p agentPlace) make() error {
	if p.theirs {
		return p.notOurs()
	}
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return p.trusted()
}

// hold takes the lock, which is free when its holder is gone. errHeld if another
// one has it.
func (p agentPlace) hold() (release func(), err error) {
	f, err := os.OpenFile(p.lock(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errHeld
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// errHeld says that an agent is there.
var errHeld = errors.New("another agent serves this configuration and data directory")

// listen makes the socket. The lock must be held: what stands there is a dead
// agent's.
func (p agentPlace) listen() (*net.UnixListener, error) {
	if err := os.Remove(p.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := syscall.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.socket(), Net: "unix"})
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then it may be another one's
	return l, nil
}

// dial connects to the agent, and makes sure that it is one of ours.
func (p agentPlace) dial(ctx context.Context) (*net.UnixConn, error) {
	if err := p.trusted(); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialPatience}
	conn, err := d.DialContext(ctx, "unix", p.socket())
	if err != nil {
		return nil, err
	}
	c := conn.(*net.UnixConn)
	if _, err := peer(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// abandon makes sure that nobody waits for one that does not answer. If it lives, it
// ends when it sees that its socket is gone.
func (p agentPlace) abandon() { _ = os.Remove(p.socket()) }

// dialPatience is for a socket whose queue of callers is full.
const dialPatience = 2 * time.Second

// peer is the process at the other end, which must be this user's.
func peer(c *net.UnixConn) (pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var got error
	err = raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, got); err != nil {
		return 0, err
	}
	if int(cred.Uid) != os.Geteuid() {
		return 0, fmt.Errorf("the other side is user %d", cred.Uid)
	}
	return int(cred.Pid), nil
}
