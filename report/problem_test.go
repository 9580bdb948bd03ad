package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"voltar/internal/say"
)

// Of two destinations that failed together, each keeps its own cause and what can be done about that.
func TestEachCauseKeepsItsHint(t *testing.T) {
	disk := fmt.Errorf("destination disk: %w", say.WithHint(errors.New("nothing is mounted at /backups"), "mount it"))
	offsite := fmt.Errorf("destination offsite: %w", say.WithHint(errors.New("nothing listens at https://s3"), "start the server"))
	both := errors.Join(errors.New("no destination can be written to"), disk, offsite)

	run := goodRun()
	run.Errors = ProblemsOf(both)
	for i, err := range []error{disk, offsite} {
		run.Destinations = append(run.Destinations, Destination{Name: fmt.Sprintf("d%d", i), Error: ProblemOf(errors.Unwrap(err))})
	}
	run.Volumes[0].Status, run.Volumes[0].Error = VolumeFailed, ProblemOf(fmt.Errorf("write: %w", errors.Join(disk, offsite)))
	text := Text(run, Options{})
	for _, want := range []string{
		`
no destination can be written to
destination disk: nothing is mounted at /backups
hint: mount it
destination offsite: nothing listens at https://s3
hint: start the server
`, `
    write: destination disk: nothing is mounted at /backups
    | destination offsite: nothing listens at https://s3
    hint: mount it
    hint: start the server
`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %s\nit is\n%s", want, text)
		}
	}
	html, err := HTML(run, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hint := range []string{"Next: mount it<", "Next: start the server<"} {
		if strings.Count(html, hint) != 2 {
			t.Errorf("the HTML has %d times %q, want it once for the run and once for the volume", strings.Count(html, hint), hint)
		}
	}
}
