package report

import (
	"testing"
	"time"
	"unicode/utf8"
)

func TestVerdict(t *testing.T) {
	problem := &Problem{Message: "cannot"}
	tests := []struct {
		name   string
		change func(*Run)
		want   Verdict
	}{
		{"all well", func(*Run) {}, VerdictOK},
		{"warning of the run", func(r *Run) { r.Warnings = []Problem{*problem} }, VerdictWarning},
		{"warning of a volume", func(r *Run) { r.Volumes[0].Warnings = []Problem{*problem} }, VerdictWarning},
		{"report not delivered", func(r *Run) { r.ExitCode = 5 }, VerdictWarning},
		{"error of the run", func(r *Run) { r.Errors = []Problem{*problem} }, VerdictFailed},
		{"volume failed", func(r *Run) { r.Volumes[0].Status = VolumeFailed }, VerdictFailed},
		{"volume damaged", func(r *Run) { r.Volumes[0].Status = VolumeDamaged }, VerdictFailed},
		{"volume partial", func(r *Run) { r.Volumes[0].Status = VolumePartial }, VerdictFailed},
		{"volume without a status", func(r *Run) { r.Volumes[0].Status = "" }, VerdictFailed},
		{"ok with an error", func(r *Run) { r.Volumes[0].Error = problem }, VerdictFailed},
		{"copy failed", func(r *Run) { r.Volumes[0].Copies[0].Error = problem }, VerdictFailed},
		{"destination failed", func(r *Run) { r.Destinations[0].Error = problem }, VerdictFailed},
		{"a planned volume is missing", func(r *Run) { r.PlannedVolumes = 13 }, VerdictFailed},
		{"exit code alone", func(r *Run) { r.ExitCode = 3 }, VerdictFailed},
		{"interrupted beats failed", func(r *Run) { r.ExitCode, r.Volumes[0].Status = 130, VolumeFailed }, VerdictInterrupted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run := goodRun()
			tt.change(&run)
			if got := run.Verdict(); got != tt.want {
				t.Errorf("verdict %q, want %q", got, tt.want)
			}
			if v := newView(run, Options{}); tt.want == VerdictFailed && len(v.Failures) == 0 {
				t.Error("failed without a word on why")
			}
		})
	}
}

