package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// floors is the floor plan: every package of the module, and how high it lies.
// A package imports only what lies lower. Packages of one floor never meet.
var floors = map[string]int{
	"pitr":                     9,
	"pitr/multicall":           8,
	"pitr/fusefs":              7,
	"pitr/standby":             7,
	"pitr/backup":              7,
	"pitr/backup/pg":           6,
	"pitr/archive/archivetest": 6,
	"pitr/archive/ship":        6,
	"pitr/archive/prefetch":    4,
	"pitr/archive/local":       5,
	"pitr/archive/remote":      5,
	"pitr/archive/object":      5,
	"pitr/archive/files":       4,
	"pitr/archive":             3,
	"pitr/archive/codec":       2,
	"pitr/archive/wal":         1,
	"pitr/test":                1, // what is not a test there is a comment
	"pitr/test/bench":          1, // a program of its own; it runs the binary
	"pitr/test/proxy":          0,
	"pitr/test/sshd":           0,
}

// programs read a command line and decide about their end: the product's only
// one, and the bench, which is no part of it.
var programs = []string{"pitr", "pitr/multicall", "pitr/test/bench"}

// archivetest is what tests of archives share.
const archivetest = "pitr/archive/archivetest"

// aids are for tests and for the bench.
var aids = []string{"pitr/test/proxy", "pitr/test/sshd"}

// stores are chosen by multicall, and by nobody else.
var stores = []string{"pitr/archive/files", "pitr/archive/local", "pitr/archive/remote", "pitr/archive/object"}

// beneathQueues is what a queue lies on, which is always a disk of this machine.
var beneathQueues = []string{"pitr/archive/files", "pitr/archive/local"}

// mayUse tells whether a package may import a store.
func mayUse(from, store string) bool {
	return slices.Contains(stores, from) || from == "pitr/multicall" || from == archivetest ||
		from == "pitr/archive/ship" && slices.Contains(beneathQueues, store)
}

// libraries lists who may import a module that is not ours. What is missing
// here may not be imported: a dependency is a decision.
var libraries = map[string][]string{
	"github.com/alecthomas/kong":                         {"pitr/multicall"},
	"gopkg.in/ini.v1":                                    {"pitr/multicall"},
	"mvdan.cc/sh/v3":                                     {"pitr/multicall"},
	"github.com/klauspost/compress":                      {"pitr/archive/codec"},
	"github.com/SaveTheRbtz/zstd-seekable-format-go/pkg": {"pitr/archive/codec"},
	"github.com/cespare/xxhash/v2":                       {"pitr/archive/codec"},
	"github.com/jackc/pgx/v5":                            {"pitr/backup/pg"},
	"golang.org/x/crypto":                                {"pitr/archive/remote"},
	"github.com/pkg/sftp":                                {"pitr/archive/remote"},
	"github.com/skeema/knownhosts":                       {"pitr/archive/remote"},
	"github.com/kevinburke/ssh_config":                   {"pitr/archive/remote"},
	"golang.org/x/time":                                  {"pitr/archive/remote"},
	"golang.org/x/sync":                                  {"pitr/archive/codec"},
	"golang.org/x/sys":                                   {"pitr/archive/local", "pitr/fusefs", "pitr/multicall"},
	"github.com/hanwen/go-fuse/v2":                       {"pitr/fusefs"},
}

// testLibraries lists who else may import one in tests.
var testLibraries = map[string][]string{
	"github.com/rogpeppe/go-internal": {"pitr/multicall"},
	"golang.org/x/sys":                {"pitr/test"},
}

// forbidden are packages of Go itself that only programs may import, or nobody.
var forbidden = map[string][]string{
	"flag":      programs,
	"log":       programs, // log/slog is for everybody
	"os/exec":   append([]string{"pitr/test/sshd"}, programs...),
	"os/signal": programs,
	"C":         nil, // the binary is static
	"plugin":    nil,
	"unsafe":    nil,
}

// topLevel is what may lie in the module's directory and hold source.
var topLevel = []string{"archive", "backup", "fusefs", "multicall", "standby", "test"}

// listed is what this test reads of go list.
type listed struct {
	ImportPath string
	Dir        string
	Doc        string
	ForTest    string
	Standard   bool
	Module     *struct {
		Path string
		Main bool
	}
	Imports, TestImports, XTestImports []string
	IgnoredGoFiles                     []string
}

// ours tells whether this is a package of the module, as others import it.
func (p listed) ours() bool {
	return p.Module != nil && p.Module.Main && p.ForTest == "" && !strings.HasSuffix(p.ImportPath, ".test")
}

// listPackages lists the module's packages and all that they and their tests
// need, by path.
func listPackages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags=soak", "-deps", "-test", "-json=ImportPath,Dir,Doc,ForTest,Standard,Module,Imports,TestImports,XTestImports,IgnoredGoFiles", "./...")
	cmd.Dir = home.source
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	check(t, err)
	all := map[string]listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		check(t, err)
		all[p.ImportPath] = p
	}
}

