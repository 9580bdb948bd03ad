package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"voltar/internal/say"
)

// explain turns the decoder's errors of a file's text into lines that name the key and where it stands.
func explain(err error, text []byte) error {
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, column := wrong.Position()
		if words := unquoted(text, row); words != "" {
			return fmt.Errorf("line %d, column %d: %s", row, column, words)
		}
		text := strings.TrimPrefix(wrong.Error(), "toml: ")
		key := strings.Join(wrong.Key(), ".")
		if found, ok := typeMismatch(text); ok && key != "" {
			if t := typeOf(reflect.TypeFor[Config](), wrong.Key()); t != nil {
				return fmt.Errorf("line %d, column %d: %s is %s; write %s", row, column, key, found, wanted(t, wrong.Key()))
			}
		}
		if strings.Contains(text, "array table in a struct") {
			return fmt.Errorf("line %d: %s stands once: write [%[2]s], with one bracket", row, key)
		}
		if key != "" {
			text = key + ": " + text
		}
		return fmt.Errorf("line %d, column %d: %s", row, column, text)
	}
	return err
}

// meant says which key an unknown one may stand for: one of the same table that is spelled nearly so, or one that is spelled so
// in another table.
func meant(key []string) string {
	table, name := key[:len(key)-1], key[len(key)-1]
	as := strings.TrimPrefix(strings.ReplaceAll(name, "-", "_"), "keep_") // as restic and Borg have daily
	if t := typeOf(reflect.TypeFor[Config](), table); t != nil {
		if slices.Contains(keysOf(t), as) {
			return fmt.Sprintf(": did you mean %q?", as)
		}
		if words := say.DidYouMean(name, keysOf(t)); words != "" {
			return words
		}
		if other := otherWords[name]; slices.Contains(keysOf(t), other) {
			return fmt.Sprintf(": did you mean %q?", other)
		}
	}
	if top := reflect.TypeFor[Config](); len(table) > 0 && slices.Contains(keysOf(top), name) && !isTables(typeOf(top, []string{name})) {
		return fmt.Sprintf(": %s belongs above the first [section]", name)
	}
	for _, name := range []string{name, as} {
		var elsewhere []string
		walkTables(reflect.TypeFor[Config](), "", func(table string, t reflect.Type) {
			if slices.Contains(keysOf(t), name) {
				elsewhere = append(elsewhere, table)
			}
		})
		if len(elsewhere) > 0 && len(elsewhere) <= tablesTold {
			return fmt.Sprintf(": %s belongs in %s", name, strings.Join(elsewhere, " or "))
		}
	}
	return ""
}

// otherWords are what other programs call a key.
var otherWords = map[string]string{
	"host": "server", "user": "username", "recipients": "to", "recipient": "to", "sender": "from", "directory": "path",
}

// isTables tells whether a key is that of a table or of several.
func isTables(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return isTable(t)
}

// tablesTold is how many tables are named that have a key: what many have says nothing.
const tablesTold = 3

var (
	tableLine = regexp.MustCompile(`^\s*\[{1,2}([A-Za-z0-9_.]+)\]{1,2}`)
	// bareValue is a key and a value that is neither text in quotes nor a list nor a table.
	bareValue = regexp.MustCompile(`^\s*([A-Za-z0-9_]+)\s*=\s*([^\s"'\[{#][^"'#]*?)\s*(#.*)?$`)
)

// unquoted says what to write instead of a value without its quotes in a row, counted from 1, of a file that TOML cannot read; "" where
// that is not the mistake.
func unquoted(text []byte, row int) string {
	lines := strings.Split(string(text), "\n")
	if row < 1 || row > len(lines) {
		return ""
	}
	found := bareValue.FindStringSubmatch(lines[row-1])
	if found == nil || toml.Unmarshal([]byte(found[1]+" = "+found[2]), &map[string]any{}) == nil {
		return ""
	}
	name, value := found[1], found[2]
	key := []string{name}
	for _, line := range slices.Backward(lines[:row-1]) {
		if table := tableLine.FindStringSubmatch(line); table != nil {
			key = append(strings.Split(table[1], "."), name)
			break
		}
	}
	t := typeOf(reflect.TypeFor[Config](), key)
	switch {
	case t == nil || isText(t):
		return fmt.Sprintf("%s lacks its quotes; write %s = %q", value, name, value)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return fmt.Sprintf("%s is no list; write %s = [%q]", value, name, value)
	}
	return fmt.Sprintf("%s = %s cannot be read; write %s", name, value, wanted(t, key))
}

