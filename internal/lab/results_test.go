package lab

import (
	"strconv"
	"strings"
	"testing"
)

func TestReadResults(t *testing.T) {
	const output = "before any test\n" +
		"\x16=== RUN   TestLabA\n    a_test.go:3: hello\n        more\n" +
		"\x16=== RUN   TestLabA/sub\nno line end\x16=== RUN   TestLabA/sub/a/b\n" +
		"    a_test.go:4: \x0fbad\x0e\n\x16--- FAIL: TestLabA/sub/a/b (0.00s)\n\x16=== NAME  TestLabA/sub\n" +
		"\x16--- FAIL: TestLabA/sub (0.00s)\n\x16=== NAME  TestLabA\n\x16--- FAIL: TestLabA (0.01s)\n\x16=== NAME  \n" +
		"\x16=== RUN   TestLabP\n\x16=== RUN   TestLabP/1\n\x16=== PAUSE TestLabP/1\n\x16=== RUN   TestLabP/2\n" +
		"\x16=== CONT  TestLabP/1\nof one\n\x16=== CONT  TestLabP/2\n\x16--- SKIP: TestLabP/2 (0.00s)\n" +
		"\x16--- PASS: TestLabP/1 (0.00s)\n\x16--- PASS: TestLabP (0.00s)\n\x16=== NAME  \n" +
		"\x16=== RUN   TestLabPanic\n\x16--- FAIL: TestLabPanic (0.00s)\npanic: so it was\n\x16=== RUN   TestLabHangs\nlast words"
	got := newResults()
	rest, err := readResults(strings.NewReader(output), got)
	if err != nil {
		t.Fatal(err)
	}
	got.end()
	want := `TestLabA FAIL "a_test.go:3: hello\n    more\n"
  sub FAIL "no line end\n"
    a/b FAIL "a_test.go:4: bad\n"
TestLabP PASS ""
  1 PASS "of one\n"
  2 SKIP ""
TestLabPanic FAIL "panic: so it was\n"
TestLabHangs  "last words"
`
	var text strings.Builder
	for _, name := range []string{"TestLabA", "TestLabP", "TestLabPanic", "TestLabHangs"} {
		test := got.take(name)
		if test == nil {
			t.Fatalf("no result of %s", name)
		}
		describe(&text, "", test)
	}
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
	if rest != "before any test\n" {
		t.Errorf("rest %q", rest)
	}
	if again := got.take("TestLabA"); again != nil {
		t.Errorf("a result of TestLabA came twice: %+v", again)
	}
}

func describe(w *strings.Builder, indent string, test *result) {
	w.WriteString(indent + test.name + " " + test.status + " " + strconv.Quote(test.text()) + "\n")
	for _, sub := range test.subs {
		describe(w, indent+"  ", sub)
	}
}
