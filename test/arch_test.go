package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
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
	"pitr/archive/local":       5,
	"pitr/archive/remote":      5,
	"pitr/archive/object":      5,
	"pitr/archive/files":       4,
	"pitr/archive":             3,
	"pitr/archive/codec":       2,
	"pitr/archive/wal":         1,
	"pitr/test":                0, // what is not a test there is a comment
	"pitr/test/bench":          0, // a program of its own; it runs the binary
}

// programs read a command line and decide about their end: the product's only
// one, and the bench, which is no part of it.
var programs = []string{"pitr", "pitr/multicall", "pitr/test/bench"}

// stores are chosen by multicall, and by nobody else.
var stores = []string{"pitr/archive/files", "pitr/archive/local", "pitr/archive/remote", "pitr/archive/object"}

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
	"golang.org/x/sync":                                  {"pitr/archive/codec"},
	"golang.org/x/sys":                                   {"pitr/archive/local", "pitr/multicall"},
}

// topLevel is what may lie in the module's directory and hold source.
var topLevel = []string{"archive", "backup", "fusefs", "multicall", "standby", "test"}

// listed is what this test reads of go list.
type listed struct {
	ImportPath string
	Dir        string
	Doc        string
	Standard   bool
	Module     *struct {
		Path string
		Main bool
	}
	GoFiles []string
	Imports []string
}

func (p listed) ours() bool { return p.Module != nil && p.Module.Main }

// listPackages lists the module's packages and all that they need, by path.
func listPackages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Doc,Standard,Module,GoFiles,Imports", "./...")
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
		for _, i := range p.Imports {
			wantImport(t, p, all[i], i)
		}
	}
	if ours < 8 {
		t.Errorf("only %d packages were looked at", ours)
	}
}

func wantImport(t *testing.T, p, i listed, path string) {
	t.Helper()
	from := p.ImportPath
	switch {
	case i.Standard || path == "C":
		if path == "flag" && !slices.Contains(programs, from) {
			t.Errorf("%s imports flag: only multicall reads the command line", from)
		}
		return
	case from == "pitr/archive/wal":
		t.Errorf("%s imports %s: it needs the standard library only", from, path)
	case !i.ours():
		if !slices.Contains(libraries[i.Module.Path], from) {
			t.Errorf("%s imports %s, which belongs to %q", from, path, libraries[i.Module.Path])
		}
		return
	}
	if floors[path] >= floors[from] {
		t.Errorf("%s imports %s, which does not lie lower", from, path)
	}
	if slices.Contains(stores, path) && !slices.Contains(stores, from) && from != "pitr/multicall" && from != "pitr/archive/archivetest" {
		t.Errorf("%s imports the store %s: multicall chooses", from, path)
	}
	if path == "pitr/archive/archivetest" {
		t.Errorf("%s imports archivetest, which is for tests", from)
	}
	if from == "pitr" && path != "pitr/multicall" {
		t.Errorf("main imports %s", path)
	}
}

func TestTopLevelHoldsWhatTheDesignNames(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(home.source)
	check(t, err)
	for _, e := range entries {
		name := e.Name()
		switch {
		case !e.IsDir() && strings.HasSuffix(name, ".go") && name != "main.go":
			t.Errorf("%s: main.go is the only source file here", name)
		case e.IsDir() && holdsSource(t, filepath.Join(home.source, name)) && !slices.Contains(topLevel, name):
			t.Errorf("%s is no part of the layout", name)
		}
	}
}

func holdsSource(t *testing.T, dir string) (found bool) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		found = found || path.Ext(file) == ".go"
		return err
	}))
	return found
}

// onlyAbove are what only main and multicall may use: the process's exit, its
// arguments and its environment.
var onlyAbove = map[string][]string{
	"os":  {"Exit", "Args", "Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv"},
	"log": {"Fatal", "Fatalf", "Fatalln"},
}

// longest is how many lines a source file may have.
const longest = 400

func TestSourceKeepsTheHouseRules(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		if !p.ours() {
			continue
		}
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			if n := countLines(t, file); n > longest {
				t.Errorf("%s has %d lines, more than %d", file, n, longest)
			}
			wantHouseRules(t, p.ImportPath, file)
		}
	}
}

func countLines(t *testing.T, file string) (n int) {
	t.Helper()
	f, err := os.Open(file)
	check(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		n++
	}
	return n
}

func wantHouseRules(t *testing.T, pkg, file string) {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, nil, parser.SkipObjectResolution)
	check(t, err)
	names := importNames(parsed)
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				t.Errorf("%s: an init function", files.Position(n.Pos()))
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok || !slices.Contains(onlyAbove[names[x.Name]], n.Sel.Name) {
				break
			}
			if !slices.Contains(programs, pkg) {
				t.Errorf("%s: %s.%s below multicall", files.Position(n.Pos()), x.Name, n.Sel.Name)
			}
		}
		return true
	})
}

// importNames maps the names by which a file calls its imports to their paths.
func importNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, i := range f.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		name := path[strings.LastIndex(path, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = path
	}
	return names
}
