package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"voltar/internal/backup"
	"voltar/internal/lab"
	"voltar/report"
)

// With the shipped defaults, five volumes whose group has less room than one of them wants are backed up one after the other,
// and the dry run says that they wait.
func TestLabRoomIsWaitedFor(t *testing.T) {
	lab.VG(t, "vg", 5*40<<20+36<<20)
	for i := range 5 {
		makeExt(t, lab.LV(t, "vg", fmt.Sprintf("data%d", i), 40<<20))
	}
	s := newSite(t, "[snapshot]\nmin_size = \"8MiB\"\n")
	code, out, errs := voltar(t, "run", "--dry-run", "--json", "--config", s.config)
	var preview backup.Preview
	if err := json.Unmarshal([]byte(out), &preview); code != 0 || err != nil {
		t.Fatal(code, err, out, errs)
	}
	waiting := 0
	for _, v := range preview.Volumes {
		if v.WaitsFor == "vg" {
			waiting++
		}
	}
	if waiting != 4 || len(preview.Volumes) != 5 {
		t.Errorf("%d volumes wait for room: %s", waiting, out)
	}
	result := s.run(t, 0)
	for i := range 5 {
		wantStatus(t, result, fmt.Sprintf("vg/data%d", i), report.VolumeOK)
	}
}
