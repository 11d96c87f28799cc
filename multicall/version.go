package multicall

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker, with -ldflags "-X pitr/multicall.version=0.1.0",
// and by nothing else.
var version = "dev"

// Version is the version of this build: what the linker was told, else what the
// go command knew about module and commit, else "dev".
func Version() string {
	if version != "dev" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return version + "-" + s.Value[:12]
		}
	}
	return version
}

// build is what `pitr version` tells.
type build struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

func thisBuild() build {
	return build{"pitr", Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
}

// String is the line of `pitr version` and of every --version.
func (b build) String() string {
	return fmt.Sprintf("%s %s %s %s", b.Name, b.Version, b.Go, b.System)
}

type versionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints the version.
func (v versionCmd) Run(c *call) error {
	if v.JSON {
		return c.printJSON(thisBuild())
	}
	_, err := fmt.Fprintln(c.stdout, thisBuild())
	return err
}
