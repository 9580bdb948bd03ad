package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/lab"
	"voltar/report"
)

// twoDisks opens the volume group of a guest that lies on two volumes for the length of a script, as the guest would: all of
// the first and the second partition of the other.
func twoDisks(t *testing.T, one, two, script string) string {
	t.Helper()
	return shell(t, `A=$(losetup -f --show `+one+`); B=$(losetup -f --show -o 13M --sizelimit 44M `+two+`)
		trap 'vgchange -q -an guest >&2 || :; losetup -d $A; losetup -d $B' EXIT
		`+script)
}

// A guest's volume group on two volumes is archived as files when they are in one consistency group, and comes back whole.
func TestLabGuestLVMOnTwoVolumes(t *testing.T) {
	lab.VG(t, "host", 400<<20)
	for _, name := range []string{"disk1", "disk2", "back1", "back2"} {
		lab.LV(t, "host", name, 60<<20)
	}
	shell(t, "printf '1M,12M,L\\n13M,44M,8e\\n' | sfdisk -q --no-reread /dev/host/disk2")
	// The group's first physical volume is not on the first volume, and one of its logical volumes is all on the other.
	twoDisks(t, "/dev/host/disk1", "/dev/host/disk2", `pvcreate -q $A $B; vgcreate -q guest $B $A
		lvcreate -q -y -n root -L 16M guest $A; lvextend -q -L +12M guest/root $B
		lvcreate -q -y -n home -i 2 -I 64k -L 16M guest
		lvcreate -q -y -n far -L 8M guest $B
		lvcreate -q -y -n raw -L 4M guest $B; lvextend -q -L +4M guest/raw $A
		lvcreate -q -y -n swap -L 4M guest $A
		for lv in root home far; do
			mkfs.ext4 -q -L $lv /dev/guest/$lv; M=$(mktemp -d); mount /dev/guest/$lv $M
			echo $lv > $M/name; dd if=/dev/urandom of=$M/random bs=1M count=2 status=none; umount $M; rmdir $M
		done
		mkswap -q /dev/guest/swap; dd if=/dev/urandom of=/dev/guest/raw bs=1M count=8 status=none`)
	shell(t, `L=$(losetup -f --show -o 1M --sizelimit 12M /dev/host/disk2); mkfs.ext4 -q -L own $L; losetup -d $L`)
	look := func(t *testing.T, one, two string) string {
		t.Helper()
		return twoDisks(t, one, two, `vgchange -q -ay guest >&2; lvs --noheadings -o name,uuid,segtype,size guest; vgs --noheadings -o uuid,seqno guest
			pvs --noheadings -o uuid,pv_size -S vg_name=guest; sha1sum < /dev/guest/raw
			for lv in root home far; do
				M=$(mktemp -d); mount -o ro /dev/guest/$lv $M; ls -ln --time-style=full-iso $M; (cd $M; sha1sum name random); umount $M; rmdir $M
				blkid -p -o value -s UUID -s LABEL /dev/guest/$lv
			done
			blkid -p -o value -s UUID /dev/guest/swap`)
	}
	want := look(t, "/dev/host/disk1", "/dev/host/disk2")
	hidden := func(t *testing.T) {
		t.Helper()
		if seen := lab.Do(t, "vgs", "--noheadings", "-o", "name") + lab.Do(t, "pvs", "--noheadings", "-o", "name"); strings.Contains(seen, "guest") || strings.Contains(seen, "disk") {
			t.Errorf("the host sees the guest's volume group: %s", seen)
		}
	}

	const grouped = "[[group]]\nname = \"guest\"\nvolumes = [\"host/disk*\"]\n"
	s := newSite(t, grouped)
	result := s.run(t, 0, "host/disk1", "host/disk2")
	sumsUp(t, result)
	hidden(t)
	folder1, m1 := s.newest(t, "host/disk1")
	folder2, m2 := s.newest(t, "host/disk2")
	got := states(m1)
	for name, want := range map[string]string{"": "lvm LVM2_member", "guest/root": "files ext4", "guest/home": "files ext4", "guest/far": "files ext4", "guest/raw": "image", "guest/swap": "swap swap"} {
		if got[name] != want {
			t.Errorf("disk1: %q is %q, want %q", name, got[name], want)
		}
	}
	got = states(m2)
	for name, want := range map[string]string{"p1": "files ext4", "p2": "lvm LVM2_member", "guest/root": ""} {
		if got[name] != want {
			t.Errorf("disk2: %q is %q, want %q", name, got[name], want)
		}
	}
	if l := volumeResult(t, result, "host/disk2").Ledger; l.ElsewhereBytes != 32<<20 {
		t.Errorf("elsewhere are %d bytes of disk2", l.ElsewhereBytes)
	}
	if code, out, errs := voltar(t, "verify", "--full", "--config", s.config); code != 0 {
		t.Errorf("verify: %d\n%s\n%s", code, out, errs)
	}
	if code, out, errs := voltar(t, "cat", "--config", s.config, "host/disk1", "lv1:/name"); code != 0 || out != "far\n" {
		t.Errorf("cat: %d %q %s", code, out, errs)
	}

	t.Run("restored", func(t *testing.T) {
		_, errs := s.restore(t, exitUsage, "host/disk1", "--to-lv", "host/back1")
		if !strings.Contains(errs, "first `voltar restore host/disk2@") || !strings.Contains(errs, "--beside host/disk2") {
			t.Errorf("alone: %s", errs)
		}
		_, errs = s.restore(t, exitUsage, "host/disk1", "--to-lv", "host/back1", "--beside", "host/disk2=host/back2")
		if !strings.Contains(errs, "does not hold the guest's physical volume") {
			t.Errorf("beside something else: %s", errs)
		}
		lab.Do(t, "lvremove", "-q", "-y", "host/back1", "host/back2") // made anew
		out, _ := s.restore(t, 0, "host/disk2", "--to-lv", "host/back2")
		next := "voltar restore " + m1.ID().String() + " --beside host/disk2=host/back2 --config " + s.config
		if !strings.Contains(out, next) || !strings.Contains(out, "but for logical volumes") {
			t.Errorf("the first of two: %s", out)
		}
		if tags := lab.Do(t, "lvs", "--noheadings", "-o", "tags", "host/back2"); !strings.Contains(tags, "voltar.incomplete") {
			t.Errorf("tags %q", tags)
		}
		s.restore(t, 0, "host/disk1", "--to-lv", "host/back1", "--beside", "host/disk2=host/back2")
		if tags := lab.Do(t, "lvs", "--noheadings", "-o", "tags", "host/back1", "host/back2"); strings.Contains(tags, "voltar") {
			t.Errorf("tags afterwards %q", tags)
		}
		if got := look(t, "/dev/host/back1", "/dev/host/back2"); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
		_, errs = s.restore(t, exitNothing, "host/disk1", "--to-lv", "host/back1", "--beside", "host/disk2=host/back2", "--dry-run")
		if !strings.Contains(errs, "does not wait for this backup") {
			t.Errorf("a second time: %s", errs)
		}
		hidden(t)
	})
	t.Run("by hand", func(t *testing.T) {
		shell(t, "for n in 1 2; do dd if=/dev/urandom of=/dev/host/back$n bs=1M count=60 status=none; done")
		byRecipe(t, folder2, "/dev/host/back2")
		byRecipe(t, folder1, "/dev/host/back1", "BESIDE1=/dev/host/back2")
		if got := look(t, "/dev/host/back1", "/dev/host/back2"); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("one fails", func(t *testing.T) {
		twoDisks(t, "/dev/host/disk1", "/dev/host/disk2", "vgchange -q -ay guest >&2; mkfs.ext4 -q -O encrypt -F /dev/guest/raw")
		both := newSite(t, grouped+"[[volume]]\nmatch = \"host/disk1\"\nas = \"files\"\n")
		result := both.run(t, exitNothing, "host/disk1", "host/disk2")
		for name, says := range map[string]string{"host/disk1": "cannot be stored as files", "host/disk2": "lies on it and on host/disk1, which failed"} {
			if v := volumeResult(t, result, name); v.Status != report.VolumeFailed || v.Error == nil || !strings.Contains(v.Error.Message, says) {
				t.Errorf("%s: %s %+v", name, v.Status, v.Error)
			}
		}
		sumsUp(t, result)
		if left, err := filepath.Glob(filepath.Join(both.backups, "volume-host/host/*/*")); err != nil || len(left) > 0 {
			t.Errorf("left: %q %v", left, err)
		}
	})
	t.Run("halves", func(t *testing.T) {
		for _, test := range []struct{ gone, names, what string }{
			{folder1, "host/disk2", "which has the logical volumes of the guest's volume group guest"},
			{folder2, "host/disk1", "which has the part of the guest's volume group guest on host/disk2"},
		} {
			hideaway := filepath.Join(s.dir, "hidden")
			if err := os.Rename(test.gone, hideaway); err != nil {
				t.Fatal(err)
			}
			if code, out, errs := voltar(t, "verify", "--quick", "--config", s.config, test.names); code != exitAttention || !strings.Contains(out, test.what) {
				t.Errorf("verify %s: %d\n%s\n%s", test.names, code, out, errs)
			}
			if _, out, _ := voltar(t, "list", "--config", s.config); !strings.Contains(out, "lacks host/disk") {
				t.Errorf("list: %s", out)
			}
			if err := os.Rename(hideaway, test.gone); err != nil {
				t.Fatal(err)
			}
		}
	})
}
