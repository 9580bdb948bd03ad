package lab

import (
	"slices"
	"strings"
	"testing"
)

func TestParts(t *testing.T) {
	var tests []testing.InternalTest
	for _, name := range strings.Fields("TestA TestLabA TestLabB TestB TestLabC TestLabD TestLabE") {
		tests = append(tests, testing.InternalTest{Name: name})
	}
	for _, c := range []struct {
		machines int
		pattern  string
		want     string // each part with its tests
	}{
		{1, "", "0/1 TestLabA TestLabB TestLabC TestLabD TestLabE"},
		{2, "", "0/2 TestLabA TestLabC TestLabE, 1/2 TestLabB TestLabD"},
		{3, "TestLab", "0/3 TestLabA TestLabD, 1/3 TestLabB TestLabE, 2/3 TestLabC"},
		{2, "TestLab[BD]$/sub", "1/2 TestLabB TestLabD"},
		{2, "^TestA$", ""},
		{2, "[/]", "0/2 TestLabA TestLabC TestLabE, 1/2 TestLabB TestLabD"},
	} {
		var got []string
		for _, part := range parts(tests, c.machines, c.pattern) {
			fields := []string{part}
			for _, test := range dealt(tests, part) {
				fields = append(fields, test.Name)
			}
			got = append(got, strings.Join(fields, " "))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%d machines for %q: %q, not %q", c.machines, c.pattern, text, c.want)
		}
	}
	if got := dealt(tests, ""); len(got) != 5 || slices.ContainsFunc(got, func(x testing.InternalTest) bool { return x.Name == "TestA" }) {
		t.Errorf("outside of a part: %d tests", len(got))
	}
}
