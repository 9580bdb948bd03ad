package main

import (
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// otherTypes are the filesystems that are mounted on request, on one disk; the kernel of the lab has drivers for two.
const otherTypes = "label: gpt\nsize=64M, name=\"f2fs\"\nsize=32M, name=\"jfs\"\nsize=16M, name=\"ntfs\"\nsize=16M, name=\"exfat\"\n"

// makeOtherTypes makes that disk, a volume that is JFS as a whole, one that is JFS and was not unmounted, one that is
// mounted on this host, and an ext4 that is read-only by its own word.
func makeOtherTypes(t *testing.T) {
	t.Helper()
	lab.VG(t, "vg", 600*mib)
	lab.LV(t, "vg", "disk", 132*mib)
	partition(t, "/dev/vg/disk", otherTypes)
	for i, mkfs := range []string{
		`mkfs.f2fs -q -f -l "grüße" -O extra_attr,inode_checksum,sb_checksum,lost_found "$1" >/dev/null`,
		`mkfs.jfs -q "$1" >/dev/null; jfs_tune -L "a label" -U f0000000-0000-4000-8000-00000000000f "$1" >/dev/null`,
		`mkfs.ntfs -Q -q -F -L Windows "$1" 2>/dev/null`, `mkfs.exfat -L Photos "$1" >/dev/null`,
	} {
		onPartition(t, "/dev/vg/disk", i+1, func(loop string) {
			shell(t, mkfs, loop)
			if i < 2 {
				fill(t, loop, []string{"f2fs", "jfs"}[i])
			}
		})
	}
	whole, inUse := lab.LV(t, "vg", "whole", 32*mib), lab.LV(t, "vg", "used", 16*mib)
	shell(t, `mkfs.jfs -q "$1" >/dev/null; mkfs.jfs -q "$2" >/dev/null`, whole, inUse)
	live := lab.LV(t, "vg", "live", 16*mib)
	shell(t, `mkfs.jfs -q "$1" >/dev/null`, live)
	writeFile(t, lab.Mount(t, live, "defaults")+"/open", []byte("now"))
	fixed := lab.LV(t, "vg", "fixed", 16*mib)
	shell(t, `mkfs.ext4 -q "$1"`, fixed)
	fill(t, fixed, "ext4")
	shell(t, `tune2fs -O read-only "$1" >/dev/null`, fixed)
	shell(t, `printf '\001' | dd of="$1" bs=1 seek=32808 conv=notrunc status=none`, inUse) // as the kernel leaves it while mounted
}

// Filesystems beside the usual ones are images, but for those that the configuration names, the kernel knows and that are
// not in use. They come back as they were.
func TestLabOtherFilesystems(t *testing.T) {
	makeOtherTypes(t)
	before := map[string]facts{}
	for _, name := range []string{"disk", "fixed"} {
		before[name] = diskFacts(t, "/dev/vg/"+name)
	}
	check := func(s site, volume, extent string, state catalog.State, reason string) {
		t.Helper()
		_, m := s.newest(t, "vg/"+volume)
		x := extentOf(t, m, extent)
		if x.State != state || !strings.Contains(x.Reason, reason) {
			t.Errorf("%s %s is stored as %s (%s), want %s (%s)", volume, extent, x.State, x.Reason, state, reason)
		}
	}

	s := restoreSite(t)
	s.run(t, 0, "vg/disk", "vg/fixed")
	for _, name := range []string{"p1", "p2", "p3", "p4"} {
		check(s, "disk", name, catalog.StateImage, "mount_types does not name it")
	}
	check(s, "fixed", "", catalog.StateFiles, "")

	s = restoreSiteWith(t, `
[archive]
mount_types = ["exfat", "ntfs", "f2fs", "jfs"]
[[volume]]
match = "whole"
mount_types = []
`)
	result := s.run(t, 0)
	check(s, "disk", "p1", catalog.StateFiles, "")
	check(s, "disk", "p2", catalog.StateFiles, "")
	check(s, "disk", "p3", catalog.StateImage, "the kernel cannot mount it: there is no module ntfs3")
	check(s, "disk", "p4", catalog.StateImage, "no module exfat")
	check(s, "whole", "", catalog.StateImage, "mount_types does not name it")
	check(s, "used", "", catalog.StateImage, "frozen for the snapshot")
	check(s, "live", "", catalog.StateFiles, "") // a snapshot freezes what this host has mounted
	for _, v := range result.Volumes {
		text := warnings(v)
		if isDisk := v.Name == "vg/disk"; isDisk != strings.Contains(text, "ntfs3") || isDisk != strings.Contains(text, "exfat") {
			t.Errorf("the warnings of %s are %q", v.Name, text)
		}
	}
	for name := range before {
		t.Run(name, func(t *testing.T) {
			wipe(t, "/dev/vg/"+name)
			lab.Do(t, "lvremove", "--force", "--yes", "vg/"+name)
			s.restore(t, 0, "vg/"+name)
			before[name].compare(t, diskFacts(t, "/dev/vg/"+name))
		})
	}
	t.Run("by hand", func(t *testing.T) {
		for _, name := range []string{"disk", "fixed"} {
			wipe(t, "/dev/vg/"+name)
			byHand(t, s.folder(t, "vg", name), "/dev/vg/"+name)
			withoutFlags(before[name]).compare(t, withoutFlags(diskFacts(t, "/dev/vg/"+name)))
		}
	})
}

func warnings(v report.Volume) string {
	var text strings.Builder
	for _, w := range v.Warnings {
		text.WriteString(w.Message + "\n")
	}
	return text.String()
}
