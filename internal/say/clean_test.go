package say_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"voltar/internal/say"
)

func TestClean(t *testing.T) {
	tests := []struct{ in, want string }{
		{"volume-00000001", "volume-00000001"},
		{"Übung 写真 🙂", "Übung 写真 🙂"},
		{"a\nb\r\tc", `a\nb\r\tc`},
		{"\x1b[31mred\x07", `\x1b[31mred\a`},
		{"\u202egpj.exe", `\u202egpj.exe`},
		{"a\u200bb\ufeff\u2028", `a\u200bb\ufeff\u2028`},
		{"no\u00a0break", `no\u00a0break`},
		{"\xff\xfe", `\xff\xfe`},
		{"\u009b31m", `\u009b31m`},
		{"\U000e0041", `\U000e0041`},
		{`back\slash 'quoted'`, `back\slash 'quoted'`},
	}
	for _, tt := range tests {
		if got := say.Clean(tt.in); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("x\nOK: all\r\x1b[31m\u202egnp.exe\u2066\u200b</td>\x00\xff\u2028|")
	f.Fuzz(func(t *testing.T, s string) {
		got := say.Clean(s)
		for _, r := range got {
			if r != ' ' && !unicode.IsPrint(r) {
				t.Errorf("%q leaves %q", s, r)
			}
		}
		if say.Clean(got) != got {
			t.Errorf("cleaning %q twice changes it", s)
		}
		if strings.ContainsFunc(strings.ReplaceAll(say.CleanLines(s), "\n", ""), func(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }) {
			t.Errorf("lines of %q are not clean", s)
		}
	})
}

// hostileName has what a terminal obeys, what changes the order of what is read, and what ends a line or a cell.
const hostileName = "a\x1b[2J\u009b31m\u202egnp\u2066\x7f\n\tOK\xff\u2028\U000e0041"

const cleanName = `a\x1b[2J\u009b31m\u202egnp\u2066\x7f\n\tOK\xff\u2028\U000e0041`

func TestPrinting(t *testing.T) {
	var out bytes.Buffer
	for _, err := range []error{
		second(say.Printf(&out, "%s\t%5d %-3s|%v\n", hostileName, 7, "b", errors.New(hostileName))),
		second(say.Printf(&out, "%q\n", "a\n\u202e")),
		second(say.Println(&out, "of", hostileName, []string{hostileName})),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := cleanName + "\t    7 b  |" + cleanName + "\n" + `"a\n\u202e"` + "\nof " + cleanName + " [" + cleanName + "]\n"
	if out.String() != want {
		t.Errorf("it prints\n%s\nwant\n%s", out.String(), want)
	}
}

func second(_ int, err error) error { return err }

// Wherever a text is cut in two, what is written is the same.
func TestWriter(t *testing.T) {
	text := "Ü写🙂 " + hostileName + "\n\xf0\x9f"
	const want = "Ü写🙂 " + `a\x1b[2J\u009b31m\u202egnp\u2066\x7f` + "\n" + `\tOK\xff\u2028\U000e0041` + "\n" + `\xf0\x9f`
	for cut := range len(text) {
		var out bytes.Buffer
		w := say.NewWriter(&out)
		for _, part := range []string{text[:cut], text[cut:]} {
			if n, err := fmt.Fprint(w, part); err != nil || n != len(part) {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil || out.String() != want {
			t.Fatalf("cut at %d it writes %q, want %q (%v)", cut, out.String(), want, err)
		}
	}
	w := say.NewWriter(failingWriter{})
	if _, err := fmt.Fprint(w, "x"); err == nil {
		t.Error("that nothing can be written is no error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("it is full") }

func TestJSONIsCleanAndWhole(t *testing.T) {
	data, err := say.JSON(map[string]string{"name": hostileName}, "  ")
	if err != nil {
		t.Fatal(err)
	}
	if say.CleanLines(string(data)) != string(data) {
		t.Errorf("a terminal would obey %q", data)
	}
	var back map[string]string
	if err := json.Unmarshal(data, &back); err != nil || back["name"] != strings.ToValidUTF8(hostileName, "\ufffd") {
		t.Errorf("%q comes back as %q: %v", hostileName, back["name"], err)
	}
}
