//go:build slow

package main

import (
	"testing"

	"voltar/internal/lab"
)

// comesBack backs a volume up that has one of everything on it, verifies the backup, restores it to a new volume and
// compares. make makes the volume.
func comesBack(t *testing.T, vg string, make func(name string, sizeBytes int64), wantKind string) {
	t.Helper()
	g := guests()[0]
	make(g.name, g.sizeBytes)
	g.make(t, "/dev/"+vg+"/"+g.name)
	before := diskFacts(t, "/dev/"+vg+"/"+g.name)

	s := restoreSite(t)
	s.run(t, 0)
	_, m := s.newest(t, vg+"/"+g.name)
	if m.Source.LVKind != wantKind {
		t.Errorf("the volume is %s, want %s", m.Source.LVKind, wantKind)
	}
	if code, out, errs := voltar(t, "verify", "--full", "--config", s.config); code != 0 {
		t.Errorf("verify: exit code %d\n%s\n%s", code, errs, out)
	}
	lab.Do(t, "lvremove", "--force", "--yes", vg+"/"+g.name)
	s.restore(t, 0, vg+"/"+g.name)
	before.compare(t, diskFacts(t, "/dev/"+vg+"/"+g.name))
	checkLV(t, vg, g.name, "voltar.was="+string(m.Source.Identity()))
}

func TestLabStripesOverDisks(t *testing.T) {
	lab.VGOn(t, "vg", lab.Disk(t, 220*mib), lab.Disk(t, 220*mib))
	comesBack(t, "vg", func(name string, sizeBytes int64) {
		lab.LV(t, "vg", name, sizeBytes, "--stripes", "2", "--stripesize", "64k")
	}, "striped")
}

func TestLabVolumesOnAnArray(t *testing.T) {
	lab.Do(t, "modprobe", "raid1")
	t.Setenv("MDADM_NO_UDEV", "1")
	first, second := lab.Disk(t, 400*mib), lab.Disk(t, 400*mib)
	lab.Do(t, "mdadm", "--create", "/dev/md0", "--run", "--assume-clean", "--level=1", "--metadata=1.2", "--raid-devices=2", first, second)
	t.Cleanup(func() { lab.Do(t, "mdadm", "--stop", "/dev/md0") })
	lab.VGOn(t, "vg", "/dev/md0")
	comesBack(t, "vg", func(name string, sizeBytes int64) { lab.LV(t, "vg", name, sizeBytes) }, "linear")
}
