package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// newest returns the folder of the one backup of a volume, and its manifest.
func (s site) newest(t *testing.T, volume string) (string, *catalog.Manifest) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.backups, "volume-host", volume, "*", catalog.ManifestName))
	if err != nil || len(found) != 1 {
		t.Fatalf("backups of %s: %v, %v", volume, found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	m, err := catalog.ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(found[0]), m
}

// volumeResult returns the line of one volume in a report.
func volumeResult(t *testing.T, r report.Run, name string) report.Volume {
	t.Helper()
	for _, v := range r.Volumes {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no %s in %+v", name, r)
	return report.Volume{}
}

// shell runs a script of commands in the lab.
func shell(t *testing.T, script string, args ...string) string {
	t.Helper()
	return lab.Do(t, "sh", append([]string{"-euc", script, "sh"}, args...)...)
}

// byRecipe brings a backup back onto a device with the commands in its RESTORE.txt and nothing else.
func byRecipe(t *testing.T, folder, target string, env ...string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, catalog.RecipeName))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for line := range strings.Lines(string(text)) {
		if command, found := strings.CutPrefix(line, "    "); found {
			script.WriteString(command)
		}
	}
	lab.Do(t, "env", append(env, "TARGET="+target, "sh", "-c", "cd "+folder+"\n"+script.String())...)
}

// sumsUp holds the ledger of every volume against its size.
func sumsUp(t *testing.T, r report.Run) {
	t.Helper()
	for _, v := range r.Volumes {
		l := v.Ledger
		if sum := l.FilesBytes + l.ImageBytes + l.FreeBytes + l.ExcludedBytes + l.FailedBytes; sum != v.SizeBytes || l.FreeBytes < 0 {
			t.Errorf("%s: the ledger has %d bytes of %d: %+v", v.Name, sum, v.SizeBytes, l)
		}
	}
}

// states lists the extents of a manifest with what became of them.
func states(m *catalog.Manifest) map[string]string {
	list := map[string]string{}
	for _, x := range m.Extents {
		name := x.Name
		if x.LV != nil {
			name = x.LV.VG + "/" + x.LV.Name
		}
		list[name] = string(x.State)
		if x.Filesystem != nil {
			list[name] += " " + x.Filesystem.Type
		}
	}
	return list
}

// guestVG opens the volume group of a guest for the length of a function, as the guest itself would.
func guestVG(t *testing.T, device string, script string) string {
	t.Helper()
	return shell(t, `A=$(losetup -f --show -o 1M --sizelimit 72M `+device+`); B=$(losetup -f --show -o 73M --sizelimit 72M `+device+`)
		trap 'vgchange -q -an guest >&2 || :; losetup -d $A; losetup -d $B' EXIT
		`+script)
}

// The physical volumes of a guest's volume group that lies on two volumes of the host become images, whose reason says so, and
// come back bit for bit.
func TestLabGuestLVMOnTwoVolumesBecomesImages(t *testing.T) {
	lab.VG(t, "host", 160<<20)
	for _, name := range []string{"disk1", "disk2"} {
		lab.LV(t, "host", name, 32<<20)
	}
	shell(t, `A=$(losetup -f --show /dev/host/disk1); B=$(losetup -f --show /dev/host/disk2)
		trap 'vgchange -q -an guest >&2 || :; losetup -d $A; losetup -d $B' EXIT
		pvcreate -q $A $B; vgcreate -q guest $A $B; lvcreate -q -y -n root -L 40M guest
		mkfs.ext4 -q /dev/guest/root`)
	sums := func() string { return shell(t, "sha1sum < /dev/host/disk1; sha1sum < /dev/host/disk2") }
	want := sums()

	s := newSite(t, "[[group]]\nname = \"guest\"\nvolumes = [\"host/disk1\"]\n")
	result := s.run(t, 0, "host/disk*")
	sumsUp(t, result)
	const advice = "only when a [[group]] takes them at one moment"
	for name, grouped := range map[string]bool{"host/disk1": true, "host/disk2": false} {
		_, m := s.newest(t, name)
		x := m.Extents[0]
		if len(m.Extents) != 1 || x.State != catalog.StateImage || !strings.Contains(x.Reason, "is not on this volume") ||
			strings.Contains(x.Reason, advice) == grouped {
			t.Errorf("%s: %+v", name, m.Extents)
		}
	}
	shell(t, "for n in 1 2; do dd if=/dev/urandom of=/dev/host/disk$n bs=1M count=32 status=none; done")
	s.restore(t, 0, "host/disk1", "--force")
	s.restore(t, 0, "host/disk2", "--force")
	if got := sums(); got != want {
		t.Errorf("came back as\n%s\nwant\n%s", got, want)
	}
}

