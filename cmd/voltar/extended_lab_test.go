package main

import (
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// Volumes that are extended after the run's inventory are backed up whole, with the size of their snapshots.
func TestLabVolumesThatGrowDuringARun(t *testing.T) {
	lab.VG(t, "vg", 400*mib)
	makeExt(t, lab.LV(t, "vg", "classic", 16*mib))
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "96m", "--name", "pool", "vg")
	lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", "16m", "--name", "thin", "vg/pool")
	makeExt(t, "/dev/vg/thin")
	s := restoreSiteWith(t, `
[[hook]]
name = "grow"
scope = "run"
phase = "before"
shell = "for v in classic thin; do lvextend -q -L 48M vg/$v && e2fsck -fp /dev/vg/$v && resize2fs /dev/vg/$v || exit 1; done"
`)
	result := s.run(t, 0, "vg/classic", "vg/thin")
	for _, name := range []string{"vg/classic", "vg/thin"} {
		v := volumeResult(t, result, name)
		_, m := s.newest(t, name)
		if v.Status != report.VolumeOK || v.SizeBytes != 48*mib || m.Source.SizeBytes != 48*mib ||
			m.Extents[0].SizeBytes != 48*mib || m.Extents[0].State != catalog.StateFiles {
			t.Errorf("%s: %+v, %+v", name, v, m.Extents[0])
		}
	}
}
