//go:build slow

package guests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/hostcmd"
	"voltar/internal/lab"
	"voltar/lvm"
)

func TestMain(m *testing.M) {
	os.Exit(lab.Main(m, lab.Options{Layers: func(ctx context.Context) ([]string, error) {
		return lab.Debs(ctx, lab.LibvirtDebs...)
	}}))
}

// A real libvirtd defines, renames and runs machines, and its files say of each disk what it says itself.
func TestLabRealLibvirt(t *testing.T) {
	lab.VG(t, "vg", 400<<20)
	lab.Do(t, "lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "64M", "-n", "pool", "vg")
	t.Cleanup(func() { lab.Do(t, "lvremove", "-q", "-y", "vg/pool") })
	xml := func(name string, id int, devices ...string) string {
		text := fmt.Sprintf("<domain type='qemu'><name>%s</name><uuid>dcf47dbd-46d1-4d5b-b442-%012d</uuid><memory unit='MiB'>32</memory>"+
			"<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>", name, id)
		for i, device := range devices {
			text += fmt.Sprintf("<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='%s'/><target dev='vd%c' bus='virtio'/></disk>",
				device, 'a'+i)
		}
		return text + "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"
	}
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	classic := []string{lab.LV(t, "vg", "one", 4<<20), lab.LV(t, "vg", "two-a", 4<<20), lab.LV(t, "vg", "runs", 4<<20)}
	var ten []string
	for i := range 10 {
		lab.Do(t, "lvcreate", "-q", "-y", "-V", "4M", "-T", "vg/pool", "-n", fmt.Sprintf("ten-%d", i))
		ten = append(ten, fmt.Sprintf("/dev/mapper/vg-ten--%d", i))
	}
	lab.Libvirt(t)
	virsh := func(args ...string) string {
		t.Helper()
		return lab.Do(t, "virsh", append([]string{"-c", "qemu:///system"}, args...)...)
	}
	virsh("define", file("one.xml", xml("one", 1, classic[0])))
	virsh("define", file("two.xml", xml("two", 2, classic[1], ten[0])))
	virsh("define", file("ten.xml", xml("ten", 3, ten[1:]...)))
	virsh("create", file("runs.xml", xml("runs", 4, classic[2])))
	virsh("domrename", "two", "renamed")
	virsh("undefine", "one")
	runner := hostcmd.New(hostcmd.Options{})
	inventory, err := lvm.New(runner, lvm.Options{}).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, troubles := Find(t.Context(), Sources{Libvirt: true, Runner: runner}, inventory)
	if len(troubles) > 0 {
		t.Errorf("%+v", troubles)
	}
	var names []string
	for _, g := range found.Guests {
		names = append(names, g.Name)
		listed := virsh("domblklist", g.ID)
		for _, d := range g.Disks {
			if !strings.Contains(listed, d.Name) || !strings.Contains(listed, d.LV) && !strings.Contains(listed, strings.ReplaceAll(d.LV, "-", "--")) {
				t.Errorf("%s:%s is %s, and libvirt has\n%s", g.Name, d.Name, d.Volume(), listed)
			}
		}
		if disks := strings.Count(listed, "/dev/"); disks != len(g.Disks) {
			t.Errorf("%s has %d disks, and libvirt says\n%s", g.Name, len(g.Disks), listed)
		}
		if runs := g.Name == "runs"; g.Running != runs || g.Transient != runs {
			t.Errorf("%s: running %t, transient %t", g.Name, g.Running, g.Transient)
		}
		// What is kept of it defines it again.
		if g.Transient {
			virsh("destroy", g.ID)
		} else {
			virsh("undefine", g.ID)
		}
		virsh("define", file("again.xml", string(g.Definition[0].Content)))
	}
	if got := strings.Join(names, " "); got != "renamed runs ten" {
		t.Errorf("guests: %s", got)
	}
}
