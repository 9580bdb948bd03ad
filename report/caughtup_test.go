package report

import (
	"fmt"
	"strings"
	"testing"
)

func TestCaughtUpIsTold(t *testing.T) {
	run := Run{Host: "h", Destinations: []Destination{{Name: "far", Where: "s3://b", FreeBytes: -1, TotalBytes: -1}}}
	if text := Text(run, Options{}); strings.Contains(text, "Made up") {
		t.Errorf("of nothing:\n%s", text)
	}
	for n := range 7 {
		run.Destinations[0].CaughtUp = append(run.Destinations[0].CaughtUp,
			CaughtUp{Backup: fmt.Sprintf("vg/v%d@T", n), From: "disk\x1b", SizeBytes: 1 << 30, SharedBytes: 1 << 29})
	}
	text := strings.Join(strings.Fields(Text(run, Options{})), " ")
	if want := `Copied from other destinations: 7 backups, 3.5 GiB of 7.0 GiB new: vg/v0@T from disk\x1b,`; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
	if want := `vg/v4@T from disk\x1b, 2 more`; !strings.Contains(text, want) {
		t.Errorf("no %q in\n%s", want, text)
	}
}
