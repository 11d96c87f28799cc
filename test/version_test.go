package test

import (
	"fmt"
	"runtime"
	"testing"
)

// TestVersionIsWhatMakeWasTold: the linker sets a variable by its name, and says
// nothing when there is none of that name.
func TestVersionIsWhatMakeWasTold(t *testing.T) {
	t.Parallel()
	want := fmt.Sprintf("pitr %s %s %s/%s\n", builtVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if got := pitr("version"); got.status != 0 || got.stdout != want {
		t.Errorf("want %s: %s", want, got)
	}
}
