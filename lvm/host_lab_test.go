package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"voltar/internal/lab"
)

// configureLVM gives lvm2 other settings until the test ends.
func configureLVM(t *testing.T, settings string) {
	t.Helper()
	const path = "/etc/lvm/lvm.conf"
	before := must[[]byte](t)(os.ReadFile(path))
	if err := os.WriteFile(path, []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// What a host has in lvm.conf about messages and reports, and in its archive of metadata, is not voltar's concern; and a run
// adds nothing to that archive.
func TestLabLVM2AsItIs(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	lab.VG(t, "vg0", 96*mib)
	lab.LV(t, "vg0", "data", 16*mib)
	const archive = "/etc/lvm/archive"
	for i := range 8400 {
		if err := os.WriteFile(fmt.Sprintf("%s/vg0_%05d-1.vg", archive, i+100), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		left, err := filepath.Glob(archive + "/vg0_*")
		if err != nil {
			t.Error(err)
		}
		for _, path := range left {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	})
	configureLVM(t, `log { prefix="# " command_names=1 indent=1 verbose=1 }
report { quoted=0 prefixes=1 columns_as_rows=1 compact_output=1 list_item_separator="|" binary_values_as_numeric=1 aligned=0 buffered=0
	mark_hidden_devices=0 headings=0 separator="#" }
global { units="h" suffix=0 }`)

	count := func() int { return len(must[[]os.DirEntry](t)(os.ReadDir(archive))) }
	before := count()
	v := must[Volume](t)(c.Lookup(ctx, "vg0", "data"))
	snap := must[Snapshot](t)(c.CreateSnapshot(ctx, v, SnapshotRequest{Name: "snap", SizeBytes: 4 * mib, Tags: []string{"a", "b"}}))
	if size := must[int64](t)(c.ExtendSnapshot(ctx, "vg0", "snap", 1)); size != 8*mib {
		t.Errorf("extended to %d", size)
	}
	inv := must[Inventory](t)(c.Inventory(ctx))
	if v, err := inv.Volume("vg0", "snap"); err != nil || !v.HasTag("b") || len(inv.PVs) != 1 || inv.PVs[0].Dev == (Dev{}) {
		t.Errorf("volume %+v, %v, disks %+v", v, err, inv.PVs)
	}
	if troubles := inv.Troubles(); len(troubles) > 0 {
		t.Errorf("troubles of a host without any: %+v", troubles)
	}
	if st := must[Status](t)(c.SnapshotStatus(ctx, "vg0", "snap")); st.Invalid {
		t.Errorf("status %+v", st)
	}
	if err := c.RemoveSnapshot(ctx, "vg0", "snap", snap.Expect()); err != nil {
		t.Error(err)
	}
	if after := count(); after != before {
		t.Errorf("there are %d files more in %s", after-before, archive)
	}
	// The state after the last change is kept all the same.
	seqno := strings.TrimSpace(lab.Do(t, "vgs", "--config", "log{prefix=\"\" command_names=0}",
		"--noheadings", "-o", "vg_seqno", "vg0"))
	kept := string(must[[]byte](t)(os.ReadFile("/etc/lvm/backup/vg0")))
	_, number, labelled := strings.Cut(seqno, "=") // lvm.conf wants prefixes
	if !labelled {
		number = seqno
	}
	if want := "seqno = " + strings.Trim(number, "' "); !strings.Contains(kept, want) {
		t.Errorf("/etc/lvm/backup/vg0 is not of %s (%q)", want, seqno)
	}
}

func TestLabTroublesAreNamed(t *testing.T) {
	ctx, c := t.Context(), labClient(Options{})
	whole, away, twin := lab.Disk(t, 64*mib), lab.Disk(t, 64*mib), lab.Disk(t, 32*mib)
	lab.VGOn(t, "vg0", whole, away)
	lab.LV(t, "vg0", "mirrored", 4*mib, "--type", "raid1", "-m", "1")
	lab.LV(t, "vg0", "data", 16*mib)
	v := must[Volume](t)(c.Lookup(ctx, "vg0", "data"))

	number := blockDev(away)
	if err := os.Remove(away); err != nil { // under any name in /dev lvm2 would find it
		t.Fatal(err)
	}
	inv, readErr := c.Inventory(ctx)
	_, err := c.CreateSnapshot(ctx, v, SnapshotRequest{Name: "snap", SizeBytes: 4 * mib, Tags: []string{"a"}})
	lab.Do(t, "mknod", away, "b", strconv.Itoa(number.Major), strconv.Itoa(number.Minor))
	if readErr != nil {
		t.Fatal(readErr)
	}
	if err == nil || !strings.Contains(err.Error(), "Cannot change VG vg0 while PVs are missing") {
		t.Errorf("%v, want the cause that stands before lvm2's last line", err)
	}
	expectTroubles(t, inv, "volume group vg0 lacks 1 of its physical volumes", "RAID volume vg0/mirrored has lost a disk")

	// Two groups of one name come together when a disk of another host is plugged in.
	filter := `devices{global_filter=["a|^` + twin + `$|","r|.*|"]}`
	lab.Do(t, "lvchange", "-an", "vg0/data", "vg0/mirrored")
	lab.Do(t, "vgcreate", "--config", filter, "vg0", twin)
	inv = must[Inventory](t)(c.Inventory(ctx))
	lab.Do(t, "vgremove", "--config", filter, "vg0")
	lab.Do(t, "pvremove", "--config", filter, twin)
	expectTroubles(t, inv, "2 volume groups have the name vg0")
}

func expectTroubles(t *testing.T, inv Inventory, want ...string) {
	t.Helper()
	troubles := fmt.Sprint(inv.Troubles())
	for _, words := range want {
		if !strings.Contains(troubles, words) {
			t.Errorf("%s lacks %q; groups %+v, warnings %q", troubles, words, inv.VGs, inv.Warnings)
		}
	}
}
