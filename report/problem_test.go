package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"voltar/internal/say"
)

// Of two destinations that failed together, each keeps its own cause and what can be done about that.
func TestEachCauseKeepsItsHint(t *testing.T) {
	disk := fmt.Errorf("destination disk: %w", say.WithHint(errors.New("nothing is mounted at /backups"), "mount it"))
	offsite := fmt.Errorf("destination offsite: %w", say.WithHint(errors.New("nothing listens at https://s3"), "start the server"))
	both := errors.Join(errors.New("no destination can be written to"), disk, offsite)

	run := goodRun()
	run.Errors = ProblemsOf(both)
	text := Text(run, Options{})
	if want := `
no destination can be written to
$ voltar check
destination disk: nothing is mounted at /backups
hint: mount it
destination offsite: nothing listens at https://s3
hint: start the server
`; !strings.Contains(text, want) {
		t.Errorf("the report lacks %s\nit is\n%s", want, text)
	}
	if _, err := HTML(run, Options{}); err != nil {
		t.Fatal(err)
	}
}

// What befalls a destination as a whole is told once, with it, whatever words the run and its volumes have for it.
func TestFailureOfADestinationIsToldOnce(t *testing.T) {
	run := unmounted()
	_, body, _ := strings.Cut(html(t, fixture{"", run, Options{}}), "What went wrong") // subject and preheader have it, too
	for name, shown := range map[string]string{"text": Text(run, Options{}), "HTML": body} {
		if n := strings.Count(shown, "nothing is mounted at"); n != 1 {
			t.Errorf("%s: told %d times in\n%s", name, n, shown)
		}
		if !strings.Contains(shown, "missing: 12 volumes") {
			t.Errorf("%s: nothing of the volumes in\n%s", name, shown)
		}
	}
	run.Volumes[3].Copies[0].Error = &Problem{Message: "input/output error"}
	run.Volumes[4].Error = &Problem{Message: "the snapshot overflowed"}
	if text := Text(run, Options{}); !strings.Contains(text, "destination disk: input/output error") ||
		!strings.Contains(text, "the snapshot overflowed") || !strings.Contains(text, "missing: 11 volumes") {
		t.Errorf("what is the volume's own is not told:\n%s", text)
	}
}

// A volume without any good backup comes before all others, and a box never tells of an older one.
func TestNoGoodBackupComesFirst(t *testing.T) {
	run := noGood()
	v := newView(run, Options{})
	if len(v.Failures) != 2 || v.Failures[0].NoGood() != "THERE IS NO GOOD BACKUP OF nova-volumes/volume-00000048" || v.Failures[0].Good != "" ||
		v.Failures[1].NoGood() != "" || !strings.Contains(v.Failures[1].Good, "25 hours ago") {
		t.Errorf("%+v", v.Failures)
	}
	if !strings.HasPrefix(v.Preheader, "NO GOOD BACKUP of nova-volumes/volume-00000048. cannot read") {
		t.Errorf("the preheader is %q", v.Preheader)
	}
	all := unmounted()
	all.Volumes[2].LastGood, all.Volumes[5].LastGood = &time.Time{}, &time.Time{}
	if got := newView(all, Options{}).Failures[0].NoGood(); got != "THERE IS NO GOOD BACKUP OF "+all.Volumes[2].Name+", "+all.Volumes[5].Name {
		t.Error(got)
	}
}

// A tenant's name is never part of a line that is there to be typed, unless a shell takes it as it is.
func TestCommands(t *testing.T) {
	for name, want := range map[string]string{
		"vg/lv-1.a+b_c": "voltar run vg/lv-1.a+b_c", "@dump/all": "voltar run @dump/all", "vg/$(reboot)": "", "vg/a b": "", "-v": "", "vg/`x`": "",
	} {
		if got := command("voltar run", name); got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// What ended a volume ended its copies, too: it is told once, and no backup that is gone was verified.
func TestCancelledVolumeIsToldOnce(t *testing.T) {
	run := goodRun()
	v := &run.Volumes[0]
	v.Status, v.Error, v.LastGood = VolumeFailed, &Problem{Message: "cancelled by a person", Hint: "`voltar run` backs it up"}, &time.Time{}
	v.Copies = []Copy{{Destination: "disk", Error: &Problem{Message: "p1.tar.gz: cancelled by a person"}}}
	v.LastVerified = run.Ended
	shown := newView(run, Options{})
	if len(shown.Failures) != 1 || shown.Failures[0].NoGood() == "" {
		t.Errorf("%+v", shown.Failures)
	}
	if text := strings.Join(shown.Volumes.NotGood[0].Details, "; "); strings.Contains(text, "verified") {
		t.Error(text)
	}
}

// Only where no destination could be asked does a report say so.
func TestEarlierReportSaysWhy(t *testing.T) {
	stopped, good := interrupted(), lastNight
	stopped.Volumes, stopped.LastGood = stopped.Volumes[:2], &good
	stopped.ExitCode = 1
	away := unmounted()
	away.Volumes, away.LastGood = nil, &good
	for want, run := range map[string]Run{"this run did not look for it": stopped, "no destination could be asked": away} {
		text := ""
		for _, p := range newView(run, Options{}).Failures {
			text += p.Good + "\n"
		}
		if strings.Count(text, want) != 1 || strings.Count(text, "by an earlier report") != 1 {
			t.Errorf("no %q in %q", want, text)
		}
	}
}
