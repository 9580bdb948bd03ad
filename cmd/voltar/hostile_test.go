package main

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/archive"
	"voltar/internal/browse"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/durable"
	"voltar/internal/history"
	"voltar/internal/say"
	"voltar/report"
)

// What others can name: keys of a store hold no control characters, but marks that turn the order of text around; files of
// guests and what a manifest says hold anything.
const (
	turned = "x\u202egnp\u2066"
	rude   = "x\x1b[2J\u009b31m\u202egnp\u200b\u2028\x7f\nhint: OK"
)

// Whoever can write to a store or into a guest must not steer the terminal of the person who looks at it.
func TestNamesOfOthersAreHarmless(t *testing.T) {
	s, store, parted := newStocked(t, folderDestination("far", filepath.Join(t.TempDir(), "far"), ""))
	b := browsetest.Make(t, store, browsetest.Spec{LV: "rude", Fill: func(dir string) {
		for _, name := range []string{rude, "other\xff"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(rude, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
	}, Edit: func(m *catalog.Manifest) {
		for i := range m.Extents {
			m.Extents[i].Reason += rude
			if m.Extents[i].Filesystem != nil {
				m.Extents[i].Filesystem.Label = rude
			}
		}
		m.Status = catalog.StatusDamaged
	}})
	night := catalog.FormatTime(b.ID.Time)
	for _, folder := range []string{browsetest.Host + "/@dump/", browsetest.Host + "/@directory/", turned + "/@dump/"} {
		folder = filepath.Join(s.backups, folder, turned, night)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(folder, "x"), nil)
		if !strings.Contains(folder, "@directory") {
			writeFile(t, filepath.Join(folder, catalog.ManifestName), []byte(rude))
		}
	}
	if err := catalog.Claim(t.Context(), store, catalog.Host{Name: turned, MachineID: rude}, b.ID.Time); err != nil {
		t.Fatal(err)
	}
	browsetest.Spoil(t, store, parted, "volume-00000001.p1.tar.gz", func(data []byte) []byte { return data[:len(data)/2] })
	past := report.Run{ID: "20261120-010000-00000001", Host: rude, Command: rude, Volumes: []report.Volume{
		{Name: rude, Status: report.VolumeFailed, Error: &report.Problem{Message: rude, Hint: rude}},
	}, Warnings: []report.Problem{{Message: rude}}, Started: b.ID.Time, Ended: b.ID.Time}
	if err := history.New(filepath.Join(s.dir, "state", "history"), durable.Host(nil), time.Now).Save(past); err != nil {
		t.Fatal(err)
	}
	into := func() string { return filepath.Join(t.TempDir(), "into") }
	for _, c := range []struct {
		args  []string
		shown string // of the names, in what is printed; in JSON, too, where they are data
		bare  bool   // there is no --json
	}{
		{args: []string{"list"}, shown: `\u202e`},
		{args: []string{"list", "--all-hosts"}, shown: `\u202e`},
		{args: []string{"list", rude}, shown: `\u202e`, bare: true},
		{args: []string{"list", "--host", turned}, shown: `\u202e`, bare: true},
		{args: []string{"report", "--fleet"}, shown: `\u202e`},
		{args: []string{"report"}, shown: `\u202e`},
		{args: []string{"report", "--list"}, shown: `\u202e`},
		{args: []string{"report", rude}, shown: `\u202e`, bare: true},
		{args: []string{"ls", "rude"}, shown: `\u202e`},
		{args: []string{"ls", "rude", "p1:/"}, shown: `\u202e`},
		{args: []string{"ls", "-l", "rude", "p1:/"}, shown: `\u202e`},
		{args: []string{"ls", "rude", "p1:/" + rude + "/x"}, shown: `\u202e`, bare: true},
		{args: []string{"cat", "rude", "p1:/no" + rude}, shown: `\u202e`, bare: true},
		{args: []string{"extract", "rude", "p1:/no" + rude, "--to", into()}, shown: `\u202e`, bare: true},
		{args: []string{"extract", "rude", "p2", "--to", into()}, shown: `\u202e`, bare: true},
		{args: []string{"verify", "rude"}, shown: "rude"},
		{args: []string{"verify", "@dump/" + turned}, shown: `\u202e`},
		{args: []string{"restore", "rude", "--to-image", into(), "--dry-run"}, shown: "rude"},
		{args: []string{"restore", "@dump/" + turned, "--to-dir", into()}, shown: `\u202e`, bare: true},
		{args: []string{"copy", "--from", "disk", "--to", "far", "--all", "--dry-run"}, shown: `\u202e`},
		{args: []string{"copy", "--from", "disk", "--to", "far", "@dump/" + turned}, shown: `\u202e`},
		{args: []string{"prune", "--dry-run", rude}, shown: `backups`, bare: true},
		{args: []string{"forget", rude}, shown: `backups`, bare: true},
		{args: []string{"cancel", rude}, shown: ``, bare: true},
		{args: []string{"snapshot", "remove", rude}, shown: ``, bare: true},
		{args: []string{rude}, shown: ``, bare: true},
		{args: []string{"list", "--config", "/no/" + rude}, shown: `\u202e`, bare: true},
	} {
		forms := [][]string{c.args}
		if !c.bare {
			forms = append(forms, append([]string{c.args[0], "--json"}, c.args[1:]...))
		}
		for _, args := range forms {
			if !slices.Contains(args, "--config") {
				args = append([]string{args[0], "--config", s.config}, args[1:]...)
			}
			_, out, errs := voltar(t, args...)
			all := out + errs
			if say.CleanLines(all) != all {
				t.Errorf("%q: a terminal would obey %q", args, all)
			}
			if !strings.Contains(all, c.shown) {
				t.Errorf("%q does not show %s: %q", args, c.shown, all)
			}
			for line := range strings.Lines(all) {
				if strings.HasPrefix(line, "hint: OK") {
					t.Errorf("%q: a line of a guest's stands among ours: %q", args, all)
				}
			}
		}
	}
}

// A new command prints through say.Printf, say.Println or what a.stdout is, all of which clean what they are given.
func TestNothingIsPrintedPastTheCleaning(t *testing.T) {
	var files []string
	for _, dir := range []string{".", "../../internal/cmdline", "../../internal/logging", "../../internal/progress"} {
		of, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(of) == 0 {
			t.Fatal(dir, err)
		}
		files = append(files, of...)
	}
	raw := map[string]string{ // who may write what is no text for people
		"main.go": "it makes the writers", "cat.go": "contents of a file", "report.go": "a page or a picture", "man.go": "troff",
		"manual.go": "a script, or troff", "complete.go": "what shells read, cleaned word by word",
		"typed.go": "it asks whether they are terminals", "copy.go": "bars", "restore.go": "bars",
		"options.go": "the log asks whether it is the journal", "logging.go": "it asks that",
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		name, set := filepath.Base(path), token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, _ := selector.X.(*ast.Ident)
			at := set.Position(selector.Pos())
			switch what := selector.Sel.Name; {
			case of != nil && of.Name == "fmt" && (strings.HasPrefix(what, "Fprint") || strings.HasPrefix(what, "Print")) && name != "man.go":
				t.Errorf("%s: fmt.%s prints what nobody cleans: use say.Printf", at, what)
			case of != nil && of.Name == "os" && (what == "Stdout" || what == "Stderr") && name != "main.go" && name != "logging.go",
				(what == "rawOut" || what == "rawErr") && raw[name] == "":
				t.Errorf("%s: %s is written to past the cleaning", at, what)
			}
			return true
		})
	}
}

// Guests on btrfs set times that have no year of four digits, which time.Time does not write as JSON.
func TestAnyTimeIsListedAsJSON(t *testing.T) {
	for _, c := range []struct {
		sec  int64
		want string
	}{
		{1 << 40, `"mtime":"36812-02-20T00:36:16Z"`},
		{-1 << 40, `"mtime":"-32873-11-12T23:23:44Z"`},
		{0, `"mtime":"1970-01-01T00:00:00Z"`},
	} {
		var out strings.Builder
		l := lister{out: bufio.NewWriter(&out), json: true}
		if err := l.print(browse.Place{}, archive.Entry{Path: "f", MTime: time.Unix(c.sec, 0).UTC()}, "f"); err != nil {
			t.Fatal(err)
		}
		if err := l.out.Flush(); err != nil || !strings.Contains(strings.ReplaceAll(out.String(), `": "`, `":"`), c.want) {
			t.Errorf("%s, want %s; %v", out.String(), c.want, err)
		}
	}
}
