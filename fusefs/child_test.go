package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pitr/archive"
	"pitr/archive/local"
	"pitr/archive/wal"
)

// childVariable makes the test's binary another program: one that reads a mount.
const childVariable = "PITR_FUSEFS_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" && !strings.HasPrefix(os.Args[1], "-test.") {
		if err := children[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// children are what the binary can be.
var children = map[string]func(args []string) error{
	"fetch":  fetchChild,
	"random": randomChild,
	"daemon": daemonChild,
	"exec":   execChild,
	"seek":   seekChild,
	"lseek":  lseekChild,
}

func childCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	return cmd
}

// child runs one, and returns what it prints.
func child(t testing.TB, args ...string) string {
	t.Helper()
	out, err := childCommand(t, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// fetchChild fetches a file from the archive in a directory.
func fetchChild(args []string) error {
	a := archive.New(args[0], store(local.New(args[0])), archive.Options{Verified: true})
	name, err := wal.ParseName(args[1])
	if err != nil {
		return err
	}
	var got bytes.Buffer
	err = a.Fetch(context.Background(), name, time.Minute, func(write func(io.Writer) error) error { return write(&got) })
	switch {
	case errors.Is(err, archive.ErrAbsent):
		fmt.Println("absent")
	case errors.Is(err, archive.ErrGap):
		fmt.Println("gap")
	default:
		fmt.Printf("%x %v\n", got.Bytes()[:min(16, got.Len())], err)
	}
	return nil
}

// randomChild compares what is read at random from one of two directories with what
// is in the other one.
func randomChild(args []string) error {
	seed, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	reads, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(uint64(seed), 1))
	names := args[4:]
	for range reads {
		name := names[random.IntN(len(names))]
		if err := compareAt(args[0]+"/"+name, args[1]+"/"+name, random); err != nil {
			return err
		}
	}
	return nil
}

func compareAt(a, b string, random *rand.Rand) error {
	x, err := os.Open(a)
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return err
	}
	defer y.Close()
	info, err := y.Stat()
	if err != nil {
		return err
	}
	for range 4 {
		off := random.Int64N(info.Size() + 100)
		p, q := make([]byte, random.IntN(300_000)), make([]byte, 300_000)
		q = q[:len(p)]
		n, errN := x.ReadAt(p, off)
		m, errM := y.ReadAt(q, off)
		if n != m || !bytes.Equal(p[:n], q[:m]) || errN != errM {
			return fmt.Errorf("%s at %d: %d bytes, %v; want %d, %v", a, off, n, errN, m, errM)
		}
	}
	return nil
}

// daemonChild mounts an archive in a directory until its input ends, and prints the
// most memory that it took.
func daemonChild(args []string) error {
	debug.SetMemoryLimit(MemoryLimit)
	a := archive.New(args[0], store(local.New(args[0])), archive.Options{Layout: archive.Layout(args[3])})
	s, err := Mount(context.Background(), args[1], Options{Archives: archive.Set{a}, Cache: CacheOptions{Dir: args[2], Bytes: 64 << 20}})
	if err != nil {
		return err
	}
	if len(args) > 4 && args[4] == "served" {
		(&mount{Server: s}).refuse(true)
	}
	fmt.Println("mounted")
	io.Copy(io.Discard, os.Stdin)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
	return errors.Join(s.Unmount(), s.Close(context.Background()))
}

// execChild becomes another program, in the same process.
func execChild(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}

// seekChild reads a directory, and then again from behind each of its entries: that
// must be the next one. It prints how many there are.
func seekChild(args []string) error {
	fd, err := syscall.Open(args[0], syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	type place struct {
		name string
		off  int64
	}
	read := func() (all []place, err error) {
		buf := make([]byte, 4096)
		n, err := syscall.ReadDirent(fd, buf)
		for b := buf[:max(n, 0)]; len(b) > 0; {
			length := int(b[16]) | int(b[17])<<8
			name, _, _ := bytes.Cut(b[19:length], []byte{0})
			var off int64
			for i := range 8 {
				off |= int64(b[8+i]) << (8 * i)
			}
			all, b = append(all, place{string(name), off}), b[length:]
		}
		return all, err
	}
	var all []place
	for {
		some, err := read()
		if err != nil {
			return err
		}
		if len(some) == 0 {
			break
		}
		all = append(all, some...)
	}
	for i := len(all) - 2; i >= 0; i-- {
		if _, err := syscall.Seek(fd, all[i].off, io.SeekStart); err != nil {
			return err
		}
		if next, err := read(); err != nil || len(next) == 0 || next[0] != all[i+1] {
			return fmt.Errorf("behind %v: got %v, %v, want %v", all[i], next, err, all[i+1])
		}
	}
	fmt.Println(len(all))
	return nil
}

// lseekChild seeks data or a hole from byte 1000 on.
func lseekChild(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	whence := map[string]int{"data": 3, "hole": 4}[args[1]]
	off, err := syscall.Seek(int(f.Fd()), 1000, whence)
	fmt.Println(off)
	return err
}