func TestSubject(t *testing.T) {
	early := Run{Host: "h", Command: "run", ExitCode: 2, Errors: []Problem{{Message: "/etc/voltar/voltar.toml:3: unknown key\nmore"}}}
	several := goodRun()
	for i := range 5 {
		several.Volumes[i].Status = VolumeFailed
	}
	same := goodRun()
	same.Volumes[0].Name, same.Volumes[0].Status = "other/volume-00000009", VolumeFailed
	verify := goodRun()
	verify.Command = "verify"
	destination := goodRun()
	destination.Destinations[0].Error = &Problem{Message: "bucket is gone"}
	ofSnapshot := goodRun()
	ofSnapshot.Volumes[0].Status = VolumeFailed
	ofSnapshot.Volumes[0].Error = &Problem{Message: "no read of " + ofSnapshot.Volumes[0].Name + "-snap; none of " + ofSnapshot.Volumes[0].Name}
	long := oneFailed()
	long.Host, long.Volumes[11].Name = "a-host-whose-name-is-longer-than-most", "nova-volumes/volume-3f9d1c5e-7a0a-4a52-a6a4-8b0e1d3c3f21"
	worst := oneFailed()
	worst.Volumes[2].Status, worst.Volumes[2].Error, worst.Volumes[2].LastGood = VolumeFailed, &Problem{Message: "it is gone"}, &time.Time{}
	worst.Volumes[1].Status = VolumeFailed
	undelivered := goodRun()
	undelivered.ExitCode = undeliveredCode
	missing := goodRun()
	missing.PlannedVolumes = 14
	warned := goodRun()
	warned.Volumes[2].Warnings = []Problem{{Message: "62 % smaller than the last"}}
	chain := goodRun()
	chain.Destinations[0].Name = "backups"
	chain.Destinations[0].Error = &Problem{Message: "read the owner of first in /tmp/first/backups: open destination /tmp/first/backups: " +
		"the destination's disk is not mounted: nothing is mounted at /mnt/backup"}
	nowhere := goodRun()
	nowhere.Volumes[0].Status = VolumeFailed
	nowhere.Volumes[0].Error = &Problem{Message: "no destination took the backup\ndestination disk: it is full", Destinations: []string{"disk"}}
	nowhere.Volumes[0].Copies = []Copy{{Destination: "disk", Error: &Problem{Message: "it is full"}}}
	tests := []struct {
		name string
		run  Run
		want string
	}{
		{"ok", goodRun(), "[voltar] volume-host: OK 12 volumes, 48.4 GiB"},
		{"a test mail", testMail(), "[voltar] volume-host: check OK: This is a test"},
		{"verify", verify, "[voltar] volume-host: verify OK 12 volumes, 48.4 GiB"},
		{"warning", warned, "[voltar] volume-host: OK 12 volumes, 48.4 GiB: volume-00000010: 62 % smaller than the last"},
		{"one failed", oneFailed(), "[voltar] volume-host: FAILED 1 of 12: volume-00000019: cannot create a snapshot: lvcreate: exit status 5"},
		{"long names before the cause", long,
			"[voltar] a-host-whos…er-than-most: FAILED 1 of 12: volume-3f9d…8b0e1d3c3f21: cannot create a s…: lvcreate: exit status 5"},
		{"the worst of several", worst, "[voltar] volume-host: FAILED 3 of 12: volume-00000010: it is gone (and 2 more)"},
		{"not delivered", undelivered, "[voltar] volume-host: OK 12 volumes, 48.4 GiB: the report could not be sent to everybody"},
		{"its snapshot", ofSnapshot, "[voltar] volume-host: FAILED 1 of 12: volume-00000008: no read of nova-volumes/volume-00000008-snap; none"},
		{"the innermost of a long chain", chain,
			"[voltar] volume-host: FAILED: destination backups: read the owner of first in /tmp/f…: nothing is mounted at /mnt/backup"},
		{"no destination took it", nowhere, "[voltar] volume-host: FAILED 1 of 12: volume-00000008: destination disk: it is full"},
		{"several", several, "[voltar] volume-host: FAILED 5 of 12: volume-00000008: failed (and 4 more)"},
		{"all, for one reason", allFailed(), "[voltar] volume-host: FAILED 12 of 12: destination disk: /BACKUPS is not mounted"},
		{"the destination, for the run and its volumes", unmounted(),
			"[voltar] volume-host: FAILED 12 of 12: destination disk: nothing is mounted at /BACKUPS/EBS-VOL"},
		{"same name in two groups", same, "[voltar] volume-host: FAILED 1 of 12: other/volume-00000009: failed"},
		{"destination", destination, "[voltar] volume-host: FAILED: destination disk: bucket is gone"},
		{"missing", missing, "[voltar] volume-host: FAILED 2 of 14"},
		{"died early", early, "[voltar] h: FAILED: /etc/voltar/voltar.toml:3: unknown key"},
		{"nothing known", Run{ExitCode: 1}, "[voltar] unknown host: FAILED"},
		{"interrupted", interrupted(), "[voltar] volume-host: INTERRUPTED, 2 of 12 volumes good"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Subject(tt.run); got != tt.want {
				t.Errorf("subject\n%q, want\n%q", got, tt.want)
			}
		})
	}
	if n := utf8.RuneCountInString(Subject(hostile())); n > subjectLimit {
		t.Errorf("subject of %d characters", n)
	}
}

// testMail is a report of no volume.
func testMail() Run {
	return Run{Host: "volume-host", Command: "check", Warnings: []Problem{{Message: "This is a test"}}}
}

