package main

import (
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
)

// The images of NTFS and exFAT hold what these have in use, on a disk whose free space is full of old data; where they were
// not left in order they hold all.
func TestLabImagesOfWhatIsInUse(t *testing.T) {
	lab.VG(t, "vg", 400*mib)
	disk := lab.LV(t, "vg", "disk", 80*mib)
	shell(t, `dd if=/dev/urandom of="$1" bs=1M count=80 status=none`, disk)
	partition(t, disk, "label: gpt\nsize=24M, name=\"ntfs\"\nsize=24M, name=\"exfat\"\nsize=24M, name=\"dirty\"\n")
	content := t.TempDir() + "/content"
	writeFile(t, content, []byte(strings.Repeat("what is in the file\n", 50_000)))
	for i, mkfs := range []string{
		`mkfs.ntfs -Q -q -F -L Windows "$1" 2>/dev/null; ntfscp -f "$1" "$2" file`,
		`mkfs.exfat -L Photos "$1" >/dev/null`,
		`mkfs.exfat "$1" >/dev/null; printf '\002' | dd of="$1" bs=1 seek=106 conv=notrunc status=none`,
	} {
		onPartition(t, disk, i+1, func(loop string) { shell(t, mkfs, loop, content) })
	}
	wantSum := headOf(t, disk, 3)

	s := restoreSite(t)
	result := s.run(t, 0, "vg/disk")
	sumsUp(t, result)
	_, m := s.newest(t, "vg/disk")
	for name, reason := range map[string]string{
		"p1": "without its free space", "p2": "without its free space", "p3": "free space is stored too: it is marked as dirty",
	} {
		if x := extentOf(t, m, name); x.State != catalog.StateImage || !strings.Contains(x.Reason, reason) ||
			(x.UsedBytes > 0) != (name != "p3") {
			t.Errorf("%s is stored as %s (%s), with %d bytes in use", name, x.State, x.Reason, x.UsedBytes)
		}
	}
	if v := volumeResult(t, result, "vg/disk"); v.ReadBytes > 50*mib || v.Ledger.FreeBytes < 30*mib {
		t.Errorf("%d bytes were read, ledger %+v", v.ReadBytes, v.Ledger)
	}

	wipe(t, disk)
	s.restore(t, 0, "vg/disk", "--force")
	onPartition(t, disk, 1, func(loop string) {
		shell(t, `ntfsresize --info --force --no-progress-bar "$1" >/dev/null; ntfscat "$1" file | cmp - "$2"`, loop, content)
	})
	onPartition(t, disk, 2, func(loop string) { shell(t, `fsck.exfat -n "$1" >/dev/null`, loop) })
	if got := headOf(t, disk, 3); got != wantSum {
		t.Errorf("the dirty one came back as %s, was %s", got, wantSum)
	}
}

// headOf is the sum of all of a partition.
func headOf(t *testing.T, disk string, number int) (sum string) {
	t.Helper()
	onPartition(t, disk, number, func(loop string) { sum = lab.Do(t, "sh", "-c", "sha1sum < "+loop) })
	return sum
}

// An ext4 that is read-only by its own word is so again when its files are there.
func TestLabReadOnlyExt4(t *testing.T) {
	lab.VG(t, "vg", 100*mib)
	fixed := lab.LV(t, "vg", "fixed", 16*mib)
	shell(t, `mkfs.ext4 -q "$1"`, fixed)
	fill(t, fixed, "ext4")
	shell(t, `tune2fs -O read-only "$1" >/dev/null`, fixed)
	before := diskFacts(t, fixed)
	s := restoreSite(t)
	s.run(t, 0, "vg/fixed")
	wipe(t, fixed)
	s.restore(t, 0, "vg/fixed", "--force")
	before.compare(t, diskFacts(t, fixed))
}