// isText tells whether a key of a type is written as text.
func isText(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.String || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// walkTables calls do for each table of the file that stands below another, with its name as the file writes it.
func walkTables(t reflect.Type, path string, do func(table string, t reflect.Type)) {
	for _, f := range fieldsOf(t) {
		name := strings.TrimPrefix(path+"."+f.key, ".")
		of := f.of
		for of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		switch {
		case isTable(of):
			do("["+name+"]", of)
			walkTables(of, name, do)
		case of.Kind() == reflect.Slice && isTable(of.Elem()):
			do("[["+name+"]]", of.Elem())
			walkTables(of.Elem(), name, do)
		}
	}
}

// typeMismatch tells whether a message of the decoder is about a value of the wrong type, and what it found, in words.
func typeMismatch(text string) (found string, ok bool) {
	rest, ok := strings.CutPrefix(text, "cannot decode TOML ")
	if !ok {
		return "", false
	}
	kind, _, ok := strings.Cut(rest, " into ")
	words := map[string]string{
		"string": "text", "integer": "a number", "float": "a number with a fraction", "boolean": "true or false", "array": "a list",
	}
	if found = words[kind]; found == "" {
		found = "a " + kind
	}
	return found, ok
}

// wanted says in words what a key of a type takes, with an example.
func wanted(t reflect.Type, key []string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[Size]():
		return `a size in quotes, as "512MiB"`
	case reflect.TypeFor[Duration]():
		return `a duration in quotes, as "2h30m" or "30d"`
	case reflect.TypeFor[SnapshotSize]():
		return `a size in quotes, as "100%ORIGIN" or "10GiB"`
	case reflect.TypeFor[Secret]():
		return `where it lies, as { file = "/etc/voltar/secret" }`
	}
	name := key[len(key)-1]
	switch {
	case name == "level" && key[0] != "log":
		return levelWords + ", in quotes"
	case t.Kind() == reflect.String:
		return `text in quotes, as "text"`
	case t.Kind() == reflect.Bool:
		return "true or false, without quotes"
	case t.Kind() == reflect.Float64:
		return "a number without quotes, as 7.5"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number without quotes, as 7"
	case t.Kind() == reflect.Slice && isTable(t.Elem()):
		return fmt.Sprintf("tables, each below a line [[%s]]", strings.Join(key, "."))
	case t.Kind() == reflect.Slice:
		return `a list, as ["one", "two"]`
	case t.Kind() == reflect.Map:
		return fmt.Sprintf(`a table, as %s = { name = "text" }`, name)
	}
	return fmt.Sprintf("a table, below a line [%s]", strings.Join(key, "."))
}

// typeOf returns the type of what a key leads to from a table, or nil.
func typeOf(t reflect.Type, key []string) reflect.Type {
	for _, part := range key {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return nil
		}
		fields := fieldsOf(t)
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == part })
		if i < 0 {
			return nil
		}
		t = fields[i].of
	}
	return t
}

// field is a key of a table.
type field struct {
	key string
	of  reflect.Type
}

// fieldsOf lists the keys of a table, or of the tables of a list.
func fieldsOf(t reflect.Type) []field {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var list []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case f.Anonymous && key == "":
			list = append(list, fieldsOf(f.Type)...)
		case key != "" && key != "-":
			list = append(list, field{key, f.Type})
		}
	}
	return list
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range fieldsOf(t) {
		keys = append(keys, f.key)
	}
	return keys
}

// isTable tells whether a type is a table of the file, and not one that is written as text.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}
