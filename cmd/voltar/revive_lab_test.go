package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
)

// A machine of two disks comes back beside itself as another one, with all that was on its disks and a definition that libvirt takes. It does
// not come back over itself while it runs; killed on its way, it comes back with --force.
func TestLabGuestComesBack(t *testing.T) {
	lab.VG(t, "vg", 700<<20)
	lab.Do(t, "lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "160M", "-n", "pool", "vg")
	t.Cleanup(func() { lab.Do(t, "lvremove", "-q", "-y", "vg/pool") })
	root := lab.LV(t, "vg", "web-root", 64<<20)
	lab.Do(t, "lvcreate", "-q", "-y", "-V", "64M", "-T", "vg/pool", "-n", "web-data")
	before := map[string]facts{}
	for _, device := range []string{root, "/dev/vg/web-data"} {
		lab.Do(t, "mkfs.ext4", "-q", device)
		fill(t, device, "ext4")
		dir := t.TempDir()
		lab.Do(t, "sh", "-c", `mount "$1" "$2" && head -c 30M /dev/urandom >"$2"/noise && umount "$2"`, "sh", device, dir)
		before[filepath.Base(device)] = diskFacts(t, device)
	}
	defined, live := "/etc/libvirt/qemu", "/run/libvirt/qemu"
	for _, folder := range []string{defined, live, "/var/lib/libvirt/qemu/nvram"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
	}
	const id = "6695eb01-f6a4-8304-79aa-97f2502e193f" // that of the guest that virsh's test driver has
	writeFile(t, "/var/lib/libvirt/qemu/nvram/web_VARS.fd", []byte("variables"))
	machine := domainFile("web", id, "  <memory unit='MiB'>64</memory>\n  <os><type arch='x86_64'>hvm</type><loader readonly='yes' type='pflash'>/x</loader>"+
		"<nvram>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram></os>\n"+
		"  <sysinfo type='smbios'><system><entry name='uuid'>"+id+"</entry></system></sysinfo>\n", root, "/dev/vg/web-data")
	machine = strings.Replace(machine, "type='kvm'", "type='test'", 1)
	writeFile(t, defined+"/web.xml", []byte(machine))
	s := newSite(t, "[snapshot]\nmin_size = \"4MiB\"\n")
	s.run(t, 0)

	writeFile(t, live+"/web.xml", []byte("<domstatus state='running' pid='1'>\n"+machine+"</domstatus>\n"))
	if _, errs := s.restore(t, 2, "--guest", "web", "--force"); !strings.Contains(errs, "runs on this host") || !strings.Contains(errs, "--as NAME") {
		t.Errorf("%s", errs)
	}
	if out, _ := s.restore(t, 0, "--guest", "web", "--as", "web2", "--dry-run"); !strings.Contains(out, "web:vda becomes vg/web2-vda.") {
		t.Errorf("%s", out)
	}
	s.stopMidway(t, unix.SIGKILL, "--guest", "web", "--as", "web2")
	out, _ := s.restore(t, 0, "--guest", "web", "--as", "web2", "--force", "--json")
	var got guestRestore
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Disks) != 2 || got.Defined || len(got.Commands) != 2 || len(got.Notes) > 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	before["web-root"].compare(t, diskFacts(t, "/dev/vg/web2-vda"))
	before["web-data"].compare(t, diskFacts(t, "/dev/vg/web2-vdb"))
	if left := restoreMaps(t); left != nil {
		t.Errorf("left: %v", left)
	}
	checkIncomplete(t, "vg/web2-vda", false)
	definition, err := os.ReadFile(filepath.Join(got.Definition, "domain.xml"))
	if err != nil || strings.Contains(string(definition), id) || !strings.Contains(string(definition), "<source dev='/dev/vg/web2-vdb'/>") {
		t.Errorf("%v\n%s", err, definition)
	}
	// Its name means its disks wherever backups are named: those of one moment, where they are tried or forgotten.
	if code, out, errs := voltar(t, "drill", "web", "--config", s.config); code != 0 || strings.Count(out, ": proven") != 2 {
		t.Errorf("drill: %d\n%s\n%s", code, out, errs)
	}
	if code, out, errs := voltar(t, "forget", "web", "--config", s.config); code != 0 || strings.Count(out, "kept") < 2 {
		t.Errorf("forget, with the volumes here: %d\n%s\n%s", code, out, errs)
	}
	if lab.Slow { // a real virsh, whose test driver knows nothing of this host, takes the definition and shows the disks
		t.Setenv("VIRSH_DEFAULT_CONNECT_URI", "test:///default")
		disks := lab.Do(t, "virsh", "define "+got.Definition+"/domain.xml; domblklist web2")
		if !strings.Contains(disks, "/dev/vg/web2-vda") || !strings.Contains(disks, "/dev/vg/web2-vdb") {
			t.Errorf("libvirt sees\n%s", disks)
		}
		if out, errs := s.restore(t, 0, "--guest", "web", "--as", "web3", "--define"); !strings.Contains(out, "web is back, and defined") {
			t.Errorf("%s\n%s", out, errs)
		}
		if text, err := os.ReadFile("/var/lib/libvirt/qemu/nvram/web3_VARS.fd"); err != nil || string(text) != "variables" {
			t.Errorf("%v, %s", err, text)
		}
		if out, _ := s.restore(t, 0, "--guest", "web", "--as", "web3", "--define", "--force"); !strings.Contains(out, "web3_VARS.fd is there already, and stays") {
			t.Errorf("%s", out)
		}
	}
	if lab.Slow { // libvirt has a guest of that UUID, and voltar does not look for it
		text, err := os.ReadFile(s.config)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, s.config, append(text, "[guests]\nlibvirt = false\n"...))
		if out, errs := s.restore(t, 1, "--guest", "web", "--force", "--define"); strings.Contains(out, "and defined") || !strings.Contains(errs, "stays as it is") {
			t.Errorf("%s\n%s", out, errs)
		}
		writeFile(t, s.config, text)
	}
	lab.Do(t, "lvremove", "-q", "-y", "vg/web-root", "vg/web-data")
	t.Run("on another host", func(t *testing.T) { reviveElsewhere(t, s, before, defined, live) })
	if code, out, errs := voltar(t, "forget", "web", "--config", s.config); code != 0 || strings.Count(out, "removed") != 2 {
		t.Errorf("forget: %d\n%s\n%s", code, out, errs)
	}
	s.restore(t, 1, "--guest", "web", "--as", "web4")
}