// Two guests of one template, with volume groups of the same name and UUIDs, are backed up at the same time, as files where
// that can be, and come back with all names and UUIDs.
func TestLabGuestLVM(t *testing.T) {
	lab.VG(t, "host", 840<<20)
	for _, name := range []string{"g1", "g2", "back"} {
		lab.LV(t, "host", name, 148<<20)
	}
	shell(t, "printf '1M,72M,8e\\n73M,72M,8e\\n' | sfdisk -q --no-reread /dev/host/g1")
	guestVG(t, "/dev/host/g1", `pvcreate -q $A; pvcreate -q --metadatacopies 2 $B; vgcreate -q guest $A $B
		lvcreate -q -y -n root -L 24M guest $A
		lvcreate -q -y -n raw -L 4M guest $A
		lvextend -q -L +16M guest/root $B
		lvcreate -q -y -n home -i 2 -I 64k -L 16M guest
		lvcreate -q -y -n swap -L 4M guest
		lvcreate -q -y --type thin-pool -L 8M -n pool guest; lvcreate -q -y -V 32M -T guest/pool -n thin
		for lv in root home; do
			mkfs.ext4 -q -L $lv /dev/guest/$lv; M=$(mktemp -d); mount /dev/guest/$lv $M
			echo $lv > $M/name; dd if=/dev/urandom of=$M/random bs=1M count=6 status=none; umount $M; rmdir $M
		done
		mkswap -q /dev/guest/swap
		dd if=/dev/urandom of=/dev/guest/raw bs=1M count=4 status=none`)
	shell(t, "dd if=/dev/host/g1 of=/dev/host/g2 bs=1M status=none; wipefs -qa /dev/host/back")

	s := newSite(t, "")
	result := s.run(t, 0, "host/g1", "host/g2")
	sumsUp(t, result)
	if seen := lab.Do(t, "vgs", "--noheadings", "-o", "name"); strings.Contains(seen, "guest") {
		t.Errorf("the host sees the guest's volume group: %s", seen)
	}
	var folder string
	for _, volume := range []string{"host/g1", "host/g2"} {
		var m *catalog.Manifest
		folder, m = s.newest(t, volume)
		got := states(m)
		for name, want := range map[string]string{
			"boot": "image", "p1": "lvm LVM2_member", "p2": "lvm LVM2_member",
			"guest/root": "files ext4", "guest/home": "files ext4", "guest/swap": "swap swap", "guest/raw": "image",
			"guest/pool_tdata": "image", "guest/pool_tmeta": "image", "guest/lvol0_pmspare": "image",
		} {
			if got[name] != want {
				t.Errorf("%s: %s is %q, want %q", volume, name, got[name], want)
			}
		}
	}
	free := result.Volumes[0].Ledger.FreeBytes
	if least := int64(20 << 20); free < least {
		t.Errorf("%d bytes are free, want at least those of no logical volume", free)
	}

	byRecipe(t, folder, "/dev/host/back")
	look := `vgchange -q -ay guest >&2; lvs --noheadings -o name,uuid,segtype,size guest; vgs --noheadings -o uuid,seqno guest
		sha1sum < /dev/guest/raw
		for lv in root home; do
			M=$(mktemp -d); mount -o ro /dev/guest/$lv $M; ls -ln --time-style=full-iso $M; (cd $M; sha1sum name random); umount $M; rmdir $M
			blkid -p -o value -s UUID -s LABEL /dev/guest/$lv
		done
		blkid -p -o value -s UUID /dev/guest/swap`
	want := guestVG(t, "/dev/host/g2", look)
	if got := guestVG(t, "/dev/host/back", look); got != want {
		t.Errorf("came back by the recipe as\n%s\nwant\n%s", got, want)
	}
	s.restore(t, 2, "host/g1", "--partition", "p1", "--to-lv", "host/back", "--force")
	shell(t, "dd if=/dev/urandom of=/dev/host/back bs=1M count=148 status=none")
	s.restore(t, 0, "host/g1", "--to-lv", "host/back", "--force")
	if got := guestVG(t, "/dev/host/back", look); got != want {
		t.Errorf("came back as\n%s\nwant\n%s", got, want)
	}
}

