package say_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"voltar/internal/say"
)

func TestHintsOfJoinedAndWrappedErrors(t *testing.T) {
	full := say.WithHint(errors.New("no room"), "make space")
	refused := say.WithHint(errors.New("refused"), "start the server")
	err := say.WithHint(errors.Join(
		fmt.Errorf("destination a: %w", full),
		fmt.Errorf("destination b: %w", refused),
		fmt.Errorf("destination c: %w", full),
	), "run again")
	if got, want := say.Hints(err), []string{"run again", "make space", "start the server"}; !slices.Equal(got, want) {
		t.Errorf("hints are %q, want %q", got, want)
	}
	if got, want := err.Error(), "destination a: no room\ndestination b: refused\ndestination c: no room"; got != want {
		t.Errorf("the text is %q, want %q", got, want)
	}
}

func TestNoErrorHasNoHint(t *testing.T) {
	if err := say.WithHint(nil, "do something"); err != nil {
		t.Errorf("a hint on nil is %v", err)
	}
	plain := errors.New("plain")
	if err := say.WithHint(plain, ""); err != plain {
		t.Errorf("an empty hint changes %v to %v", plain, err)
	}
	if hints := say.Hints(fmt.Errorf("outer: %w", plain)); hints != nil {
		t.Errorf("a plain error has the hints %q", hints)
	}
}

func TestTextPutsHintsUnderTheirCauses(t *testing.T) {
	full := say.WithHint(errors.New("no room"), "make\nspace")
	refused := say.WithHint(errors.New("refused"), "start the server")
	both := errors.Join(fmt.Errorf("destination a: %w", full), fmt.Errorf("destination b: %w", say.WithHint(refused, "or wait")))
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"one", full, "no room\nhint: make space"},
		{"without a hint", errors.New("plain"), "plain"},
		{"joined", both, "destination a: no room\nhint: make space\ndestination b: refused\nhint: or wait\nhint: start the server"},
		{"joined with a hint for all", say.WithHint(errors.Join(full, refused), "run again"),
			"no room\nhint: make space\nrefused\nhint: start the server\nhint: run again"},
		{"wrapped", fmt.Errorf("run: %w", both),
			"run: destination a: no room\n| destination b: refused\nhint: make space\nhint: or wait\nhint: start the server"},
		{"of several kinds", fmt.Errorf("%w: %w", full, refused), "no room: refused\nhint: make space\nhint: start the server"},
	} {
		if got := say.Text(c.err); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if causes := say.Causes(nil); causes != nil {
		t.Errorf("nil has the causes %+v", causes)
	}
}

// Hints in texts would have to be cut out of them again, and the second of two joined errors would become the hint of the
// first: the label is written where messages are shown, by one file.
func TestNobodyElseWritesTheLabelOfHints(t *testing.T) {
	label := strings.TrimSpace(say.HintLabel)
	files := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() != ".." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || filepath.Base(path) == "say.go":
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING && strings.Contains(literal.Value, label) {
				t.Errorf("%s: %s: use say.WithHint", set.Position(literal.Pos()), literal.Value)
			}
			return true
		})
		return nil
	})
	if err != nil || files < 200 {
		t.Errorf("looked at %d files: %v", files, err)
	}
}
