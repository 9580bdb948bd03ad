package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"
)

// The command line as far as it needs no volumes: usage, configuration, what the program says of itself.
func TestScripts(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv(asProgram, "1")
			return os.Symlink(executable, filepath.Join(bin, "voltar"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status, "columns": columns},
	})
}

// status runs the program and wants an exit code: `status 2 voltar run --bogus`.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = exitStatus(err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s: %v", code, args[0], err)
	}
}

// columns wants no line of the standard output to be wider: `columns 80`.
func columns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: columns NUMBER")
	}
	most, err := strconv.Atoi(args[0])
	ts.Check(err)
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > most {
			ts.Fatalf("wider than %d columns: %s", most, line)
		}
	}
}

// A command that is new gets into the test of the helps.
func TestEveryHelpIsTried(t *testing.T) {
	script, err := os.ReadFile("testdata/script/help.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(of string, commands []*cli.Command)
	walk = func(of string, commands []*cli.Command) {
		for _, c := range commands {
			if !c.Hidden && !strings.Contains(string(script), "status 0 "+of+c.Name+" --help\ncolumns 80\n") {
				t.Errorf("help.txtar does not try %s%s --help", of, c.Name)
			}
			if !c.Hidden && c.UsageText == "" && len(c.Subcommands) == 0 && of == "voltar " {
				t.Errorf("%s%s has no example", of, c.Name)
			}
			walk(of+c.Name+" ", c.Subcommands)
		}
	}
	walk("voltar ", newApp(nil, io.Discard, io.Discard, time.Now).program().Commands)
}

func exitStatus(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strconv.Itoa(exit.ExitCode())
	}
	return err.Error()
}
