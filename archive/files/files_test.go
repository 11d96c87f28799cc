package files

import (
	"io/fs"
	"testing"
	"time"
)

// temporary is a directory entry that was last written some time ago.
type temporary struct {
	fs.FileInfo
	name string
	age  time.Duration
}

func (e temporary) Name() string               { return e.name }
func (e temporary) ModTime() time.Time         { return time.Now().Add(-e.age) }
func (e temporary) IsDir() bool                { return false }
func (e temporary) Type() fs.FileMode          { return 0 }
func (e temporary) Info() (fs.FileInfo, error) { return e, nil }

func writer() Writer {
	return Writer{Host: "db1", Boot: "b1", PIDNamespace: "pid4026531836", PID: 100, Alive: func(pid int) bool { return pid == 100 }}
}

func TestOnlyProofMakesAWriterDead(t *testing.T) {
	us := writer()
	for _, c := range []struct {
		name string
		want bool
	}{
		{us.NewTempName(), false},
		{".tmp-db1-b1-pid4026531836-77-00", true},
		{".tmp-db2-b1-pid4026531836-77-00", false}, // another host
		{".tmp-db2-b0-pid4026531836-77-00", false},
		{".tmp-db1-b1-pid4026500000-77-00", false}, // another PID namespace
		{".tmp-db1-b1--77-00", false},
		{".tmp-db1-b1-pid4026531836-0-00", false},
		{".tmp-db1-b1-pid4026531836--1-00", false},
		{".tmp-db1-b1-pid4026531836-x-00", false},
		{".tmp-db1", false},
		{".tmp-", false},
		{"", false},
	} {
		for _, age := range []time.Duration{0, 2 * settled} {
			if got := us.provesDead(temporary{name: c.name, age: age}, time.Now()); got != c.want {
				t.Errorf("%s, written %s ago: got %v, want %v", c.name, age, got, c.want)
			}
		}
	}
}

// Two hosts may look like one that was started again: copies of one image.
func TestAnotherBootIsProofOnlyOfOldFiles(t *testing.T) {
	us := writer()
	for _, name := range []string{".tmp-db1-b0-pid4026531836-100-00", ".tmp-db1-b0-pid1-77-00"} {
		if us.provesDead(temporary{name: name, age: settled / 2}, time.Now()) {
			t.Errorf("%s counts as dead, though it may be at work", name)
		}
		if !us.provesDead(temporary{name: name, age: 2 * settled}, time.Now()) {
			t.Errorf("%s does not count as dead", name)
		}
	}
}

func TestUnknownHostOrBootProvesNothing(t *testing.T) {
	for _, us := range []Writer{
		{Host: "", Boot: "b1", PIDNamespace: "p", Alive: func(int) bool { return false }},
		{Host: "db1", Boot: "", PIDNamespace: "p", Alive: func(int) bool { return false }},
		{Host: "db1", Boot: "b1", PIDNamespace: "", Alive: func(int) bool { return false }},
	} {
		if name := us.NewTempName(); us.provesDead(temporary{name: name, age: 2 * settled}, time.Now()) {
			t.Errorf("%+v: %s counts as dead", us, name)
		}
	}
}

func TestTempNamesAreUsedOnce(t *testing.T) {
	if a, b := writer().NewTempName(), writer().NewTempName(); a == b {
		t.Errorf("%s twice", a)
	}
}
