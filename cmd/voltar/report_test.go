package main

import (
	"os"
	"strings"
	"testing"

	"voltar/report"
)

// A night whose only destination is away tells that once, however many sources it befalls, and what there was to fall back on.
func TestDestinationThatIsAwayIsToldOnce(t *testing.T) {
	s := newSite(t, directories(t, 3))
	s.run(t, exitDone)
	if err := os.RemoveAll(s.backups); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.backups, nil) // no folder
	result := s.run(t, exitNothing)
	text := report.Text(result, report.Options{})
	wrong, _, _ := strings.Cut(strings.ReplaceAll(text, "  | ", ""), "DESTINATIONS")
	for _, want := range []string{"move it out of the way", "missing: 3 sources", "(just now), by an earlier report"} {
		if n := strings.Count(strings.Join(strings.Fields(wrong), " "), want); n != 1 {
			t.Errorf("%q is told %d times", want, n)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// The forecast of a run's own text counts the runs before it, and so does that of `voltar report`.
func TestForecastCountsEarlierRuns(t *testing.T) {
	s := newSite(t, directories(t, 1))
	s.run(t, exitDone)
	for _, command := range []string{"run", "report"} { // in this order
		code, out, errs := voltar(t, command, "--config", s.config)
		if code != exitDone || !strings.Contains(strings.Join(strings.Fields(out), " "), "there are 2.") {
			t.Errorf("%s: %d\n%s\n%s", command, code, out, errs)
		}
	}
}
