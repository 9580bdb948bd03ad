package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"voltar/internal/lab"
)

// A machine of Proxmox VE comes back in part, without its definition, and from a store that somebody else wrote to. Another machine never gets a disk
// of the old one, and what is called defined is.
func TestLabGuestInPart(t *testing.T) {
	lab.VG(t, "vg", 340<<20)
	const configs = "/etc/pve/qemu-server/"
	lab.Do(t, "sh", "-c", "mkdir -p /etc/pve/local/qemu-server /etc/pve/local/lxc && ln -s local/qemu-server /etc/pve/qemu-server && ln -s local/lxc /etc/pve/lxc")
	t.Cleanup(func() { _ = os.RemoveAll("/etc/pve") })
	writeFile(t, "/etc/pve/storage.cfg", []byte("lvm: local-lvm\n\tvgname vg\n\tcontent images\n"))
	names := []string{"vm-101-disk-0", "vm-101-disk-1", "raw"}
	for _, name := range append(names, "vm-101-disk-3") {
		device := lab.LV(t, "vg", name, 16<<20)
		lab.Do(t, "mkfs.ext4", "-q", device)
		fill(t, device, "ext4")
	}
	const machine = "name: web one\nnet0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0\nscsi0: local-lvm:vm-101-disk-0,size=16M\nscsi1: local-lvm:vm-101-disk-1,size=16M\n" +
		"scsi2: /dev/vg/raw\nscsi3: local-lvm:vm-101-disk-3,size=16M\n"
	writeFile(t, configs+"101.conf", []byte(machine))
	s := newSite(t, "[snapshot]\nmin_size = \"4MiB\"\n[select]\nexclude = [\"vg/vm-101-disk-3\"]\n")
	s.run(t, 0)
	volumes := func() string { return lab.Do(t, "lvs", "--noheadings", "-o", "lv_name", "vg") }
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	revive := func(t *testing.T, code int, args ...string) guestRestore {
		t.Helper()
		out, _ := s.restore(t, code, append(args, "--json")...)
		var got guestRestore
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, d := range got.Disks {
			t.Cleanup(func() { lab.Do(t, "lvremove", "-q", "-y", strings.TrimPrefix(d.Target, "volume ")) })
		}
		return got
	}
	noted := func(t *testing.T, got guestRestore, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if notes := strings.Join(got.Notes, "\n"); !strings.Contains(notes, text) {
				t.Errorf("no note says %q:\n%s", text, notes)
			}
		}
	}
	t.Run("a disk in no backup", func(t *testing.T) {
		got := revive(t, 0, "--guest", "web one", "--as", "205", "--define")
		conf := read(configs + "205.conf")
		if !got.Defined || strings.Contains(conf, "101-disk") || !strings.Contains(conf, "scsi0: local-lvm:vm-205-disk-0,") || !strings.Contains(conf, "scsi2: /dev/vg/vm-205-disk-2\n") {
			t.Errorf("%t\n%s", got.Defined, conf)
		}
		noted(t, got, "the disk scsi3 is in no backup: it is not in the definition")
	})
	t.Run("one disk", func(t *testing.T) {
		got := revive(t, 0, "--guest", "web one:scsi0", "--as", "206", "--define")
		if conf := read(configs + "206.conf"); !got.Defined || strings.Contains(conf, "scsi1") || strings.Contains(conf, "/dev/vg/raw") {
			t.Errorf("%t\n%s", got.Defined, conf)
		}
		noted(t, got, "the disk scsi1 is not asked for", "the disk scsi2 is not asked for")
	})
	t.Run("a definition is there", func(t *testing.T) {
		writeFile(t, configs+"101.conf", []byte("name: changed\nscsi0: local-lvm:vm-101-disk-0\n"))
		out, _ := s.restore(t, 0, "--guest", "101", "--force", "--define")
		if strings.Contains(out, "and defined") || !strings.Contains(out, "stays as it is") || !strings.HasPrefix(read(configs+"101.conf"), "name: changed\n") {
			t.Errorf("%s", out)
		}
		// One that voltar does not look for.
		text := read(s.config)
		writeFile(t, s.config, []byte(text+"[guests]\nproxmox = false\n"))
		out, errs := s.restore(t, 1, "--guest", "101", "--force", "--define")
		if strings.Contains(out, "and defined") || !strings.Contains(errs, "101.conf") || !strings.HasPrefix(read(configs+"101.conf"), "name: changed\n") {
			t.Errorf("%s\n%s", out, errs)
		}
		writeFile(t, s.config, []byte(text))
		writeFile(t, configs+"101.conf", []byte(machine))
	})
	t.Run("room for one and not for all", func(t *testing.T) {
		free := strings.TrimSpace(lab.Do(t, "vgs", "--noheadings", "--nosuffix", "--units", "m", "-o", "vg_free", "vg"))
		megabytes, _, _ := strings.Cut(free, ".")
		lab.Do(t, "sh", "-c", `lvcreate -q -y -W n -L $(($1 - 36))M -n filler vg`, "sh", megabytes)
		defer lab.Do(t, "lvremove", "-q", "-y", "vg/filler")
		before := volumes()
		_, errs := s.restore(t, 1, "--guest", "101", "--as", "207")
		if after := volumes(); after != before || !strings.Contains(errs, "of which the other disks take 32") || !strings.Contains(errs, "--vg") || strings.Contains(errs, "--to-lv") {
			t.Errorf("%s\n%s\n%s", before, after, errs)
		}
	})
	if _, errs := s.restore(t, 2, "--guest", "101", "--as", "207", "--vg", "none"); !strings.Contains(errs, "give --vg NAME, of one of") {
		t.Errorf("%s", errs)
	}
	reviveDamaged(t, s, names, revive, noted)
}

