package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// debian15 has psql and pg_basebackup, besides a server.
const debian15 = "/usr/lib/postgresql/15/bin"

// house is where the tests live. TestMain fills it in once.
type house struct {
	source string // the module's directory
	dir    string // short, and open to the servers' user
	pitr   string // the binary; its applets stand beside it
	user   *syscall.Credential
	home   string // a home directory for what the servers' user runs
}

var home house

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == measureArg {
		os.Exit(measure(os.Args[2:]))
	}
	dir := os.Getenv(treeVariable)
	if dir == "" {
		os.Exit(keep())
	}
	os.Unsetenv(treeVariable)
	os.Exit(runAll(m, dir))
}

func runAll(m *testing.M, dir string) int {
	h, err := openHouse(dir)
	if err != nil {
		return complain(err)
	}
	home = h
	status := m.Run()
	if left := agentsLeft(dir); len(left) > 0 {
		return complain(fmt.Errorf("agents outlive their tests: %v", left))
	}
	if left := mountsLeft(dir); len(left) > 0 {
		return complain(fmt.Errorf("mounts outlive their tests: %v", left))
	}
	return status
}

func openHouse(dir string) (h house, err error) {
	h.dir = dir
	if h.source, err = filepath.Abs(".."); err != nil {
		return h, err
	}
	if _, err := os.Stat(filepath.Join(debian15, "psql")); err != nil {
		return h, errors.New("PostgreSQL 15 is not installed: run test/setup")
	}
	if err := os.Chmod(h.dir, 0o755); err != nil {
		return h, err
	}
	if h.user, err = serverUser(); err != nil {
		return h, err
	}
	if err := h.give(h.dir); err != nil {
		return h, err
	}
	if h.home, err = h.directory("home"); err != nil {
		return h, err
	}
	return h, h.build()
}

// serverUser is who runs the servers: nobody else if we are not root.
func serverUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
	}
	return nil, errors.New("there is neither a user postgres nor nobody to run servers as")
}

// directory makes a directory that belongs to the servers' user.
func (h house) directory(name string) (string, error) {
	dir := filepath.Join(h.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, h.give(dir)
}

// give hands a file to the servers' user.
func (h house) give(path string) error {
	if h.user == nil {
		return nil
	}
	return os.Lchown(path, int(h.user.Uid), int(h.user.Gid))
}

// builtVersion is what the binary is told about its version.
const builtVersion = "1.2.3-test"

// build makes the binary with the Makefile, and its applets.
func (h *house) build() error {
	bin := filepath.Join(h.dir, "bin")
	h.pitr = filepath.Join(bin, "pitr")
	cmd := exec.Command("make", "--silent", "build", "BINARY="+h.pitr, "VERSION="+builtVersion)
	cmd.Dir = h.source
	// Options and jobs of a make that runs the tests are not for this one.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build pitr: %w\n%s", err, out)
	}
	install := exec.Command(h.pitr, "install", bin)
	install.Env = []string{}
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("pitr install: %w\n%s", err, out)
	}
	return nil
}

// applet is the path of one of pitr's names.
func (h house) applet(name string) string { return filepath.Join(filepath.Dir(h.pitr), name) }

// command is a command that runs as the servers' user, with a clean
// environment: nothing of what is set here may change what pitr does.
func (h house) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = h.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.home, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.user}
	return cmd
}

// serverBin is where the programs of a server lie that its user can run.
func (h house) serverBin(version int) (string, error) {
	if version == 15 {
		return debian15, nil
	}
	bin := filepath.Join(h.source, ".cache", "servers", strconv.Itoa(version), "bin")
	if _, err := os.Stat(bin); err != nil {
		return "", fmt.Errorf("PostgreSQL %d is not there: run test/setup", version)
	}
	if h.command(filepath.Join(bin, "postgres"), "--version").Run() == nil {
		return bin, nil
	}
	// The checkout lies where only root may go.
	own := filepath.Join(h.dir, "server"+strconv.Itoa(version))
	if out, err := exec.Command("cp", "-a", filepath.Dir(bin), own).CombinedOutput(); err != nil {
		return "", fmt.Errorf("copy PostgreSQL %d: %w\n%s", version, err, out)
	}
	return filepath.Join(own, "bin"), nil
}

// exitCode is what a command's error means as an exit status: -1 for a death
// by signal or no start at all.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// tail is the end of a text, for messages.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
