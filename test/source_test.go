package test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

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

// onlyAbove are what only programs may use: the process's end, its arguments,
// its environment, its streams and its working directory.
var onlyAbove = map[string][]string{
	"os": {
		"Exit", "Args", "Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv", "UserHomeDir", "UserCacheDir",
		"UserConfigDir", "TempDir", "Stdin", "Stdout", "Stderr", "Chdir", "StartProcess",
	},
	"syscall":               {"Exit", "Getenv", "Setenv", "Unsetenv", "Clearenv", "Environ", "Chdir", "Exec", "ForkExec", "StartProcess"},
	"golang.org/x/sys/unix": {"Exit", "Getenv", "Setenv", "Unsetenv", "Clearenv", "Environ", "Chdir", "Exec"},
}

// longest is how many lines a source file may have.
const longest = 400

func TestSourceKeepsTheHouseRules(t *testing.T) {
	t.Parallel()
	looked := 0
	for _, p := range listPackages(t) {
		if !p.ours() {
			continue
		}
		for _, file := range glob(t, p.Dir, "*.go") {
			for _, b := range breaches(t, p.ImportPath, file, readFile(t, file)) {
				t.Error(b)
			}
			looked++
		}
	}
	if looked < 100 {
		t.Errorf("only %d files were looked at", looked)
	}
}

// breaches lists what in a file is against the rules. What a test is for may
// need an exit, an environment or many lines.
func breaches(t *testing.T, pkg, file string, source []byte) (found []string) {
	t.Helper()
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, source, parser.SkipObjectResolution)
	check(t, err)
	tell := func(at ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s", files.Position(at.Pos()), what))
	}
	free := strings.HasSuffix(file, "_test.go") || slices.Contains(programs, pkg)
	if n := bytes.Count(source, []byte("\n")); n > longest && !strings.HasSuffix(file, "_test.go") {
		tell(parsed, fmt.Sprintf("%d lines, more than %d", n, longest))
	}
	names := importNames(parsed)
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			if n.Name != nil && n.Name.Name == "." {
				tell(n, "a dot import hides what is used")
			}
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				tell(n, "an init function")
			}
		case *ast.SelectorExpr:
			x, ok := ast.Unparen(n.X).(*ast.Ident)
			if ok && !free && slices.Contains(onlyAbove[names[x.Name]], n.Sel.Name) {
				tell(n, x.Name+"."+n.Sel.Name+" below multicall")
			}
		}
		return true
	})
	return found
}

// importNames maps the names by which a file calls its imports to their paths.
func importNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, i := range f.Imports {
		path := strings.Trim(i.Path.Value, "`\"")
		name := path[strings.LastIndex(path, "/")+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = path
	}
	return names
}

func TestBreachesAreFound(t *testing.T) {
	t.Parallel()
	const below, above = "pitr/standby", "pitr/multicall"
	tests := []struct {
		pkg, file, source string
		want              int
	}{
		{below, "a.go", `import "os"; var f, err = os.Open("x")`, 0},
		{below, "a.go", `import "os"; func f() { os.Exit(1) }`, 1},
		{below, "a.go", `import "os"; var leave = os.Exit`, 1},
		{below, "a.go", `import system "os"; var home, err = (system).UserHomeDir()`, 1},
		{below, "a.go", "import `os`; func f() { os.Unsetenv(os.TempDir()); os.Clearenv() }", 3},
		{below, "a.go", `import "os"; import "fmt"; func f() { fmt.Fprintln(os.Stderr) }`, 1},
		{below, "a.go", `import "syscall"; func f() { syscall.Exit(1) }`, 1},
		{below, "a.go", `import "golang.org/x/sys/unix"; func f() { unix.Exit(1); unix.Getenv("x") }`, 2},
		{above, "a.go", `import "os"; func f() { os.Exit(1) }`, 0},
		{below, "a_test.go", `import "os"; func f() { os.Exit(1) }`, 0},
		{above, "a.go", `import . "os"; func f() { Exit(1) }`, 1},
		{below, "a_test.go", `import . "os"`, 1},
		{above, "a.go", `func init() {}`, 1},
		{below, "a_test.go", `func init() {}`, 1},
		{below, "a.go", `type t int; func (t) init() {}`, 0},
		{above, "a.go", strings.Repeat("\n", longest+1), 1},
		{above, "a.go", "// " + strings.Repeat("x", 1<<17) + strings.Repeat("\n", longest+1), 1},
		{above, "a_test.go", strings.Repeat("\n", longest+1), 0},
	}
	for _, tt := range tests {
		if got := breaches(t, tt.pkg, tt.file, []byte("package p;"+tt.source)); len(got) != tt.want {
			t.Errorf("%s, %s, %.60s: got %q, want %d", tt.pkg, tt.file, tt.source, got, tt.want)
		}
	}
}