// Two copies of one btrfs in one run are read one after the other, and its subvolumes come back as such. A third, which
// this host has mounted, is stored as an image.
func TestLabBtrfsGuests(t *testing.T) {
	lab.VG(t, "tree", 760<<20)
	device := lab.LV(t, "tree", "one", 112<<20)
	shell(t, "mkfs.btrfs -q -f "+device)
	t.Run("fill", func(t *testing.T) {
		shell(t, "cd "+lab.Mount(t, device, "subvolid=5")+`; btrfs -q subvolume create @; echo one > @/file
			btrfs -q subvolume snapshot -r @ snap; echo two > @/file; ln @/file @/name; btrfs subvolume set-default $PWD/@`)
	})
	shell(t, "dd conv=sparse bs=1M status=none if="+device+" of="+lab.LV(t, "tree", "two", 112<<20))
	s := newSite(t, "")
	result := s.run(t, 0)
	sumsUp(t, result)
	folder, _ := s.newest(t, "tree/two")
	for _, v := range []string{"tree/one", "tree/two"} {
		_, m := s.newest(t, v)
		x := m.Extents[0]
		if x.State != catalog.StateFiles || len(x.Filesystem.Subvolumes) != 2 {
			t.Errorf("%s: %+v", v, x)
		}
	}
	back := lab.LV(t, "tree", "back", 112<<20)
	look := func(t *testing.T, device string) string {
		return shell(t, "cd "+lab.Mount(t, device, "subvolid=5")+`; btrfs subvolume get-default . | sed 's/gen [0-9]*//'; btrfs property get snap ro; cat @/file @/name snap/file
			stat -c %h,%i,%n @ snap @/file; find . | sort`)
	}
	var want string
	t.Run("original", func(t *testing.T) { want = look(t, device) })
	t.Run("beside a mounted copy", func(t *testing.T) {
		lab.Mount(t, device, "defaults")
		other := newSite(t, "")
		other.run(t, 0, "tree/two")
		_, m := other.newest(t, "tree/two")
		if x := m.Extents[0]; x.State != catalog.StateImage || !strings.Contains(x.Reason, "mounted") {
			t.Errorf("%+v", x)
		}
	})
	lab.Do(t, "lvremove", "-q", "-y", "tree/one", "tree/two") // mkfs.btrfs gives no UUID that it finds on the host
	t.Run("by hand", func(t *testing.T) {
		byRecipe(t, folder, back)
		if got := look(t, back); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
	})
	lab.Do(t, "lvremove", "-q", "-y", "tree/back")
	s.restore(t, 0, "tree/two")
	t.Run("restored", func(t *testing.T) {
		if got := look(t, "/dev/tree/two"); got != want {
			t.Errorf("came back as\n%s\nwant\n%s", got, want)
		}
	})
}

// quickDisks is how many disks of the corpus are tried where time is short: one of each kind.
const quickDisks = 5

