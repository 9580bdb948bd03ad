package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

// domainFile is libvirt's definition of a machine with some disks, vda and on.
func domainFile(name, uuid, more string, devices ...string) string {
	text := "<domain type='kvm'>\n  <name>" + name + "</name>\n  <uuid>" + uuid + "</uuid>\n" + more + "  <devices>\n"
	for i, device := range devices {
		text += fmt.Sprintf("    <disk type='block' device='disk'><source dev='%s'/><target dev='vd%c'/></disk>\n", device, 'a'+i)
	}
	return text + "    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n  </devices>\n</domain>\n"
}

// The disks of libvirt's machines bear their names, are of one moment, and have the definition beside them: machines of one, two and ten
// disks, thin and classic, one undefined in between, one renamed, two with the same disk, and one that was never defined.
func TestLabGuestsOfLibvirt(t *testing.T) {
	lab.VG(t, "vg", 700<<20)
	lab.Do(t, "lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "64M", "-n", "pool", "vg")
	t.Cleanup(func() { lab.Do(t, "lvremove", "-q", "-y", "vg/pool") })
	devices := map[string]string{"one": lab.LV(t, "vg", "one", 8<<20), "web-root": lab.LV(t, "vg", "web-root", 8<<20), "of-nobody": lab.LV(t, "vg", "of-nobody", 8<<20)}
	var ten []string
	thin := []string{"web-data", "transient"}
	for i := range 10 {
		thin = append(thin, fmt.Sprintf("ten-%d", i))
		ten = append(ten, fmt.Sprintf("/dev/mapper/vg-ten--%d", i))
	}
	for _, name := range thin {
		lab.Do(t, "lvcreate", "-q", "-y", "-V", "8M", "-T", "vg/pool", "-n", name)
		devices[name] = "/dev/vg/" + name
	}
	for _, device := range devices {
		lab.Do(t, "mkswap", "-q", device)
	}
	defined, live := "/etc/libvirt/qemu", "/run/libvirt/qemu"
	for _, folder := range []string{defined, live} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
	}
	id := func(n int) string { return fmt.Sprintf("dcf47dbd-46d1-4d5b-b442-%012d", n) }
	nvram := filepath.Join(t.TempDir(), "web_VARS.fd")
	writeFile(t, nvram, []byte("variables"))
	web := func(name string) string {
		return domainFile(name, id(2), "  <os><nvram>"+nvram+"</nvram></os>\n", devices["web-root"], "/dev/disk/by-id/dm-name-vg-web--data")
	}
	writeFile(t, defined+"/one.xml", []byte(domainFile("one", id(1), "", devices["one"])))
	writeFile(t, defined+"/web.xml", []byte(web("web")))
	writeFile(t, defined+"/ten.xml", []byte(domainFile("ten", id(3), "", ten...)))
	writeFile(t, live+"/transient.xml", []byte("<domstatus state='running' pid='1'>\n"+domainFile("transient", id(4), "", devices["transient"])+"</domstatus>\n"))
	sealed := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "[[destination]]\nname = \"sealed\"\ntype = \"disk\"\nrequire_mount = \"none\"\npath = \""+sealed+"\"\nrecipients = [\""+
		identity.Recipient().String()+"\"]\n[guests]\nconsistency = \"freeze\"\n[snapshot]\nmin_size = \"4MiB\"\n")
	result := s.run(t, 0)
	guestOf := map[string]string{"vg/one": "one:vda", "vg/web-root": "web:vda", "vg/web-data": "web:vdb", "vg/transient": "transient:vda", "vg/ten-9": "ten:vdj"}
	for name, want := range guestOf {
		v := wantStatus(t, result, name, report.VolumeOK)
		m := manifest(t, s.backupsOf(t, name)[0])
		if g := m.Source.Guest; g == nil || g.String() != want || v.Guest == nil || v.Guest.Disk != g.Disk || v.Guest.DefinitionChanged {
			t.Errorf("%s is of %+v and %+v, want %s", name, g, v.Guest, want)
		}
		if isGrouped := strings.HasPrefix(want, "web") || strings.HasPrefix(want, "ten"); isGrouped != (m.Quiesce.Group != "") {
			t.Errorf("%s: %+v", name, m.Quiesce)
		}
		// virsh is not here: what runs is backed up, and warned of.
		if warned := strings.Contains(fmt.Sprint(v.Warnings), "virsh"); warned != (name == "vg/transient") {
			t.Errorf("%s: %+v", name, v.Warnings)
		}
		out := lab.Do(t, "tar", "-tzf", filepath.Join(s.backupsOf(t, name)[0], m.Definition))
		if !strings.Contains(out, "domain.xml") || strings.Contains(out, "files"+nvram) != strings.HasPrefix(want, "web") {
			t.Errorf("%s: the definition has %s", name, out)
		}
	}
	if v := wantStatus(t, result, "vg/of-nobody", report.VolumeOK); v.Guest != nil {
		t.Errorf("%+v", v.Guest)
	}
	// What defines a machine may hold passwords: nothing of it is open where backups are encrypted.
	if found, err := filepath.Glob(sealed + "/volume-host/vg/web-root/*/web-root.guest.tar.gz*"); err != nil || len(found) != 1 || filepath.Ext(found[0]) != ".age" {
		t.Errorf("%q, %v", found, err)
	}
	if code, out, errs := voltar(t, "verify", "--full", "--all", "--config", s.config); code != 0 {
		t.Errorf("verify: %d %s %s", code, out, errs)
	}
	_, out, _ := voltar(t, "volumes", "--config", s.config)
	for _, want := range []string{"web:vdb", "of no guest", "ten:vda"} {
		if !strings.Contains(out, want) {
			t.Errorf("volumes lack %q:\n%s", want, out)
		}
	}

	// One is undefined, one renamed, and one gets the disk of another.
	if err := os.Remove(defined + "/one.xml"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(defined + "/web.xml"); err != nil {
		t.Fatal(err)
	}
	writeFile(t, defined+"/shop.xml", []byte(web("shop")))
	writeFile(t, defined+"/thief.xml", []byte(domainFile("thief", id(5), "", devices["web-root"])))
	result = s.run(t, 0, "shop", "one")
	for _, v := range result.Volumes {
		if changed := v.Guest != nil && v.Guest.DefinitionChanged; changed != (v.Name != "vg/one") || (v.Guest == nil) != (v.Name == "vg/one") {
			t.Errorf("%s: %+v", v.Name, v.Guest)
		}
	}
	if len(result.Volumes) != 3 || !strings.Contains(fmt.Sprint(result.Warnings), "vg/web-root is a disk of two guests") {
		t.Errorf("%d volumes, %+v", len(result.Volumes), result.Warnings)
	}
	code, out, errs := voltar(t, "list", "shop", "--json", "--config", s.config)
	var lines []catalog.Line
	if err := json.Unmarshal([]byte(out), &lines); err != nil || code != 0 {
		t.Fatalf("%d %v %s", code, err, errs)
	}
	names := []string{}
	for _, l := range lines {
		names = append(names, l.Guest.String())
	}
	slices.Sort(names)
	if names = slices.Compact(names); !slices.Equal(names, []string{"shop:vda", "shop:vdb", "web:vda", "web:vdb"}) {
		t.Errorf("listed: %q", names)
	}
}