// A guest comes back on a host that has the store and nothing else: no configuration, no state, no definition, and another volume group.
func reviveElsewhere(t *testing.T, s site, before map[string]facts, sources ...string) {
	const state = "/var/lib/voltar"
	hide := map[string]string{filepath.Join(s.dir, "state"): s.dir + "/hidden-state", s.config: s.config + ".hidden"}
	for _, path := range append(sources, state) {
		hide[path] = path + ".hidden"
	}
	for path, to := range hide {
		if err := os.Rename(path, to); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(path); err != nil {
				t.Error(err)
			}
			if err := os.Rename(to, path); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		})
	}
	lab.VG(t, "other", 160<<20)
	command := []string{"restore", "--guest", "web", "--from", s.backups + "/", "--host", "volume-host", "--vg", "other"}
	// Its disks were thin and not, and here is no pool: that is told before the first volume is made.
	if code, _, errs := voltar(t, command...); code != 2 || !strings.Contains(errs, "no thin pool other/pool") || !strings.Contains(errs, "--classic") {
		t.Errorf("%d %s", code, errs)
	}
	if made := lab.Do(t, "lvs", "--noheadings", "other"); made != "" {
		t.Errorf("made: %s", made)
	}
	code, out, errs := voltar(t, append(command, "--classic", "--json")...)
	var got guestRestore
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || len(got.Disks) != 2 || !strings.HasPrefix(got.Definition, state) {
		t.Fatalf("%d %v\n%s\n%s", code, err, out, errs)
	}
	before["web-root"].compare(t, diskFacts(t, "/dev/other/web-root"))
	before["web-data"].compare(t, diskFacts(t, "/dev/other/web-data"))
	definition, err := os.ReadFile(filepath.Join(got.Definition, "domain.xml"))
	if err != nil || !strings.Contains(string(definition), "<name>web</name>") || !strings.Contains(string(definition), "<source dev='/dev/other/web-data'/>") {
		t.Errorf("%v\n%s", err, definition)
	}
	if len(got.Commands) == 0 || !strings.Contains(got.Commands[len(got.Commands)-1], "virsh define ") {
		t.Errorf("%q", got.Commands)
	}
}
