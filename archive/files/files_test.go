package files

import (
	"testing"
)

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
		{".tmp-db1-b0-pid4026531836-100-00", true}, // before the last boot
		{".tmp-db1-b0-pid1-77-00", true},
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
		if got := us.provesDead(c.name); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUnknownHostOrBootProvesNothing(t *testing.T) {
	for _, us := range []Writer{
		{Host: "", Boot: "b1", PIDNamespace: "p", Alive: func(int) bool { return false }},
		{Host: "db1", Boot: "", PIDNamespace: "p", Alive: func(int) bool { return false }},
		{Host: "db1", Boot: "b1", PIDNamespace: "", Alive: func(int) bool { return false }},
	} {
		if name := us.NewTempName(); us.provesDead(name) {
			t.Errorf("%+v: %s counts as dead", us, name)
		}
	}
}

func TestTempNamesAreUsedOnce(t *testing.T) {
	if a, b := writer().NewTempName(), writer().NewTempName(); a == b {
		t.Errorf("%s twice", a)
	}
}