func TestFloorPlan(t *testing.T) {
	t.Parallel()
	all := listPackages(t)
	ours := 0
	for _, p := range all {
		if !p.ours() {
			continue
		}
		ours++
		if _, planned := floors[p.ImportPath]; !planned {
			t.Errorf("%s is not in the floor plan", p.ImportPath)
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		if len(p.IgnoredGoFiles) > 0 {
			t.Errorf("%s has files that are not built: nobody looks at the imports of %q", p.ImportPath, p.IgnoredGoFiles)
		}
		for _, path := range p.Imports {
			if why := wrongImport(p.ImportPath, path, all[path]); why != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, path, why)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := wrongTestImport(p.ImportPath, path, all[path]); why != "" {
				t.Errorf("a test of %s imports %s: %s", p.ImportPath, path, why)
			}
		}
	}
	if ours < 8 {
		t.Errorf("only %d packages were looked at", ours)
	}
}

// wrongImport says what is wrong with an import, or nothing.
func wrongImport(from, path string, i listed) string {
	who, limited := forbidden[path]
	switch {
	case limited && !slices.Contains(who, from):
		return "that is not for everybody"
	case i.Standard:
		return ""
	case from == "pitr/archive/wal":
		return "it needs the standard library only"
	case i.Module == nil:
		return "nobody knows it"
	case !i.ours():
		return wrongLibrary(from, i, libraries)
	case floors[path] >= floors[from]:
		return "it does not lie lower"
	case slices.Contains(stores, path) && !mayUse(from, path):
		return "multicall chooses the store"
	case path == archivetest, slices.Contains(aids, path) && from != "pitr/test/bench":
		return "it is for tests"
	case from == "pitr" && path != "pitr/multicall":
		return "main only starts multicall"
	}
	return ""
}

// wrongTestImport does the same for the tests of a package. They may also use
// archivetest, and an archive needs a store, which no test has to choose.
func wrongTestImport(from, path string, i listed) string {
	switch {
	case i.Standard:
		return ""
	case from == "pitr/archive/wal":
		return "it needs the standard library only"
	case i.Module == nil:
		return "nobody knows it"
	case !i.ours():
		if wrongLibrary(from, i, testLibraries) == "" {
			return ""
		}
		return wrongLibrary(from, i, libraries)
	case path != from && path != archivetest && !slices.Contains(stores, path) && floors[path] >= floors[from]:
		return "it does not lie lower"
	}
	return ""
}

func wrongLibrary(from string, i listed, may map[string][]string) string {
	if !slices.Contains(may[i.Module.Path], from) {
		return fmt.Sprintf("it belongs to %q", may[i.Module.Path])
	}
	return ""
}

func TestWrongImportsAreFound(t *testing.T) {
	t.Parallel()
	all := listPackages(t)
	tests := []struct {
		from, path      string
		source, inTests bool // whether it is wrong there
	}{
		{"pitr/standby", "log/slog", false, false},
		{"pitr/standby", "log", true, false},
		{"pitr/standby", "flag", true, false},
		{"pitr/standby", "os/signal", true, false},
		{"pitr/archive/local", "os/exec", true, false},
		{"pitr/multicall", "os/exec", false, false},
		{"pitr/multicall", "unsafe", true, false},
		{"pitr/archive/codec", "C", true, true},
		{"pitr/archive/wal", "pitr/archive/codec", true, true},
		{"pitr/archive/wal", "github.com/klauspost/compress/zstd", true, true},
		{"pitr/standby", "github.com/klauspost/compress/zstd", true, true},
		{"pitr/archive/codec", "github.com/klauspost/compress/zstd", false, false},
		{"pitr/multicall", "github.com/rogpeppe/go-internal/testscript", true, false},
		{"pitr/standby", "github.com/rogpeppe/go-internal/testscript", true, true},
		{"pitr/archive", "pitr/archive/wal", false, false},
		{"pitr/fusefs", "pitr/archive", false, false},
		{"pitr/fusefs", "pitr/standby", true, true},
		{"pitr/fusefs", "pitr/archive/local", true, false},
		{"pitr/multicall", "github.com/hanwen/go-fuse/v2/fuse", true, true},
		{"pitr/archive", "pitr/standby", true, true},
		{"pitr/standby", "pitr/backup/pg", false, false},
		{"pitr/backup/pg", "pitr/standby", true, true},
		{"pitr/archive/codec", "pitr/archive", true, true},
		{"pitr/standby", "pitr/archive/local", true, false},
		{"pitr/multicall", "pitr/archive/local", false, false},
		{"pitr/archive/ship", "pitr/archive/local", false, false},
		{"pitr/archive/ship", "pitr/archive/files", false, false},
		{"pitr/archive/ship", "pitr/archive/archivetest", true, false},
		{"pitr/standby", "pitr/archive/files", true, false},
		{"pitr/multicall", "pitr/archive/archivetest", true, false},
		{"pitr", "pitr/archive", true, false},
		{"pitr/archive/local", "pitr/test/proxy", true, false},
		{"pitr/test/bench", "pitr/test/sshd", false, false},
		{"pitr/test/sshd", "pitr/archive/wal", true, true},
		{"pitr/archive", "example.org/unknown", true, true},
	}
	for _, tt := range tests {
		if why := wrongImport(tt.from, tt.path, all[tt.path]); (why != "") != tt.source {
			t.Errorf("%s imports %s: got %q, want wrong %v", tt.from, tt.path, why, tt.source)
		}
		if why := wrongTestImport(tt.from, tt.path, all[tt.path]); (why != "") != tt.inTests {
			t.Errorf("a test of %s imports %s: got %q, want wrong %v", tt.from, tt.path, why, tt.inTests)
		}
	}
}
