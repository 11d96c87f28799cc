package multicall

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// Why nothing, or nothing good, can be said of a command that a server is told
// to run. Match them with errors.Is.
var (
	// errNotOurs: no name of pitr stands in it.
	errNotOurs = errors.New("it does not call pitr")

	// errMasked: pitr's exit status is not what the server gets to see.
	errMasked = errors.New("the server does not see pitr's exit status")

	// errOpaque: only running it would tell.
	errOpaque = errors.New("it is too intricate to be judged from outside")
)

// shellCall is one call of an applet within a command that a shell runs.
type shellCall struct {
	applet  string
	program string   // the word that stands for the binary
	args    []string // what follows the applet's name
	environ []string // assignments in front
}

// parseServerCommand finds the call of an applet in archive_command or
// restore_command, which PostgreSQL gives to sh. nil says that the status of
// that call decides that of the whole: for archive_command that the whole
// succeeds only if the call does, for restore_command, where every status means
// something, that they are the same.
func parseServerCommand(text, applet string) (shellCall, error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), "")
	if err != nil {
		return shellCall{}, fmt.Errorf("%w: sh cannot read it: %w", errOpaque, err)
	}
	calls, intricate := callsIn(file)
	ours := slices.IndexFunc(calls, func(c *syntax.CallExpr) bool { _, err := readCall(c, applet); return err == nil })
	if ours < 0 && intricate && strings.Contains(text, applet) {
		return shellCall{}, errOpaque
	}
	if ours < 0 {
		return shellCall{}, errNotOurs
	}
	call, _ := readCall(calls[ours], applet)
	deciding := decisive(file.Stmts)
	switch {
	case slices.Contains(deciding, calls[ours]) && (applet != "restore_command" || len(deciding) == 1):
		return call, nil
	case intricate:
		return call, errOpaque
	}
	return call, errMasked
}

// callsIn returns all simple commands of a script, and whether there is more to
// it than simple commands put together.
func callsIn(file *syntax.File) (calls []*syntax.CallExpr, intricate bool) {
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CallExpr:
			calls = append(calls, n)
		case *syntax.IfClause, *syntax.WhileClause, *syntax.ForClause, *syntax.CaseClause, *syntax.FuncDecl,
			*syntax.ParamExp, *syntax.CmdSubst, *syntax.ArithmExp:
			intricate = true
		}
		return true
	})
	return calls, intricate
}

// decisive returns the calls that must all have succeeded if the script has.
func decisive(stmts []*syntax.Stmt) []*syntax.CallExpr {
	if len(stmts) == 0 {
		return nil
	}
	last := stmts[len(stmts)-1]
	if last.Negated || last.Background {
		return nil
	}
	switch c := last.Cmd.(type) {
	case *syntax.CallExpr:
		return []*syntax.CallExpr{c}
	case *syntax.Block:
		return decisive(c.Stmts)
	case *syntax.Subshell:
		return decisive(c.Stmts)
	case *syntax.BinaryCmd:
		left, right := decisive([]*syntax.Stmt{c.X}), decisive([]*syntax.Stmt{c.Y})
		switch c.Op {
		case syntax.AndStmt:
			return append(left, right...)
		case syntax.Pipe:
			return right
		}
	}
	return nil
}

// transparent programs run what follows them and end with its status.
var transparent = []string{"exec", "command", "env", "nice", "ionice"}

// readCall reads a simple command as a call of an applet, under its own name or
// as pitr's first argument.
func readCall(c *syntax.CallExpr, applet string) (shellCall, error) {
	words, err := readWords(c.Args, literal)
	if err != nil {
		return shellCall{}, err
	}
	call := shellCall{applet: applet}
	for _, a := range c.Assigns {
		if value, err := literal(a.Value); err == nil && a.Name != nil {
			call.environ = append(call.environ, a.Name.Value+"="+value)
		}
	}
	for i, word := range words {
		switch base := filepath.Base(word); {
		case base == applet:
			call.program, call.args = word, words[i+1:]
			if i > 0 && isPitr(words[i-1]) {
				call.program = words[i-1]
			}
			return call, nil
		case i == 0 && !isPitr(word) && !slices.Contains(transparent, base):
			return shellCall{}, errNotOurs
		case i > 0 && strings.Contains(word, "=") && filepath.Base(words[0]) == "env":
			call.environ = append(call.environ, word)
		}
	}
	return shellCall{}, errNotOurs
}

