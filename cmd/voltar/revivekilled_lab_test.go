//go:build slow

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"voltar/internal/journal"
	"voltar/internal/lab"
)

// The restore of a guest is killed outright at many moments. The next command names what it left and cleans up; the same restore with --force
// then brings the guest back, defined once, and nothing else is there. libvirt is the real one.
func TestLabKilledGuestRestores(t *testing.T) {
	lab.Libvirt(t)
	t.Setenv("VIRSH_DEFAULT_CONNECT_URI", "qemu:///system")
	lab.VG(t, "vg", 500<<20)
	lab.Do(t, "lvcreate", "-q", "-y", "--type", "thin-pool", "-L", "100M", "-n", "pool", "vg")
	t.Cleanup(func() { lab.Do(t, "lvremove", "-q", "-y", "vg/pool") })
	root := lab.LV(t, "vg", "web-root", 48<<20)
	lab.Do(t, "lvcreate", "-q", "-y", "-V", "48M", "-T", "vg/pool", "-n", "web-data")
	original := map[string]facts{}
	for _, device := range []string{root, "/dev/vg/web-data"} {
		lab.Do(t, "mkfs.ext4", "-q", device)
		fill(t, device, "ext4")
		original[filepath.Base(device)] = diskFacts(t, device)
	}
	const variables = "/var/lib/libvirt/qemu/nvram/web_VARS.fd"
	writeFile(t, variables, []byte("variables"))
	machine := filepath.Join(t.TempDir(), "web.xml")
	writeFile(t, machine, []byte(strings.Replace(domainFile("web", "dcf47dbd-46d1-4d5b-b442-000000000008", "  <memory unit='MiB'>32</memory>\n"+
		"  <os><type arch='x86_64' machine='pc'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/qemu/bios.bin</loader>"+
		"<nvram>"+variables+"</nvram></os>\n  <features><acpi/></features>\n", root, "/dev/vg/web-data"), "type='kvm'", "type='qemu'", 1)))
	lab.Do(t, "virsh", "define", machine)
	s := newSite(t, "[snapshot]\nmin_size = \"4MiB\"\n")
	s.run(t, 0)
	before := hostState(t)

	command := []string{"restore", "--guest", "web", "--as", "web2", "--define", "--log-level", "debug", "--config", s.config}
	p := start(t, command...)
	steps := 0
	for p.logged.Scan() {
		steps++
	}
	if code := p.wait(t); code != 0 {
		t.Fatalf("%d\n%s", code, &p.stderr)
	}
	checkRevived(t, s, original)
	removeRevived(t)
	if after := hostState(t); after != before {
		t.Fatalf("after the first restore:\n%s\nbefore:\n%s", after, before)
	}

	named := 0
	for i := range kills {
		step := steps * (i + 1) / kills
		for ; ; step-- {
			p := start(t, command...)
			for n := 0; n < step && p.logged.Scan(); n++ {
			}
			p.signal(t, syscall.SIGKILL)
			if code := p.wait(t); code == -1 {
				break
			}
			removeRevived(t)
		}
		unfinished := strings.Contains(lab.Do(t, "lvs", "--noheadings", "-o", "lv_tags", "vg"), journal.TagIncomplete)
		maps := restoreMaps(t)
		_, isDefined := definedGuest("web2")
		code, out, errs := voltar(t, "cleanup", "--config", s.config)
		t.Logf("killed at step %d of %d: defined %t, unfinished %t, %q; cleanup says %q and %q", step, steps, isDefined, unfinished, maps, out, errs)
		if code != 0 || unfinished != strings.Contains(errs, "a restore of this volume was interrupted") || len(maps) > 0 && !strings.Contains(out, "voltar-restore-") {
			t.Errorf("killed at step %d: what is left is not named: %d", step, code)
		}
		if unfinished || len(maps) > 0 {
			named++
		}
		if left := restoreMaps(t); left != nil {
			t.Errorf("killed at step %d: cleanup left %q", step, left)
		}
		// Only what holds something is in the way.
		code, _, errs = voltar(t, command...)
		switch {
		case isDefined && (code != 2 || !strings.Contains(errs, "has a guest web2")), !isDefined && code != 0 && !strings.Contains(errs, "vg/web2-vd"):
			t.Errorf("killed at step %d: what is in the way is not named: %d %s", step, code, errs)
		case !isDefined && code != 0:
			s.restore(t, 0, append(command[1:], "--force")...)
		}
		checkRevived(t, s, original)
		removeRevived(t)
		if after := hostState(t); after != before {
			t.Fatalf("killed at step %d of %d, what is there at last:\n%s\nbefore:\n%s", step, steps, after, before)
		}
	}
	if named < kills/3 {
		t.Errorf("%d of %d kills left anything: the test has tested little", named, kills)
	}
}

// definedGuest returns libvirt's own file of a guest.
func definedGuest(name string) (content string, isDefined bool) {
	text, err := os.ReadFile("/etc/libvirt/qemu/" + name + ".xml")
	return string(text), err == nil
}

// checkRevived looks whether web2 is what web was, and whether anything unfinished is left.
func checkRevived(t *testing.T, s site, original map[string]facts) {
	t.Helper()
	original["web-root"].compare(t, diskFacts(t, "/dev/vg/web2-vda"))
	original["web-data"].compare(t, diskFacts(t, "/dev/vg/web2-vdb"))
	checkIncomplete(t, "vg/web2-vda", false)
	checkIncomplete(t, "vg/web2-vdb", false)
	content, _ := definedGuest("web2")
	for _, want := range []string{"<source dev='/dev/vg/web2-vda'/>", "<source dev='/dev/vg/web2-vdb'/>", "/nvram/web2_VARS.fd"} {
		if !strings.Contains(content, want) {
			t.Errorf("the definition lacks %s:\n%s", want, content)
		}
	}
	if text, err := os.ReadFile("/var/lib/libvirt/qemu/nvram/web2_VARS.fd"); err != nil || string(text) != "variables" {
		t.Errorf("%v, %q", err, text)
	}
	for _, folder := range []string{s.dir, "/var/lib/libvirt", "/etc/libvirt"} {
		if left := lab.Do(t, "find", folder, "-name", "*.voltar-tmp-*"); left != "" {
			t.Errorf("unfinished files: %s", left)
		}
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "state/journal/*")); err != nil || len(left) > 0 {
		t.Errorf("journals: %q %v", left, err)
	}
	if folders, err := filepath.Glob(filepath.Join(s.dir, "state/guests/*/domain.xml")); err != nil || len(folders) != 1 {
		t.Errorf("definitions in the state: %q %v", folders, err)
	}
}

// removeRevived removes web2 from the host.
func removeRevived(t *testing.T) {
	t.Helper()
	lab.Do(t, "virsh", "undefine", "--nvram", "web2")
	lab.Do(t, "lvremove", "-q", "-y", "vg/web2-vda", "vg/web2-vdb")
}