// reviveDamaged brings a machine back whose definitions are damaged one after the other, and then lie.
func reviveDamaged(
	t *testing.T, s site, names []string, revive func(*testing.T, int, ...string) guestRestore, noted func(*testing.T, guestRestore, ...string),
) {
	for i, name := range names {
		found, err := filepath.Glob(filepath.Join(s.backups, "volume-host/vg", name, "*", name+".guest.tar.gz"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%q %v", found, err)
		}
		content, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 4
		writeFile(t, found[0], content)
		if i == 0 {
			noted(t, revive(t, 0, "--guest", "101", "--as", "208"), "another copy of the definition was taken")
		}
	}
	if _, errs := s.restore(t, 1, "--guest", "101", "--as", "209", "--define"); !strings.Contains(errs, "leave --define out") {
		t.Errorf("%s", errs)
	}
	got := revive(t, 0, "--guest", "101", "--as", "209")
	if noted(t, got, "no definition of the guest can be read"); len(got.Disks) != 3 || got.Definition != "" || len(got.Commands) > 0 {
		t.Errorf("%+v", got)
	}
	if code, out, errs := voltar(t, "drill", "vg/"+names[0], "--config", s.config); code == 0 || !strings.Contains(out+errs, names[0]+".guest.tar.gz") {
		t.Errorf("a drill of a backup whose definition is damaged: %d\n%s\n%s", code, out, errs)
	}
	for _, name := range names {
		manifests, err := filepath.Glob(filepath.Join(s.backups, "volume-host/vg", name, "*", "manifest.json"))
		if err != nil || len(manifests) != 1 {
			t.Fatalf("%q %v", manifests, err)
		}
		content, err := os.ReadFile(manifests[0])
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, manifests[0], bytes.Replace(content, []byte(`"101"`), []byte(`"../../../../../etc/precious"`), 1))
	}
	writeFile(t, "/etc/precious.conf", []byte("precious"))
	s.restore(t, 1, "--guest", "web one", "--force")
	if text, err := os.ReadFile("/etc/precious.conf"); err != nil || string(text) != "precious" {
		t.Errorf("%q %v", text, err)
	}
}
