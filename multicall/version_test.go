package multicall

import (
	"runtime"
	"strings"
	"testing"
)

func TestVersionLine(t *testing.T) {
	got := strings.Fields(thisBuild().String())
	if len(got) != 4 || got[0] != "pitr" || got[1] != Version() || got[2] != runtime.Version() || got[3] != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("got %q, want pitr VERSION GO SYSTEM", got)
	}
}
