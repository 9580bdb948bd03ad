package main

import (
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

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
