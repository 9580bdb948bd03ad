package lab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// ofMachine is what two tests write, and a third that the machine did not survive.
const ofMachine = "\x16=== RUN   TestLabA\n    a_test.go:3: hello\n\x16=== RUN   TestLabA/sub\nno line end" +
	"\x16--- PASS: TestLabA/sub (0.00s)\n\x16=== NAME  TestLabA\n\x16--- PASS: TestLabA (0.01s)\n\x16=== END TestLabA\n" +
	"\x16=== RUN   TestLabB\n    b_test.go:4: \x0fbad\x0e\n\x16--- FAIL: TestLabB (0.00s)\n\x16=== END TestLabB\n" +
	"\x16=== RUN   TestLabC\nlast words\n"

func TestReporter(t *testing.T) {
	for _, c := range []struct{ verbose, want string }{
		{"test2json", strings.NewReplacer("\x16=== END TestLabA\n", "", "\x16=== END TestLabB\n", "", "\x16=== RUN   TestLabC\nlast words\n", "").
			Replace(ofMachine)},
		{"true", "=== RUN   TestLabA\n    a_test.go:3: hello\n=== RUN   TestLabA/sub\nno line end\n--- PASS: TestLabA/sub (0.00s)\n" +
			"=== NAME  TestLabA\n--- PASS: TestLabA (0.01s)\n=== RUN   TestLabB\n    b_test.go:4: bad\n--- FAIL: TestLabB (0.00s)\n"},
		{"false", "    b_test.go:4: bad\n--- FAIL: TestLabB (0.00s)\n"},
	} {
		var out strings.Builder
		r := &reporter{out: &out, verbose: c.verbose}
		missing, rest, err := r.relay(strings.NewReader(ofMachine), []string{"TestLabA", "TestLabB", "TestLabC", "TestLabD"})
		if err != nil || !slices.Equal(missing, []string{"TestLabC", "TestLabD"}) || !strings.HasSuffix(rest, "last words\n") {
			t.Errorf("%s: missing %q, rest %q, error %v", c.verbose, missing, rest, err)
		}
		if out.String() != c.want || r.status() != 1 {
			t.Errorf("%s: status %d, wrote\n%q, want\n%q", c.verbose, r.status(), out.String(), c.want)
		}
	}
}

func TestSelected(t *testing.T) {
	all := strings.Fields("TestA TestLabA TestLabB TestBootC BenchmarkD FuzzE")
	for _, c := range []struct {
		run, skip, lab string
		others         bool
	}{
		{"", "", "TestLabA TestLabB", true},
		{"", "^Test(Lab|Boot)", "", true},
		{"^Test(Lab|Boot)", "", "TestLabA TestLabB", true},
		{"^TestLab", "", "TestLabA TestLabB", false},
		{"^TestLabB$/sub", "TestLabB/other", "TestLabB", false},
		{"TestLab", "A$", "TestLabB", false},
		{"^TestA$", "", "", true},
		{"Benchmark", "", "", false},
	} {
		lab, others := selected(all, c.run, c.skip)
		if got := strings.Join(lab, " "); got != c.lab || others != c.others {
			t.Errorf("-run %q -skip %q: %q and others: %t, want %q and %t", c.run, c.skip, got, others, c.lab, c.others)
		}
	}
}

func TestDeal(t *testing.T) {
	for machines, want := range map[int]string{1: "[[a b c]]", 2: "[[a c] [b]]", 5: "[[a] [b] [c]]"} {
		var got []string
		for _, part := range deal([]string{"a", "b", "c"}, machines) {
			got = append(got, "["+strings.Join(part, " ")+"]")
		}
		if text := "[" + strings.Join(got, " ") + "]"; text != want {
			t.Errorf("%d machines: %s, want %s", machines, text, want)
		}
	}
}

func TestUntilResult(t *testing.T) {
	const from = "\x16=== RUN   TestLabA\nhello\n\x16=== RUN   TestLabA/sub\n\x16--- PASS: TestLabA/sub (0.00s)\n" +
		"no line end\x16--- FAIL: TestLabA (0.01s)\n\x16=== NAME  \npanic: so it was\n\x16FAIL\n"
	var out strings.Builder
	result, tail, err := untilResult("TestLabA", strings.NewReader(from), &out)
	if err != nil || result != "FAIL: TestLabA (0.01s)" || tail != "no line end\npanic: so it was\n" {
		t.Errorf("result %q, tail %q, error %v", result, tail, err)
	}
	if want := from[:strings.Index(from, "no line end")]; out.String() != want {
		t.Errorf("copied %q, want %q", out.String(), want)
	}
}

func TestSlowness(t *testing.T) {
	for times, want := range map[float64]string{0.5: "4.00", 1: "4.00", 3: "12.00"} {
		if got := slowness(time.Duration(times * float64(quietStart))); got != want {
			t.Errorf("a start that takes %v times as long: %s, want %s", times, got, want)
		}
	}
}
