package multicall

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
)

// mountTable lists the mounts that this process sees, the later ones above the
// earlier ones: proc_pid_mountinfo(5). To read it asks no file system, so none
// that hangs can hold it up.
const mountTable = "/proc/self/mountinfo"

// pitrType is the type of an archive's mount.
const pitrType = "fuse.pitr"

// mountEntry is one mount.
type mountEntry struct {
	id     int
	device string // MAJOR:MINOR, as /proc/PID/maps has it in hexadecimal
	root   string // what of the file system is shown
	point  string // where
	kind   string // its type
	source string
	owner  int // who has mounted it; nobody, if it is no FUSE mount
}

// nobody is the owner of a mount that names none.
const nobody = -1

// isPitr tells whether an archive is mounted there.
func (m mountEntry) isPitr() bool { return m.kind == pitrType }

// readMounts reads the mounts of this process.
func readMounts() ([]mountEntry, error) {
	f, err := os.Open(mountTable)
	if err != nil {
		return nil, fmt.Errorf("which file systems are mounted: %w", err)
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(r io.Reader) ([]mountEntry, error) {
	var all []mountEntry
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m, ok := parseMount(lines.Text())
		if !ok {
			return nil, fmt.Errorf("%s: a line that is none of its: %q", mountTable, lines.Text())
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// parseMount reads a line:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// There is any number of fields before the dash.
func parseMount(line string) (mountEntry, bool) {
	before, after, found := strings.Cut(line, " - ")
	first, last := strings.Fields(before), strings.Split(after, " ")
	if !found || len(first) < 6 || len(last) < 3 {
		return mountEntry{}, false
	}
	id, err := strconv.Atoi(first[0])
	return mountEntry{
		id: id, device: first[2], root: octalDecoded(first[3]), point: octalDecoded(first[4]),
		kind: last[0], source: octalDecoded(last[1]), owner: ownerIn(last[2]),
	}, err == nil
}

// ownerIn finds who has mounted in the options of a FUSE mount.
func ownerIn(options string) int {
	for o := range strings.SplitSeq(options, ",") {
		if v, ok := strings.CutPrefix(o, "user_id="); ok {
			if n, err := strconv.Atoi(v); err == nil {
				return n
			}
		}
	}
	return nobody
}

// octalDecoded replaces the octal escapes that the kernel writes for blanks, line
// breaks, backslashes and, in sources, for #.
func octalDecoded(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountedAt is what one sees at a directory: the last of the mounts there.
func mountedAt(all []mountEntry, dir string) (mountEntry, bool) {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].point == dir {
			return all[i], true
		}
	}
	return mountEntry{}, false
}

// mountOf is the mount that a path lies on, and where in its file system.
func mountOf(all []mountEntry, name string) (m mountEntry, inside string, found bool) {
	for _, e := range all {
		if below(name, e.point) && (!found || len(e.point) >= len(m.point)) {
			m, found = e, true
		}
	}
	if !found {
		return m, "", false
	}
	return m, path.Join(m.root, strings.TrimPrefix(name, m.point)), true
}

// mountsBelow are the mounts that lie inside a directory.
func mountsBelow(all []mountEntry, dir string) []mountEntry {
	var inside []mountEntry
	for _, e := range all {
		if e.point != dir && below(e.point, dir) {
			inside = append(inside, e)
		}
	}
	return inside
}