// corpus lists the odd disks of testdata/corpus.sh, with what becomes of their extents. Where only "*" is told, every
// extent is of that state.
var corpus = []struct {
	name    string
	mib     int64
	extents map[string]string
}{
	{"odd-content", 40, map[string]string{
		"boot": "image", "p1": "image crypto_LUKS", "p2": "image linux_raid_member", "p3": "image ntfs", "p4": "image exfat",
		"p5": "image f2fs", "p6": "image", "p7": "image", "p8": "image ext4", "p9": "files ext4", "p10": "swap swap", "p11": "image jfs",
	}},
	{"hybrid-mbr", 16, map[string]string{"boot": "image", "p1": "files ext4", "p2": "image"}},
	{"bsd-disklabel", 16, map[string]string{"boot": "image", "p1": "image", "p2": "files ext4"}},
	{"overlapping", 16, map[string]string{"": "image"}},
	{"wrong-protective-mbr", 16, map[string]string{"boot": "image", "p1": "files ext4"}},
	{"gpt-head-lost", 16, map[string]string{"boot": "image", "p1": "files ext4"}},
	{"gpt-tail-lost", 16, map[string]string{"boot": "image", "p1": "files ext4"}},
	{"gpt-both-lost", 16, map[string]string{"": "image"}},
	{"many-entries", 16, map[string]string{"boot": "image", "p180": "files ext4"}},
	{"many-logicals", 16, map[string]string{"boot": "image", "p1": "image", "p5": "image", "p60": "image"}},
	{"wide-sectors", 16, map[string]string{"boot": "image", "p1": "files ext4"}},
	{"past-the-end", 16, map[string]string{"": "image"}},
	{"whole-over-stale-gpt", 16, map[string]string{"": "files ext4"}},
	{"random", 16, map[string]string{"": "image"}},
}

// Every disk of the corpus is backed up without a failure, what is not mounted as an image that is its bytes, and comes
// back onto a disk that held something else.
func TestLabCorpus(t *testing.T) {
	lab.VG(t, "odd", 700<<20)
	disks := corpus
	if !lab.Slow {
		disks = corpus[:quickDisks]
	}
	for _, disk := range disks {
		shell(t, "sh testdata/corpus.sh "+disk.name+" "+lab.LV(t, "odd", disk.name, disk.mib<<20))
	}
	s := newSite(t, "")
	result := s.run(t, 0)
	sumsUp(t, result)
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			folder, m := s.newest(t, "odd/"+disk.name)
			got := states(m)
			for name, want := range disk.extents {
				if got[name] != want {
					t.Errorf("%q is %q, want %q", name, got[name], want)
				}
			}
			for _, x := range m.Extents {
				if x.State == catalog.StateImage {
					sameBytes(t, filepath.Join(folder, x.Archive), "/dev/odd/"+disk.name, x)
				}
			}
			before := oddFacts(t, "/dev/odd/"+disk.name, m)
			wipe(t, "/dev/odd/"+disk.name)
			s.restore(t, 0, "odd/"+disk.name, "--force")
			before.compare(t, oddFacts(t, "/dev/odd/"+disk.name, m))
		})
	}
}

// oddFacts looks at each extent of a disk whose table no tool may understand, where the manifest says that it is.
func oddFacts(t *testing.T, device string, m *catalog.Manifest) facts {
	t.Helper()
	f := facts{}
	for _, x := range m.Extents {
		switch x.State {
		case catalog.StateFiles, catalog.StateSwap:
			f.addExtent(t, x.Name, device, x.OffsetBytes, x.SizeBytes)
			// The first mount for writing gives a journal its features; the originals were never mounted.
			name := x.Name + " dumpe2fs"
			f[name] = regexp.MustCompile(`(?m)^Journal (features|checksum type):.*\n`).ReplaceAllString(f[name], "")
		default:
			f[x.Name] = shell(t, fmt.Sprintf("dd if=%s bs=1M iflag=skip_bytes,count_bytes skip=%d count=%d status=none | sha1sum",
				device, x.OffsetBytes, x.SizeBytes))
		}
	}
	return f
}

// sameBytes compares an image with what it was made of.
func sameBytes(t *testing.T, image, device string, x catalog.Extent) {
	t.Helper()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stored, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(stored)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	want := make([]byte, x.SizeBytes)
	if _, err := disk.ReadAt(want, x.OffsetBytes); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the image of %q is not what the disk holds", x.Name)
	}
}
