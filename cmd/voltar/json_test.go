package main

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/check"
	"voltar/internal/history"
	"voltar/internal/keep"
	"voltar/internal/placement"
	"voltar/internal/restore"
	"voltar/internal/sign"
)

// documents is what each command prints with --json, as docs/json.md describes it. `voltar run`, `stream` and `report RUN` print
// the report, which docs/report-json.md describes.
var documents = map[string]reflect.Type{
	"voltar cancel":            reflect.TypeFor[cancelLine](),
	"voltar check":             reflect.TypeFor[[]check.Finding](),
	"voltar cleanup":           reflect.TypeFor[[]string](),
	"voltar copy":              reflect.TypeFor[[]placement.CopyLine](),
	"voltar extract":           reflect.TypeFor[[]extractedLine](),
	"voltar forget":            reflect.TypeFor[[]keep.Line](),
	"voltar help":              reflect.TypeFor[helpDocument](),
	"voltar list":              reflect.TypeFor[[]catalog.Line](),
	"voltar ls":                reflect.TypeFor[[]extentLine](),
	"voltar ls PATH":           reflect.TypeFor[[]entryLine](),
	"voltar mount":             reflect.TypeFor[mountedLine](),
	"voltar prune":             reflect.TypeFor[[]keep.Line](),
	"voltar report --fleet":    reflect.TypeFor[[]catalog.FleetLine](),
	"voltar report --proofs":   reflect.TypeFor[history.Proofs](),
	"voltar report --list":     reflect.TypeFor[[]runLine](),
	"voltar restore":           reflect.TypeFor[restore.Result](),
	"voltar restore --dry-run": reflect.TypeFor[plannedRestore](),
	"voltar restore --guest":   reflect.TypeFor[guestRestore](),
	"voltar run --dry-run":     reflect.TypeFor[backup.Preview](),
	"voltar sign":              reflect.TypeFor[[]sign.Line](),
	"voltar snapshot create":   reflect.TypeFor[[]backup.Kept](),
	"voltar snapshot list":     reflect.TypeFor[[]backup.Kept](),
	"voltar snapshot merge":    reflect.TypeFor[[]backup.Merged](),
	"voltar snapshot remove":   reflect.TypeFor[[]backup.Kept](),
	"voltar verify":            reflect.TypeFor[[]verifiedLine](),
	"voltar drill":             reflect.TypeFor[[]drilledLine](),
	"voltar volumes":           reflect.TypeFor[[]volumeLine](),
}

// fieldsOf lists the fields of a document with their types, those of lists as "list[].field", and marks those that may be missing.
func fieldsOf(t reflect.Type, path string) (fields []string) {
	for t.Kind() == reflect.Slice && t != reflect.TypeFor[[]byte]() || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			fields = append(fields, fieldsOf(f.Type, path)...)
			continue
		case name == "" || name == "-":
			continue
		}
		row := "`" + path + name + "` | " + typeWord(f.Type)
		if options != "" {
			row += ", optional"
		}
		fields = append(fields, row)
		below := path + name + "."
		if f.Type.Kind() == reflect.Slice {
			below = path + name + "[]."
		}
		fields = append(fields, fieldsOf(f.Type, below)...)
	}
	return fields
}

func typeWord(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[[]byte]():
		return "Base64"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "list of strings"
	case t.Kind() == reflect.Slice:
		return "list"
	case t.Kind() == reflect.Map, t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct && t.Elem() != reflect.TypeFor[time.Time]():
		return "object"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Implements(reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()), t.Kind() == reflect.String:
		return "string"
	}
	return "number"
}

// What a program reads is what the documentation says, field by field.
func TestJSONIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string][]string{}
	headings := []string{}
	row := regexp.MustCompile("^\\| (`[^`]+` \\| [^|]+) \\| [^|]+ \\|$")
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if heading, found := strings.CutPrefix(line, "## "); found {
			headings = headings[:0]
			for _, name := range strings.Split(heading, ", ") {
				headings = append(headings, strings.Trim(name, "`"))
				told[headings[len(headings)-1]] = nil
			}
		}
		if m := row.FindStringSubmatch(line); m != nil {
			for _, h := range headings {
				told[h] = append(told[h], m[1])
			}
		}
	}
	for command, of := range documents {
		rows, found := told[command]
		if !found {
			t.Errorf("docs/json.md has no section %q", command)
		}
		delete(told, command)
		want := fieldsOf(of, "")
		for _, f := range want {
			if !slices.Contains(rows, f) {
				t.Errorf("%s: docs/json.md does not tell of | %s | … |", command, f)
			}
		}
		for _, f := range rows {
			if !slices.Contains(want, f) {
				t.Errorf("%s: docs/json.md tells of | %s |, which there is not", command, f)
			}
		}
	}
	for command := range told {
		if strings.HasPrefix(command, "voltar") {
			t.Errorf("docs/json.md tells of %q, which is tried nowhere", command)
		}
	}
}

// parses reads the JSON of a command as its documentation has it: nothing unknown, nothing of another type.
func parses(t *testing.T, command, text string) {
	t.Helper()
	value := reflect.New(documents[command])
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(value.Interface()); err != nil {
		t.Errorf("%s: %v in %s", command, err, text)
		return
	}
	if of := value.Elem(); of.Kind() == reflect.Slice && of.IsNil() {
		t.Errorf("%s prints null, and not an empty list", command)
	}
}

func TestJSONParses(t *testing.T) {
	tree := t.TempDir()
	writeFile(t, tree+"/file", []byte("text"))
	s := newSite(t, "[[directory]]\nname = \"tree\"\npath = \""+tree+"\"\n"+
		"[[destination]]\nname = \"second\"\ntype = \"disk\"\nrequire_mount = \"none\"\ncatch_up = false\npath = \""+t.TempDir()+"\"\n")
	run := func(command string, args ...string) {
		t.Helper()
		code, out, errs := voltar(t, append(args, "--json", "--config", s.config)...)
		nothing := slices.Contains(args, "nosuch")
		if code != 0 && code != exitAttention && (!nothing || code != exitNothing) {
			t.Errorf("%q: exit code %d, %s", args, code, errs)
		}
		parses(t, command, out)
	}
	for _, command := range []string{"prune", "list", "cleanup"} { // of nothing
		run("voltar "+command, command)
	}
	s.run(t, 0, "@directory/tree")
	backups := t.TempDir()
	run("voltar check", "check")
	run("voltar help", "help")
	run("voltar run --dry-run", "run", "--dry-run", "@directory/tree")
	run("voltar list", "list")
	run("voltar list", "list", "nosuch")
	run("voltar ls PATH", "ls", "tree", "/")
	run("voltar extract", "extract", "tree", "--to", backups)
	run("voltar verify", "verify")
	run("voltar copy", "copy", "--from", "disk", "--to", "second", "--all", "--dry-run")
	run("voltar prune", "prune")
	run("voltar report --list", "report", "--list")
	run("voltar report --proofs", "report", "--proofs")
	run("voltar report --fleet", "report", "--fleet", "--older-than", "10000d")
	run("voltar restore --dry-run", "restore", "tree", "--to-dir", t.TempDir()+"/new", "--dry-run")
	run("voltar restore", "restore", "tree", "--to-dir", t.TempDir()+"/new")
	run("voltar report --proofs", "report", "--proofs")
	run("voltar cleanup", "cleanup")
}