func isPitr(program string) bool { return strings.HasPrefix(filepath.Base(program), "pitr") }

// literal is a word without its quotes, as PostgreSQL gives it to the shell:
// %% is %.
func literal(w *syntax.Word) (string, error) {
	text, err := unquoted(w)
	return strings.ReplaceAll(text, "%%", "%"), err
}

// unquoted is a word without its quotes. One that the shell would replace by
// something else is an error.
func unquoted(w *syntax.Word) (string, error) {
	if w == nil {
		return "", nil
	}
	var b strings.Builder
	for _, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(unescaped(p.Value))
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			inner, err := unquoted(&syntax.Word{Parts: p.Parts})
			if err != nil {
				return "", err
			}
			b.WriteString(inner)
		default:
			return "", errOpaque
		}
	}
	return b.String(), nil
}

// unescaped drops the backslashes that keep the shell from its own reading.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// executable finds the program of a call as sh would, in the server's working
// directory and with its PATH.
func (c shellCall) executable(pgdata string, environ []string) (string, error) {
	if !strings.Contains(c.program, "/") {
		for _, dir := range filepath.SplitList(getenv(environ, "PATH")) {
			if path, err := exec.LookPath(filepath.Join(dir, c.program)); err == nil {
				return path, nil
			}
		}
		return "", fmt.Errorf("%s is not in the server's PATH", c.program)
	}
	path := c.program
	if !filepath.IsAbs(path) {
		path = filepath.Join(pgdata, path)
	}
	return exec.LookPath(path)
}

