//go:build slow

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
