package main

import (
	"os"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// Volumes that are rare, and well: each has its backup without a warning, and comes back.
func TestLabOddVolumes(t *testing.T) {
	lab.VG(t, "odd", 1200*mib)
	swap, empty := lab.LV(t, "odd", "swap", 16*mib), lab.LV(t, "odd", "empty", 128*mib)
	iso, named, projects := lab.LV(t, "odd", "iso", 16*mib), lab.LV(t, "odd", "named", 16*mib), lab.LV(t, "odd", "projects", 320*mib)
	lab.Do(t, "mkswap", swap)
	lab.Do(t, "mkfs.btrfs", "-q", "--nodesize", "64k", empty)
	makeISO(t, iso)
	lab.Do(t, "mkfs.ext4", "-q", "-L", "DEVICE", named)
	lab.Do(t, "mkfs.xfs", "-q", projects)
	const look = `cd "$1"; for name in . data data/file data/large; do xfs_io -r -c stat $name | grep -E 'projid|extsize|xflags'; done`
	var before string
	within(t, projects, "pquota", func(dir string) {
		shell(t, `cd "$1"; mkdir data; xfs_io -r -c "chproj 4242" -c "extsize 64k" -c "chattr +P" data; echo x > data/file
			xfs_io -f -c "extsize 1m" -c "cowextsize 2m" -c "pwrite -q 0 3m" data/large`, dir)
		before = shell(t, look, dir)
	})
	if !strings.Contains(before, "4242") || !strings.Contains(before, "1048576") || !strings.Contains(before, "2097152") {
		t.Fatalf("%s", before)
	}
	s := restoreSiteWith(t, "[select]\nvolume_groups = [\"odd\"]\n")
	result := s.run(t, 0)
	for _, v := range result.Volumes {
		if v.Status != report.VolumeOK || len(v.Warnings) > 0 || len(v.Extents) != 1 {
			t.Errorf("%+v", v)
		}
	}
	for name, want := range map[string]catalog.State{"swap": catalog.StateSwap, "empty": catalog.StateFiles, "iso": catalog.StateImage,
		"named": catalog.StateFiles, "projects": catalog.StateFiles} {
		if _, m := s.newest(t, "odd/"+name); m.Extents[0].State != want || m.Extents[0].Filesystem == nil {
			t.Errorf("%s: %+v", name, m.Extents[0])
		}
	}
	if _, m := s.newest(t, "odd/iso"); m.Extents[0].Filesystem.Type != "iso9660" {
		t.Errorf("%+v", m.Extents[0].Filesystem)
	}

	uuid := lab.Do(t, "blkid", "--output", "value", "--match-tag", "UUID", swap)
	lab.Do(t, "sh", "-euc", `cd "$1" && sha1sum -c swap.checksum`, "sh", s.folder(t, "odd", "swap"))
	wipe(t, swap)
	byHand(t, s.folder(t, "odd", "swap"), swap)
	if again := lab.Do(t, "blkid", "--cache-file", "/dev/null", "--output", "value", "--match-tag", "UUID", swap); again != uuid {
		t.Errorf("UUID %q, was %q", again, uuid)
	}
	for _, bring := range []func(){
		func() { s.restore(t, 0, "odd/named", "--force") },
		func() { byHand(t, s.folder(t, "odd", "named"), named) },
	} {
		wipe(t, named)
		bring()
		if label := strings.TrimSpace(lab.Do(t, "e2label", named)); label != "DEVICE" {
			t.Errorf("label %q", label)
		}
	}
	out, _ := s.restore(t, 0, "odd/projects", "--force")
	if !strings.Contains(out, "quotas") {
		t.Errorf("nothing is said of quotas: %s", out)
	}
	within(t, projects, "pquota", func(dir string) {
		if after := shell(t, look, dir); after != before {
			t.Errorf("%s\nwant %s", after, before)
		}
	})
}

// makeISO makes what an installer's image looks like: an ISO 9660 with a partition table for computers that boot from a stick,
// whose first partition begins at sector 0.
func makeISO(t *testing.T, device string) {
	t.Helper()
	image := make([]byte, 1<<20)
	entry := image[446:]
	entry[4], entry[12], entry[13] = 0x17, 0, 8 // 2,048 sectors from 0 on
	copy(image[510:], "\x55\xaa")
	descriptor := image[32<<10:]
	copy(descriptor, "\x01CD001\x01\x00")
	copy(descriptor[40:], "INSTALLER                       ")
	copy(descriptor[2048:], "\xffCD001\x01")
	if err := os.WriteFile(device, image, 0o600); err != nil {
		t.Fatal(err)
	}
}
