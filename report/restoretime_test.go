package report

import (
	"strings"
	"testing"
	"time"
)

func TestRestoreTime(t *testing.T) {
	measured := func(seconds float64, stored int64) Volume {
		return Volume{Restore: &Restore{Seconds: seconds, StoredBytes: stored}}
	}
	tests := []struct {
		name    string
		volumes []Volume
		want    string // "" for nothing
	}{
		{"nothing measured", []Volume{{StoredBytes: gib}}, ""},
		{"all measured", []Volume{measured(60, gib), measured(30, gib)}, "1 m 30 s, one after the other: measured"},
		{"the one", []Volume{measured(60, gib)}, "1 m 0 s: measured"},
		{"some estimated", []Volume{measured(60, gib), {StoredBytes: 10 * gib}, {PreviousStoredBytes: gib}},
			"about 12 m 0 s, one after the other: 1 measured, 2 estimated by these"},
		{"some unknown", []Volume{measured(60, gib), {PreviousStoredBytes: -1}}, "1 m 0 s: measured, 1 unknown"},
		{"of nothing", []Volume{measured(60, 0), {StoredBytes: gib}}, ""},
	}
	for _, tt := range tests {
		got, ok := RestoreTimeOf(tt.volumes)
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("%s: %v, %q, want %q", tt.name, ok, got.String(), tt.want)
		}
	}
}

func TestProofWords(t *testing.T) {
	ago := func(d time.Duration) time.Time { return night.Add(-d) }
	const day = 24 * time.Hour
	took := func(seconds float64) *Restore { return &Restore{Seconds: seconds} }
	for want, v := range map[string]Volume{
		"never":            {},
		"3 d":              {LastVerified: ago(3 * day)},
		"5 h, 40.0 s":      {LastVerified: ago(3 * day), LastRestored: ago(5 * time.Hour), Restore: took(40)},
		"2 h, 6 m 12 s":    {LastVerified: ago(2 * time.Hour), LastRestored: ago(50 * day), Restore: took(372)},
		"120 d, 23 h 59 m": {LastRestored: ago(120 * day), Restore: took(86_399)},
		"damaged":          {LastRestored: ago(120 * day), Restore: took(86_399), LastDamaged: ago(day)},
	} {
		if got := v.proofWords(night); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The mail of a night names the time to restore all, and of each volume when it was proven and in what time it came back.
func TestMailTellsOfProofs(t *testing.T) {
	run := volumesRun(60)
	page := html(t, fixture{"", run, Options{}})
	text := Text(run, Options{})
	for _, want := range []string{"Time to restore all", "9 h, 3 m 20 s"} {
		if !strings.Contains(page, want) || !strings.Contains(text, want) {
			t.Errorf("%q is not told", want)
		}
	}
	run.Named = []string{"volume-00000008"}
	if strings.Contains(Text(run, Options{}), "Time to restore all") {
		t.Error("a run of some volumes tells of all")
	}
}
