package report

import (
	"bytes"
	"errors"
	"flag"
	"image/color"
	"image/png"
	"math"
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

func html(t *testing.T, f fixture) string {
	t.Helper()
	page, err := HTML(f.run, f.opts)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestHTMLGolden(t *testing.T) {
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) { golden(t, f.name+".html", html(t, f)) })
	}
}

// The page holds no more elements for hostile names than for harmless ones, names nothing outside of the mail, and
// says what went wrong before anything else.
func TestHTMLIsInert(t *testing.T) {
	for _, f := range fixtures() {
		page := html(t, f)
		for _, banned := range []string{"<script", "http:", "https:", "javascript:", "onerror", "ZgotmplZ", "{{"} {
			visible := strings.ReplaceAll(page, "{{.}}", "") // of a hostile name, not of the template
			if strings.Contains(visible, banned) {
				t.Errorf("%s: %q in the page", f.name, banned)
			}
		}
		for _, r := range page {
			if r != '\n' && r != ' ' && !unicode.IsPrint(r) {
				t.Errorf("%s: %q in the page", f.name, r)
			}
		}
		if wrong := strings.Index(page, "What went wrong"); wrong > strings.Index(page, "Total execution time") {
			t.Errorf("%s: the failures come late", f.name)
		}
	}
}

func TestJSONGolden(t *testing.T) {
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) {
			data, err := JSON(f.run)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, f.name+".json", string(data))
			for _, r := range string(data) {
				if r != '\n' && r != ' ' && !unicode.IsPrint(r) {
					t.Errorf("%q in the document", r)
				}
			}
			parsed, err := ParseJSON(data)
			if err != nil {
				t.Fatal(err)
			}
			if f.name == "hostile" {
				// All that is lost is the byte that is no UTF-8.
				if want := strings.ToValidUTF8(hostileText, "\ufffd"); parsed.Retention != want {
					t.Errorf("%q came back as %q", want, parsed.Retention)
				}
				return
			}
			if diff := cmp.Diff(f.run, parsed); diff != "" {
				t.Errorf("came back changed (-want +got):\n%s", diff)
			}
		})
	}
}

// Every character comes back as it was, the invisible ones beyond the basic plane too.
func TestJSONKeepsStrings(t *testing.T) {
	want := Run{Host: "\x00\x1b\x7f\u0080\u202e\u2028\ufeff\U000e0041\U0010ffff 🙂<>&\"\\"}
	data, err := JSON(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseJSON(data)
	if err != nil || got.Host != want.Host {
		t.Errorf("%q, %v, want %q", got.Host, err, want.Host)
	}
}

func TestParseJSONErrors(t *testing.T) {
	if _, err := ParseJSON([]byte(`{"schema": 2}`)); !errors.Is(err, ErrSchema) {
		t.Errorf("schema 2: %v", err)
	}
	for _, text := range []string{"", "{", `{"schema":"x"}`, "null"} {
		if _, err := ParseJSON([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	data, err := JSON(Run{})
	if err != nil || !strings.Contains(string(data), `"volumes": []`) {
		t.Errorf("an empty run: %s, %v", data, err)
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, fixture := range fixtures() {
		data, err := JSON(fixture.run)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		run, err := ParseJSON(data)
		if err != nil {
			return
		}
		if _, err := HTML(run, Options{}); err != nil {
			t.Error(err)
		}
		for _, r := range Text(run, Options{}) + Subject(run) {
			if r != '\n' && r != ' ' && !unicode.IsPrint(r) {
				t.Errorf("%q in the text", r)
			}
		}
		if _, err := JSON(run); err != nil && run.Started.Year() < 9999 && run.Ended.Year() < 9999 {
			t.Error(err)
		}
	})
}

func TestTrendPNG(t *testing.T) {
	data, err := TrendPNG(append(nights(), PointOf(oneFailed())))
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	// A bar stands at the foot of each run's place, in the colour of its verdict.
	colours := map[color.NRGBA]int{}
	for i := range trendRuns {
		x := trendWidth - trendMargin - (trendRuns-i)*((trendWidth-2*trendMargin)/trendRuns) + trendGap
		colours[color.NRGBAModel.Convert(picture.At(x, trendHeight-trendMargin-4)).(color.NRGBA)]++
	}
	want := map[color.NRGBA]int{verdictColour(VerdictOK): 27, verdictColour(VerdictWarning): 1, verdictColour(VerdictFailed): 2}
	if diff := cmp.Diff(want, colours); diff != "" {
		t.Errorf("bars by colour (-want +got):\n%s", diff)
	}
	if data, err := TrendPNG(nights()[:1]); data != nil || err != nil {
		t.Errorf("one run: %d bytes, %v", len(data), err)
	}
	odd := []Point{{Time: night, StoredBytes: -1, Duration: -1}, {Time: night}, {Time: night, StoredBytes: math.MaxInt64}}
	if _, err := TrendPNG(odd); err != nil {
		t.Errorf("odd numbers: %v", err)
	}
}