// isThisBinary tells whether a path leads to the program that runs here.
func isThisBinary(path string) bool {
	self, err := os.Executable()
	if err != nil {
		return false
	}
	a, err := os.Stat(self)
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// parseAs reads the arguments as the applet would.
func (c shellCall) parseAs(grammar any) error {
	_, err := (&call{name: c.applet, args: c.args, stdout: &output{w: io.Discard}, stderr: io.Discard}).parse(grammar, "")
	if errors.Is(err, errDone) {
		return usagef("it only asks for help")
	}
	return err
}

// archiveCommand judges archive_command, which may store in archives, ship to
// slaves, or both. It returns the configurations under which it does, or nil.
func (c *checkup) archiveCommand(text string, own Config, environ []string) (archives, ships *Config) {
	if _, err := parseServerCommand(text, "cmd_archiver"); !errors.Is(err, errNotOurs) && strings.Contains(text, "cmd_archiver") {
		ships = c.command("cmd_archiver", text, own, environ)
		if _, err := parseServerCommand(text, "archive_command"); errors.Is(err, errNotOurs) || !strings.Contains(text, "archive_command") {
			return nil, ships
		}
	}
	return c.command("archive_command", text, own, environ), ships
}

// command judges an applet's call in archive_command or restore_command as the
// server runs it. It returns the configuration that it runs under, or nil.
func (c *checkup) command(applet, text string, own Config, environ []string) *Config {
	call, err := parseServerCommand(text, applet)
	known, _ := findApplet(applet)
	remedy, setting := known.summary, settingOf(applet)
	switch {
	case errors.Is(err, errMasked):
		c.add(critical, setting, remedy+", alone or behind &&", "%v: %s", err, text)
		return nil
	case err != nil:
		c.add(warning, setting, remedy, "%v: %s", err, text)
		return nil
	}
	environ = append(call.environ, environ...)
	path, err := call.executable(own.PGData, environ)
	if err != nil {
		c.add(critical, setting, remedy+" with the absolute path of what pitr install made", "%v", err)
		return nil
	}
	cfg, err := call.config(own.PGData, c.defaultFile, environ)
	if err != nil {
		for _, e := range problemsIn(err) {
			c.add(critical, setting, firstHint(e, remedy), "%s: %v", text, e)
		}
		return nil
	}
	cfg.connections = own.connections
	c.ok(setting, "%s", text)
	if !isThisBinary(path) {
		c.add(warning, setting, "pitr install links the names to this binary", "%s is another binary than this one: it is taken to be a pitr", path)
	}
	c.differences(applet, cfg, own)
	return &cfg
}

// settingOf is the server's setting that an applet stands in.
func settingOf(applet string) string {
	if applet == "cmd_archiver" {
		return "archive_command"
	}
	return applet
}

// config is the configuration that the call runs under, if it can run at all.
func (c shellCall) config(pgdata, defaultFile string, environ []string) (Config, error) {
	var flags *settingFlags
	var wants, got []string
	switch c.applet {
	case "archive_command":
		var cli archiveCommandCLI
		if err := c.parseAs(&cli); err != nil {
			return Config{}, err
		}
		flags, wants, got = &cli.settingFlags, []string{"%p"}, []string{cli.Path}
	case "restore_command":
		var cli restoreCommandCLI
		if err := c.parseAs(&cli); err != nil {
			return Config{}, err
		}
		flags, wants, got = &cli.settingFlags, []string{"%f", "%p"}, []string{cli.Name, cli.Dest}
	case "cmd_archiver":
		var cli cmdArchiverCLI
		if err := c.parseAs(&cli); err != nil {
			return Config{}, err
		}
		if len(cli.File) != 1 || cli.Init {
			return Config{}, usagef("it ships nothing: -F %%p, once, and without -I, does")
		}
		flags, wants, got = &cli.settingFlags, []string{"%p"}, cli.File
	}
	if !slices.Equal(wants, got) {
		return Config{}, usagef("its arguments are %s, not %s", strings.Join(got, " "), strings.Join(wants, " "))
	}
	if f := flags.ConfigFile; f != nil && *f != "" && !filepath.IsAbs(*f) {
		*f = filepath.Join(pgdata, *f)
	}
	cfg, err := loadConfig(configSources{flags, environ, defaultFile, pgdata})
	switch {
	case err != nil:
	case c.applet == "cmd_archiver":
		err = cfg.needSlaves()
	default:
		err = cfg.NeedArchive()
	}
	if err == nil && c.applet != "restore_command" {
		err = mustBeConfigured(pgdata, cfg.PGData)
	}
	return cfg, err
}

// differences tells where a command's configuration is not the one that check
// was given.
func (c *checkup) differences(applet string, cfg, own Config) {
	uses, ours := cfg.Archive, own.Archive
	if applet == "restore_command" {
		uses, ours = cfg.readFrom(), own.readFrom()
	}
	setting := settingOf(applet)
	for _, u := range uses {
		if !names(ours, u) {
			c.add(warning, setting, "check with the configuration that the server uses: -C FILE", "it uses %s, which the configuration %s does not name", u, fileOrNone(own.File))
		}
	}
	for _, u := range ours {
		if !names(uses, u) {
			c.add(warning, setting, "use one configuration for both", "it does not use %s, which the configuration %s names", u, fileOrNone(own.File))
		}
	}
	if applet == "cmd_archiver" && len(own.Slaves) > 0 && !sameSlaves(cfg, own) {
		c.add(warning, setting, "check with the configuration that the server uses: -C FILE", "it ships to %s by %s, and the configuration %s names other slaves or folders",
			strings.Join(cfg.Slaves, ", "), fileOrNone(cfg.File), fileOrNone(own.File))
	}
	if applet != "restore_command" && cfg.State == "offline" && own.State != "offline" {
		c.add(warning, setting, "set state: online", "archiving is switched off in its configuration")
	}
}
