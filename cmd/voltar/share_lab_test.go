package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
)

// pages is data that is nowhere twice, and small when it is packed.
func pages(sizeBytes int) []byte {
	data := make([]byte, sizeBytes)
	for i := 0; i+8 <= sizeBytes; i += 4096 {
		binary.LittleEndian.PutUint64(data[i:], uint64(i)*0x9e3779b97f4a7c15|1)
	}
	return data
}

// usedBytes is what a mounted filesystem has in use.
func usedBytes(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync() // what was written has its place only then
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func factsBelow(t *testing.T, dir string) facts {
	t.Helper()
	f := facts{}
	f.addTree(t, "", dir)
	return f
}

// within does something with a mounted filesystem.
func within(t *testing.T, device, options string, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	lab.Do(t, "mount", "-o", options, device, dir)
	defer lab.Do(t, "umount", dir)
	do(dir)
}

// What files share comes back shared, as their volume has no room for all of it.
func TestLabSharedDataFitsWhereItCameFrom(t *testing.T) {
	lab.VG(t, "share", 2000*mib)
	xfs, btrfs := lab.LV(t, "share", "xfs", 320*mib), lab.LV(t, "share", "btrfs", 320*mib)
	lab.Do(t, "mkfs.xfs", "-q", xfs)
	lab.Do(t, "mkfs.btrfs", "-q", btrfs)
	before, used := map[string]facts{}, map[string]int64{}
	within(t, xfs, "defaults", func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "large"), pages(100*mib-77), 0o600); err != nil {
			t.Fatal(err)
		}
		shell(t, `cd "$1"; for i in 1 2 3; do cp --reflink=always large copy$i; done
			printf changed | dd of=copy2 bs=1 seek=1000000 conv=notrunc status=none`, dir)
		before["xfs"], used["xfs"] = factsBelow(t, dir), usedBytes(t, dir)
	})
	within(t, btrfs, "defaults", func(dir string) {
		lab.Do(t, "btrfs", "subvolume", "create", filepath.Join(dir, "data"))
		for i := range 9 {
			if err := os.WriteFile(filepath.Join(dir, "data", fmt.Sprint(i)), pages(10*mib), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		shell(t, `cd "$1"; sync; for i in 1 2; do btrfs subvolume snapshot data snapshot$i; done
			btrfs subvolume snapshot -r data snapshot3; echo more >> data/5`, dir)
		before["btrfs"], used["btrfs"] = factsBelow(t, dir), usedBytes(t, dir)
	})
	s := restoreSiteWith(t, "[select]\nvolume_groups = [\"share\"]\n")
	result := s.run(t, 0)
	for _, v := range result.Volumes {
		if x := v.Extents[0]; x.ByHandBytes <= x.SizeBytes || len(v.Warnings) > 0 {
			t.Errorf("%s: %+v, %v", v.Name, x, v.Warnings)
		}
	}
	for name := range before {
		if _, m := s.newest(t, "share/"+name); m.Extents[0].State != catalog.StateFiles || m.Extents[0].UniqueBytes > 110*mib ||
			m.Extents[0].ContentBytes < 360*mib {
			t.Errorf("%s: %+v", name, m.Extents[0])
		}
	}
	if code, out, errs := voltar(t, "verify", "--full", "--all", "--config", s.config); code != 0 {
		t.Errorf("%d %s %s", code, out, errs)
	}

	out, _ := s.restore(t, 0, "share/xfs", "--to-lv", "share/again", "--dry-run")
	if !strings.Contains(out, "share it again") || !strings.Contains(out, "nouuid") {
		t.Errorf("%s", out)
	}
	s.restore(t, 0, "share/xfs", "--to-lv", "share/again")
	within(t, "/dev/share/again", "ro,nouuid", func(dir string) {
		before["xfs"].compare(t, factsBelow(t, dir))
		if now := usedBytes(t, dir); now > used["xfs"]+8*mib {
			t.Errorf("%d bytes are used, %d were", now, used["xfs"])
		}
	})
	lab.Do(t, "lvremove", "--force", "share/again")

	_, errs := s.restore(t, 2, "share/btrfs", "--to-lv", "share/again", "--dry-run")
	if !strings.Contains(errs, "same UUID") || !strings.Contains(errs, "btrfs") {
		t.Errorf("%s", errs)
	}
	s.restore(t, 0, "share/btrfs", "--force")
	within(t, btrfs, "ro", func(dir string) {
		before["btrfs"].compare(t, factsBelow(t, dir))
		if now := usedBytes(t, dir); now > used["btrfs"]+16*mib {
			t.Errorf("%d bytes are used, %d were", now, used["btrfs"])
		}
		if shared := lab.Do(t, "filefrag", "-v", filepath.Join(dir, "snapshot3/3")); !strings.Contains(shared, "shared") {
			t.Errorf("%s", shared)
		}
	})

	// Standard tools take more room, of which their recipe knows.
	wipe(t, xfs)
	lab.Do(t, "lvremove", "--force", "share/xfs")
	byHand(t, s.folder(t, "share", "xfs"), "")
	within(t, xfs, "ro", func(dir string) { before["xfs"].compare(t, factsBelow(t, dir)) })
}
