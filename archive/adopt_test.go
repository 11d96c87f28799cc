package archive_test

import (
	"testing"

	"pitr/archive"
	"pitr/archive/archivetest"
	"pitr/archive/files"
	"pitr/archive/wal"
)

// left is a directory as pitrtools leaves it.
func left(t *testing.T, all ...file) *archivetest.Memory {
	t.Helper()
	disk := archivetest.NewMemory()
	for _, f := range all {
		plant(t, disk, f.name.String(), f.content)
	}
	return disk
}

func foreign(first wal.SegmentNumber, count int) (all []file) {
	w := archivetest.NewWAL(systemID+1, 15, 1, mb, first, 1)
	for range count {
		name, content := w.Next()
		all = append(all, file{name, content})
	}
	return all
}

func cut(f file) file { return file{f.name, f.content[:len(f.content)/2]} }

func TestFlatInitAdoptsWALOfItsCluster(t *testing.T) {
	ours := segments(1, 0x10, 30, 1)
	history := history(2, "1\t0/1100000\tno recovery target specified\n")
	flat := forms[2]
	for _, c := range []struct {
		what  string
		there []file
		want  error
	}{
		{"segments", ours, nil},
		{"one segment", ours[:1], nil},
		{"segments and a history", append([]file{history}, ours...), nil},
		{"a copy that broke off", append([]file{cut(ours[0])}, ours[1:3]...), nil},
		{"a copy that broke off alone", []file{cut(ours[0])}, archive.ErrNotEmpty},
		{"a history alone", []file{history}, archive.ErrNotEmpty},
		{"another cluster's", foreign(0x10, 3), archive.ErrIdentity},
		{"two clusters'", append(foreign(0x10, 1), ours[1:5]...), archive.ErrIdentity},
		{"two clusters', the other one last", append(foreign(0x40, 1), ours...), archive.ErrIdentity},
	} {
		disk := left(t, c.there...)
		if err := disk.Mkdir(t.Context(), "scripts"); err != nil {
			t.Fatal(err)
		}
		_, err := archive.Init(t.Context(), store(disk), identity(flat))
		if c.want != nil {
			wantError(t, err, c.want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		a := at(disk, archive.Options{})
		more := segments(1, 0x10, 31, 1)[30]
		push(t, a, more)
		wantFile(t, a, more)
		if c.what == "segments" {
			wantFile(t, a, ours[0])
			push(t, a, ours...)
		}
	}
}

// A tree never begins in a directory with something in it.
func TestTreeInitAdoptsNothing(t *testing.T) {
	disk := left(t, segments(1, 0x10, 1, 1)...)
	_, err := archive.Init(t.Context(), store(disk), identity(forms[0]))
	wantError(t, err, archive.ErrNotEmpty)
}

// What cannot be read may be anybody's.
func TestFlatInitDoubtsWhatItCannotRead(t *testing.T) {
	all := segments(1, 0x10, 3, 1)
	disk := unreadable(left(t, all...), all[1].name.String())
	_, err := archive.Init(t.Context(), files.NewStore(disk, files.Writer{}), identity(forms[2]))
	wantError(t, err, errIO)
}
