package main

import (
	"strings"
	"testing"

	"voltar/internal/lab"
	"voltar/report"
)

// A snapshot that overflows when everything has been read, and before anything is published, is seen by the last look at
// it: what was read around that time counts for nothing. A dump beside the volume is what runs then, and writes to it.
func TestLabOverflowAtTheLastMoment(t *testing.T) {
	lab.VG(t, "vg", 200<<20)
	device := lab.LV(t, "vg", "small", 64<<20)
	makeExt(t, device)
	same := "dd if=" + device + " of=" + device + " bs=1M count=24 conv=notrunc iflag=direct oflag=direct status=none"
	s := newSite(t, `[snapshot]
size = "8MiB"
min_size = "8MiB"
poll_interval = "1h"
[[dump]]
name = "writer"
volumes = ["small"]
command = ["sh", "-c", "`+same+`; echo written"]
`)
	before := hostState(t)
	result := s.run(t, exitNothing)
	v := wantStatus(t, result, "vg/small", report.VolumeFailed)
	if v.Error == nil || !strings.Contains(v.Error.Message, "snapshot overflowed") || v.Backup != "" {
		t.Errorf("%+v, backup %q", v.Error, v.Backup)
	}
	if left := s.backupsOf(t, "vg/small"); len(left) > 0 {
		t.Errorf("published all the same: %q", left)
	}
	if after := hostState(t); after != before {
		t.Errorf("after the run:\n%s\nbefore:\n%s", after, before)
	}
}
