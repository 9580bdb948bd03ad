package revive

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/guests"
	"voltar/internal/say"
)

const domainXML = `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web1</name>
  <uuid>dcf47dbd-46d1-4d5b-b442-000000000002</uuid>
  <metadata><x:note xmlns:x="urn:x"><name>web1</name></x:note></metadata>
  <os><type>hvm</type><nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/web1_VARS.fd</nvram></os>
  <devices>
    <!-- <source dev='/dev/vg/commented'/> -->
    <disk type="block" device="disk"><source  startupPolicy='x'
        dev = "/dev/vg/web1-root" /><target dev="vda" bus="virtio"/></disk>
    <disk type='block' device='disk'><target dev='vdb'/><source dev='/dev/mapper/vg-web1--data'/></disk>
    <disk type='file' device='disk'><source file='/srv/more.qcow2'/><target dev='vdc'/></disk>
    <disk type='file' device='cdrom'><source file='/srv/install.iso'/><target dev='sda'/></disk>
    <interface type='bridge'><mac address='52:54:00:aa:bb:cc'/><source bridge='br0'/></interface>
  </devices>
</domain>
`

// What changes is what must, and all the rest stays byte for byte.
func TestDomainIsRewritten(t *testing.T) {
	devices := map[string]string{"vda": "/dev/vg/web2-vda", "vdb": "/dev/vg/a&b"}
	same, nvram, unknown, err := rewriteDomain([]byte(domainXML), "", devices)
	want := strings.NewReplacer(`"/dev/vg/web1-root"`, `"/dev/vg/web2-vda"`, "/dev/mapper/vg-web1--data", "/dev/vg/a&amp;b").Replace(domainXML)
	if err != nil || nvram != "" || string(same) != want || !slices.Equal(unknown, []string{"vdc"}) {
		t.Errorf("as itself: %v, %q, %q\n%s", err, nvram, unknown, same)
	}
	other, nvram, _, err := rewriteDomain([]byte(domainXML), "web2", devices)
	if err != nil || nvram != "/var/lib/libvirt/qemu/nvram/web2_VARS.fd" {
		t.Errorf("%v, %q", err, nvram)
	}
	for _, change := range []struct{ before, after string }{
		{"  <name>web1</name>\n  <uuid>dcf47dbd-46d1-4d5b-b442-000000000002</uuid>", `  <name>web2</name>\n  <uuid>[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}</uuid>`},
		{"52:54:00:aa:bb:cc", "52:54:00:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}"},
		{"nvram/web1_VARS.fd", "nvram/web2_VARS.fd"},
	} {
		want = strings.Replace(want, change.before, "\x00"+change.after+"\x01", 1)
	}
	pattern := "^" + regexp.QuoteMeta(want) + "$"
	pattern = regexp.MustCompile("\x00([^\x01]*)\x01").ReplaceAllStringFunc(pattern, func(quoted string) string {
		return strings.NewReplacer(`\\n`, `\n`, `\[`, `[`, `\]`, `]`, `\{`, `{`, `\}`, `}`, "\x00", "", "\x01", "").Replace(quoted)
	})
	if !regexp.MustCompile(pattern).Match(other) || strings.Contains(string(other), "aa:bb:cc") || strings.Contains(string(other), "000000000002") {
		t.Errorf("as another:\n%s\nwant\n%s", other, pattern)
	}
	for _, bad := range []string{"", "<domain><devices><disk><source/><target dev='vda'/></disk></devices></domain>", strings.Repeat("<a>", 100), "<domain>"} {
		if out, _, _, err := rewriteDomain([]byte(bad), "x", devices); bad != "" && err == nil {
			t.Errorf("%.80q: %s", bad, out)
		}
	}
}

const machineConf = `# web1%3A the shop
boot: order=scsi0
name: web1
net0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0,firewall=1
scsi0: local-lvm:base-100-disk-0/vm-101-disk-0,iothread=1,size=32G
scsi1: file=local-lvm:vm-101-disk-1,size=8G
ide2: local:iso/debian.iso,media=cdrom
efidisk0: other:vm-101-disk-2,size=4M
smbios1: uuid=11111111-2222-3333-4444-555555555555
unused0: local-lvm:vm-101-disk-9
vmgenid: 11111111-2222-3333-4444-555555555556
parent: before
[before]
scsi0: local-lvm:vm-101-disk-0
`

