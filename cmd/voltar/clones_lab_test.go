package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// Ten guests of one template, with volume groups of one name and the same UUIDs, all at once: each backup has its own
// guest's files, and the host's LVM never sees a guest's.
func TestLabTenClonesAtOnce(t *testing.T) {
	const clones, bytes = 10, 16 * mib
	lab.VG(t, "host", 2*clones*bytes+64*mib)
	template := lab.LV(t, "host", "g0", bytes)
	shell(t, `D=$(losetup -f --show "$1"); trap 'vgchange -q -an guest >&2 || :; losetup -d $D' EXIT
		pvcreate -q $D; vgcreate -q guest $D; lvcreate -q -y -n root -L 8M guest; lvcreate -q -y -n swap -L 4M guest
		mkfs.ext4 -q /dev/guest/root; mkswap -q /dev/guest/swap`, template)
	for i := range clones {
		if i > 0 {
			shell(t, `dd if="$1" of="$2" bs=1M status=none`, template, lab.LV(t, "host", fmt.Sprintf("g%d", i), bytes))
		}
	}
	for i := range clones { // its first extent begins at 1 MiB
		shell(t, `echo "$2" >/tmp/name; debugfs -w -R "write /tmp/name name" "/dev/host/g$2?offset=1048576" 2>/dev/null`, "", fmt.Sprint(i))
	}
	s := newSite(t, "")
	prepend(t, s.config, "parallel = 10")
	before := hostState(t)
	end, seen := make(chan struct{}), make(chan string)
	go func() {
		var all strings.Builder
		for {
			out, err := exec.Command("pvs", "--noheadings", "-o", "vg_name,pv_name").CombinedOutput()
			fmt.Fprintln(&all, string(out), err)
			select {
			case <-end:
				seen <- all.String()
				return
			default:
			}
		}
	}()
	result := s.run(t, 0)
	close(end)
	if text := <-seen; strings.Contains(text, "guest") || !strings.Contains(text, "host") || strings.Contains(text, "exit status") {
		t.Errorf("the host saw\n%s", text)
	}
	if after := hostState(t); after != before {
		t.Errorf("after the run:\n%s\nbefore:\n%s", after, before)
	}
	for i := range clones {
		name := fmt.Sprintf("host/g%d", i)
		wantStatus(t, result, name, report.VolumeOK)
		folder, m := s.newest(t, name)
		for _, x := range m.Extents {
			if x.LV == nil || x.LV.Name != "root" {
				continue
			}
			if x.State != catalog.StateFiles {
				t.Fatalf("%s: %+v", name, x)
			}
			if got := shell(t, "tar -xzOf "+filepath.Join(folder, x.Archive)+" name"); got != fmt.Sprintln(i) {
				t.Errorf("the backup of %s has the file of %q", name, got)
			}
		}
	}
}

// A volume group of a guest that lies on two volumes of the host: each comes back as an image. In a consistency group, too, the
// one has its backup though the other fails, whose snapshot overflows when everything has been read.
func TestLabGuestVGOverTwoVolumes(t *testing.T) {
	lab.VG(t, "host", 160*mib)
	first, second := lab.LV(t, "host", "a", 16*mib), lab.LV(t, "host", "b", 16*mib)
	onGuest := func(script string) string {
		t.Helper()
		return shell(t, `A=$(losetup -f --show "$1"); B=$(losetup -f --show "$2"); trap 'vgchange -q -an guest >&2 || :; losetup -d $A; losetup -d $B' EXIT
			`+script, first, second)
	}
	onGuest(`pvcreate -q $A $B; vgcreate -q guest $A $B; lvcreate -q -y -n data -i 2 -L 16M guest; mkfs.ext4 -q /dev/guest/data
		M=$(mktemp -d); mount /dev/guest/data $M; dd if=/dev/urandom of=$M/random bs=1M count=8 status=none; umount $M`)
	look := `vgchange -q -ay guest >&2; e2fsck -fn /dev/guest/data >/dev/null 2>&1; M=$(mktemp -d); mount -o ro /dev/guest/data $M; sha1sum <$M/random; umount $M`
	want := onGuest(look)
	const group = "[[group]]\nname = \"guest\"\nvolumes = [\"host/*\"]\n"
	overflows := newSite(t, group+`[snapshot]
size = "8MiB"
min_size = "8MiB"
poll_interval = "1h"
[[dump]]
name = "writer"
volumes = ["b"]
command = ["sh", "-c", "dd if=/dev/host/b of=/dev/host/b bs=1M conv=notrunc iflag=direct oflag=direct status=none; echo written"]
`)
	result := overflows.run(t, exitAttention)
	wantStatus(t, result, "host/a", report.VolumeOK)
	if _, m := overflows.newest(t, "host/a"); m.Extents[0].State != catalog.StateImage {
		t.Errorf("%+v", m.Extents[0])
	}
	if v := wantStatus(t, result, "host/b", report.VolumeFailed); v.Error == nil || !strings.Contains(v.Error.Message, "snapshot overflowed") {
		t.Errorf("host/b: %+v", v.Error)
	}
	if left := overflows.backupsOf(t, "host/b"); len(left) > 0 {
		t.Errorf("published all the same: %q", left)
	}

	s := newSite(t, "")
	result = s.run(t, 0)
	for _, name := range []string{"a", "b"} {
		_, m := s.newest(t, "host/"+name)
		if x := m.Extents[0]; x.State != catalog.StateImage || !strings.Contains(x.Reason, "a [[group]] takes them at one moment") {
			t.Errorf("%s: %+v", name, x)
		}
	}
	for _, name := range []string{"a", "b"} {
		wantStatus(t, result, "host/"+name, report.VolumeOK)
		lab.Do(t, "lvremove", "--force", "--yes", "host/"+name)
		s.restore(t, 0, "host/"+name)
	}
	if got := onGuest(look); got != want {
		t.Errorf("came back as %s, want %s", got, want)
	}
}
