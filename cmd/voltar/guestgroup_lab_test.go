package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"voltar/internal/backup"
	"voltar/internal/lab"
	"voltar/report"
)

// Where the host's lvm2 sees the volume groups of its guests, a run leaves them alone, and says so: those that lie on its own
// volumes (scan_lvs), and those on disks that a guest's emulator has open.
func TestLabVolumeGroupsOfGuests(t *testing.T) {
	const lvmConf = "/etc/lvm/lvm.conf"
	before, err := os.ReadFile(lvmConf)
	if err != nil {
		t.Fatal(err)
	}
	lab.VG(t, "vg", 200<<20)
	disk := lab.LV(t, "vg", "disk", 64<<20)
	t.Cleanup(func() {
		if err := os.WriteFile(lvmConf, before, 0o644); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(lvmConf, []byte("devices { scan_lvs=1 }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.VGOn(t, "guest", disk)
	makeExt(t, lab.LV(t, "guest", "root", 16<<20))
	remote := lab.Disk(t, 64<<20)
	lab.VGOn(t, "remote", remote)
	makeExt(t, lab.LV(t, "remote", "root", 16<<20))
	emulator := exec.Command("sh", "-c", "exec sleep 100000 0<>"+remote)
	if err := emulator.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := emulator.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = emulator.Wait() // it was killed
	})
	seqnos := func() string {
		return lab.Do(t, "vgs", "--noheadings", "-o", "vg_name,vg_seqno", "guest", "remote")
	}

	s := newSite(t, "[snapshot]\nmin_size = \"4MiB\"\n")
	wantRules(t, s, map[string]string{"vg/disk": "", "guest/root": backup.RuleGuestLVM, "remote/root": backup.RuleGuestLVM})
	wantRules(t, s, map[string]string{"guest/root": "", "remote/root": backup.RuleGuestLVM}, "guest/*")
	untouched := seqnos()
	result := s.run(t, 0)
	if after := seqnos(); after != untouched {
		t.Errorf("the metadata of guests' groups went from\n%s\nto\n%s", untouched, after)
	}
	wantStatus(t, result, "vg/disk", report.VolumeOK)
	reasons := map[string]string{}
	for _, left := range result.Excluded {
		reasons[left.Name] = left.Reason
	}
	if !strings.Contains(reasons["guest/root"], "vg/disk") || !strings.Contains(reasons["remote/root"], "sleep") {
		t.Errorf("reasons %q, want the volume below and the process", reasons)
	}
	wantStatus(t, s.run(t, 0, "remote/root"), "remote/root", report.VolumeOK)
}