func TestPVEIsRewritten(t *testing.T) {
	volumes := map[string]string{"scsi0": "vm-205-disk-0", "scsi1": "vm-205-disk-1"}
	out, unknown, err := rewritePVE([]byte(machineConf), true, volumes)
	if err != nil || !slices.Equal(unknown, []string{"efidisk0"}) {
		t.Errorf("%v, %q", err, unknown)
	}
	pattern := `^# web1%3A the shop
boot: order=scsi0
name: web1
net0: virtio=52:54:00:[0-9A-F:]{8},bridge=vmbr0,firewall=1
scsi0: local-lvm:vm-205-disk-0,iothread=1,size=32G
scsi1: file=local-lvm:vm-205-disk-1,size=8G
ide2: local:iso/debian.iso,media=cdrom
efidisk0: other:vm-101-disk-2,size=4M
smbios1: uuid=[0-9a-f-]{36}
vmgenid: [0-9a-f-]{36}
$`
	if !regexp.MustCompile(pattern).Match(out) || strings.Contains(string(out), "1111-2222") {
		t.Errorf("%s", out)
	}
	same, _, err := rewritePVE([]byte(machineConf), false, map[string]string{"scsi0": "vm-101-disk-0", "scsi1": "vm-101-disk-1"})
	if err != nil || !strings.Contains(string(same), "AA:BB:CC:DD:EE:FF") || !strings.Contains(string(same), "scsi0: local-lvm:vm-101-disk-0,") {
		t.Errorf("%v\n%s", err, same)
	}
}

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func backupOf(disk string, day int, run string) catalog.Entry {
	return catalog.Entry{
		ID:  catalog.ID{Ref: catalog.Ref{Kind: catalog.SourceVolume, VG: "vg", Name: "web1-" + disk}, Time: now.AddDate(0, 0, -day)},
		Run: run, Identity: catalog.Identity("id-" + disk), Status: catalog.StatusComplete,
		Guest: catalog.Guest{ID: "uuid-1", Name: "web1", Kind: "libvirt", Disk: disk},
	}
}

func listed(entries ...catalog.Entry) catalog.Listed {
	return catalog.Listed{Listing: &catalog.Listing{Backups: entries}}
}

// A guest comes back as of one moment: the newest, or the one that is named. A disk that its definition has and that moment lacks is told, with a
// moment that has it.
func TestOneMoment(t *testing.T) {
	on := []catalog.Destination{{Name: "disk"}, {Name: "far"}}
	bad := backupOf("vda", 0, "r0")
	bad.Damage = "rotten"
	found := []catalog.Listed{
		listed(backupOf("vda", 2, "r2"), backupOf("vdb", 2, "r2"), backupOf("vda", 1, "r1"), bad),
		listed(backupOf("vda", 1, "r1"), backupOf("vdb", 3, "r3")),
	}
	m, err := Choose(on, found, "web1", "", now)
	if err != nil || len(m.Disks) != 1 || m.Disks[0].On.Name != "disk" || m.Other != catalog.FormatTime(now.AddDate(0, 0, -2)) {
		t.Fatalf("%v, %+v", err, m)
	}
	if _, err := m.checkDisks([]string{"vdb"}); !errors.Is(err, ErrUsage) || !strings.Contains(strings.Join(say.Hints(err), ""), "web1@"+m.Other) {
		t.Errorf("a disk that is missing: %v, %q", err, say.Hints(err))
	}
	if notes, err := m.checkDisks([]string{"vdz"}); err != nil || len(notes) != 1 {
		t.Errorf("a disk that never was: %v, %q", err, notes)
	}
	m, err = Choose(on, found, "uuid-1", "2026-11-18", now)
	if err != nil || len(m.Disks) != 2 || m.Disks[1].Guest.Disk != "vdb" {
		t.Fatalf("%v, %+v", err, m)
	}
	to, err := m.Targets("web2", "other")
	if err != nil || to[0].String() != "other/web2-vda" || to[1].String() != "other/web2-vdb" {
		t.Errorf("%v, %v", err, to)
	}
	if to, err = m.Targets("", ""); err != nil || to[0].String() != "vg/web1-vda" {
		t.Errorf("%v, %v", err, to)
	}
	for _, as := range []string{"../web", "a b", "-x", strings.Repeat("x", 80)} {
		if to, err := m.Targets(as, ""); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: %v, %v", as, to, err)
		}
	}
	for _, word := range []string{"web9", "web1@"} {
		if _, err := Choose(on, found, word, "", now); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s: %v", word, err)
		}
	}
	if _, err := Choose(on, found, "web1", "2020", now); !errors.Is(err, catalog.ErrNotFound) {
		t.Error(err)
	}
	here := guests.Found{Guests: []guests.Guest{{ID: "uuid-1", Name: "renamed", Kind: guests.KindLibvirt, Running: true}, {ID: "u2", Name: "web2"}}}
	for as, refused := range map[string]bool{"": true, "web2": true, "web3": false} {
		if err := m.CheckHost(here, as); (err != nil) != refused {
			t.Errorf("as %q: %v", as, err)
		}
	}
}

func TestPVEVolumes(t *testing.T) {
	m := Moment{Guest: catalog.Guest{ID: "101", Name: "web1", Kind: "proxmox-vm"}}
	for _, name := range []string{"vm-101-disk-0", "base-101-disk-1", "odd"} {
		m.Disks = append(m.Disks, Disk{Entry: catalog.Entry{ID: catalog.ID{Ref: catalog.Ref{Kind: catalog.SourceVolume, VG: "pve", Name: name}}}})
	}
	to, err := m.Targets("205", "")
	if err != nil || to[0].Name != "vm-205-disk-0" || to[1].Name != "vm-205-disk-1" || to[2].Name != "vm-205-disk-2" {
		t.Errorf("%v, %v", err, to)
	}
	if _, err := m.Targets("web2", ""); !errors.Is(err, ErrUsage) {
		t.Errorf("a name for a VMID: %v", err)
	}
}