// The headline tells those that are safe on another destination from those that are nowhere.
func TestHeadline(t *testing.T) {
	full := &Problem{Message: "it is full"}
	partial := goodRun()
	for i := range 3 {
		partial.Volumes[i].Status = VolumePartial
		partial.Volumes[i].Copies = append(partial.Volumes[i].Copies, Copy{Destination: "offsite", Error: full})
	}
	partial.Volumes[2].Copies[0].Error = full
	partial.Volumes[3].Status, partial.Volumes[3].Error = VolumeFailed, full
	verify := goodRun()
	verify.Command = "verify"
	for _, c := range []struct {
		name string
		run  Run
		want string
	}{
		{"well", goodRun(), "OK: 12 volumes on volume-host, 48.4 GiB"},
		{"a verification", verify, "verify OK: 12 volumes on volume-host, 48.4 GiB"},
		{"a test mail", testMail(), "check OK, with something to look at on volume-host"},
		{"nothing began", Run{Host: "volume-host", PlannedVolumes: 3, ExitCode: 1}, "FAILED: 3 of 3 sources on volume-host"},
		{"a destination full", partial, "FAILED: 4 of 12 volumes on volume-host (2 of them good on another destination)"},
	} {
		if got := c.run.headline(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestForecast(t *testing.T) {
	series := func(n int, every time.Duration, free func(i int) int64) []Point {
		var points []Point
		for i := range n {
			points = append(points, Point{Time: night.Add(time.Duration(i) * every),
				Destinations: []Room{{Name: "disk", TotalBytes: 1000 * gib, FreeBytes: free(i)}}})
		}
		return points
	}
	day := 24 * time.Hour
	steady := func(i int) int64 { return (100 - int64(i)) * gib }
	enlarged := series(10, day, steady)
	for i := range enlarged[:7] {
		enlarged[i].Destinations[0].TotalBytes = 500 * gib
	}
	tests := []struct {
		name   string
		points []Point
		want   string
	}{
		{"a gibibyte a day", series(11, day, steady), "Full in about 90 days, on 2027-02-28, at 1.0 GiB a day, by the last 11 runs."},
		{"two runs a day", series(20, day/2, steady), "Full in about 41 days, on 2027-01-09, at 2.0 GiB a day, by the last 20 runs."},
		{"too few runs", series(4, day, steady), "No forecast yet: it needs 5 runs over 4 days, there are 4."},
		{"too short a time", series(20, time.Hour, steady), "No forecast yet: it needs 5 runs over 4 days, there are 20."},
		{"steady", series(20, day, func(int) int64 { return 50 * gib }), "Not filling up, by the last 20 runs."},
		{"emptying", series(20, day, func(i int) int64 { return (50 + int64(i)) * gib }), "Not filling up, by the last 20 runs."},
		{"only noise", series(20, day, func(i int) int64 { return (50 + int64(i*7%5)) * gib }), "Not filling up, by the last 20 runs."},
		{"slowly", series(20, day, func(i int) int64 { return 900*gib - int64(i)*10*mib }), "Full in more than 3 years at 10.0 MiB a day, by the last 20 runs."},
		{"full", series(20, day, func(i int) int64 { return int64(19-i) * gib }), "It is full."},
		{"made larger", enlarged, "No forecast yet: it needs 5 runs over 4 days, there are 3."},
		{"room not known", series(20, day, func(int) int64 { return -1 }), ""},
		{"no runs", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Forecast(tt.points, "disk", time.UTC); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A destination that is full comes before one that will be.
func TestTheCounterNamesTheDestinationThatIsFull(t *testing.T) {
	var points []Point
	for day := range 10 {
		points = append(points, Point{Time: night.AddDate(0, 0, day-9), Destinations: []Room{
			{Name: "full", TotalBytes: 1000 * gib}, {Name: "other", TotalBytes: 1000 * gib, FreeBytes: int64(190-10*day) * gib}}})
	}
	full, other := Destination{Name: "full", TotalBytes: 1000 * gib}, Destination{Name: "other", TotalBytes: 1000 * gib, FreeBytes: 100 * gib}
	for _, list := range [][]Destination{{full, other}, {other, full}} {
		c, ok := freeCounter(Run{Destinations: list}, points, time.UTC)
		if want := (counter{"0 B", "free on full: it is full", toneBad}); !ok || c != want {
			t.Errorf("%+v, want %+v", c, want)
		}
	}
}
