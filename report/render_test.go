package report

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestTextGolden(t *testing.T) {
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) { golden(t, f.name+".txt", "Subject: "+Subject(f.run)+"\n\n"+Text(f.run, f.opts)) })
	}
}

// What comes from a guest never reaches a terminal or a mail program as anything but visible characters.
func TestTextIsInert(t *testing.T) {
	for _, f := range fixtures() {
		for _, r := range Subject(f.run) + Text(f.run, f.opts) {
			if r != '\n' && r != ' ' && !unicode.IsPrint(r) {
				t.Fatalf("%s: %q in the text", f.name, r)
			}
		}
	}
	for line := range strings.Lines(Text(hostile(), Options{})) {
		if strings.HasPrefix(line, "OK") || strings.HasPrefix(line, "well") {
			t.Errorf("a name forged the line %q", line)
		}
	}
}

func TestTextWidth(t *testing.T) {
	for _, f := range fixtures() {
		for line := range strings.Lines(Text(f.run, f.opts)) {
			line = strings.TrimRight(line, "\n")
			if utf8.RuneCountInString(line) > textWidth && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s: %d columns: %s", f.name, utf8.RuneCountInString(line), line)
			}
		}
	}
}
