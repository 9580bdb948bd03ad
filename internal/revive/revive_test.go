package revive

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/guests"
	"voltar/internal/hostcmd"
	"voltar/internal/say"
	"voltar/lvm"
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
template: 1
unused0: local-lvm:vm-101-disk-9
vmgenid: 11111111-2222-3333-4444-555555555556
parent: before
[before]
scsi0: local-lvm:vm-101-disk-0
`

func TestPVEIsRewritten(t *testing.T) {
	volumes := map[string]pvePlace{"scsi0": {lv: "vm-205-disk-0"}, "scsi1": {lv: "vm-205-disk-1"}}
	out, unknown, astray, err := rewritePVE([]byte(machineConf), true, volumes)
	if err != nil || !slices.Equal(unknown, []string{"efidisk0"}) || len(astray) > 0 {
		t.Errorf("%v, %q, %q", err, unknown, astray)
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
	same, _, _, err := rewritePVE([]byte(machineConf), false, map[string]pvePlace{"scsi0": {lv: "vm-101-disk-0"}, "scsi1": {lv: "vm-101-disk-1"}})
	if err != nil || !strings.Contains(string(same), "AA:BB:CC:DD:EE:FF") || !strings.Contains(string(same), "scsi0: local-lvm:vm-101-disk-0,") {
		t.Errorf("%v\n%s", err, same)
	}
}

// What voltar writes is read again by what finds guests: each disk is the volume that it became, in whatever storage that is.
func TestRoundTrip(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	storages := map[string][]string{"pve": {"local-lvm"}, "fast": {"fast-a"}, "two": {"two-a", "two-b"}}
	volumes := map[string]pvePlace{
		"scsi0": {"vm-205-disk-0", storages["pve"], false}, "scsi1": {"vm-205-disk-1", storages["fast"], true},
		"efidisk0": {"vm-205-disk-2", storages["two"], true},
	}
	machine, unknown, astray, err := rewritePVE([]byte(machineConf), true, volumes)
	if err != nil || len(unknown) > 0 || !slices.Equal(astray, []string{"efidisk0"}) {
		t.Fatalf("%v, %q, %q", err, unknown, astray)
	}
	domain, _, _, err := rewriteDomain([]byte(domainXML), "web2", map[string]string{"vda": "/dev/pve/web2-vda", "vdb": "/dev/fast/web2-vdb"})
	if err != nil {
		t.Fatal(err)
	}
	write("etc/pve/storage.cfg", "lvmthin: local-lvm\n\tvgname pve\n\tthinpool data\nlvm: fast-a\n\tvgname fast\nlvm: two-a\n\tvgname two\nlvm: two-b\n\tvgname two\n")
	write("etc/pve/local/lxc/none", "")
	write("etc/pve/local/qemu-server/205.conf", string(machine))
	write("etc/libvirt/qemu/web2.xml", string(domain))
	var inventory lvm.Inventory
	for _, name := range []string{"pve/vm-205-disk-0", "fast/vm-205-disk-1", "pve/web2-vda", "fast/web2-vdb"} {
		vg, lv, _ := strings.Cut(name, "/")
		inventory.Volumes = append(inventory.Volumes, lvm.Volume{VG: vg, Name: lv, UUID: name})
	}
	found, troubles := guests.Find(t.Context(), guests.Sources{Libvirt: true, Proxmox: true, Runner: hostcmd.New(hostcmd.Options{}), Root: root}, inventory)
	if len(troubles) > 0 || !maps.EqualFunc(found.Storages, storages, slices.Equal) {
		t.Errorf("%+v, %v", troubles, found.Storages)
	}
	for i, want := range []string{"205:scsi0", "205:scsi1", "web2:vda", "web2:vdb"} {
		g, d, _ := found.Of(inventory.Volumes[i])
		if got := g.Name + ":" + d.Name; got != want && g.ID+":"+d.Name != want {
			t.Errorf("%s is of %s, want %s", inventory.Volumes[i], got, want)
		}
	}
}

// What whoever may write to the store puts into a definition leads to no file of the host.
func TestHostileFiles(t *testing.T) {
	domain := strings.Replace(domainXML, "/var/lib/libvirt/qemu/nvram/web1_VARS.fd", "/etc/shadow", 1)
	_, nvram, _, err := rewriteDomain([]byte(domain), "web2", map[string]string{"vda": "/dev/vg/a", "vdb": "/dev/vg/b"})
	if err != nil || nvram != "/etc/web2_VARS.fd" {
		t.Fatalf("%v, %q", err, nvram)
	}
	d := &Definition{nvram: nvram, main: "domain.xml", folder: "/folder of mine", files: map[string][]byte{
		"files/etc/shadow": nil, "files/etc/cron.d/x": nil, "files/var/lib/libvirtevil/x": nil, "files/var/lib/vz": nil,
		"var/lib/libvirt/x": nil, "files/var/lib/vz/$(reboot)": nil,
	}}
	if got := d.placed(); !slices.Equal(got, []string{"files/var/lib/vz/$(reboot)"}) {
		t.Errorf("placed: %q", got)
	}
	if got := d.Show()[0]; !strings.HasSuffix(got, `-- '/folder of mine/files/var/lib/vz/$(reboot)' '/var/lib/vz/$(reboot)'`) {
		t.Errorf("to be typed: %s", got)
	}
}

// A file of a definition is made whole, never over another, and through no link out of its folder.
func TestPutFile(t *testing.T) {
	folder := t.TempDir() + "/"
	outside := t.TempDir()
	if err := errors.Join(os.Mkdir(folder+"nvram", 0o700), os.Symlink(outside, folder+"link"), os.WriteFile(folder+"nvram/there", []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, refused := range map[string]bool{"nvram/new": false, "nvram/there": false, "link/new": true, "none/new": true, "../new": true} {
		if err := putFile(folder, folder+path, []byte("new")); (err != nil) != refused {
			t.Errorf("%s: %v", path, err)
		}
	}
	for path, want := range map[string]string{"nvram/new": "new", "nvram/there": "old"} {
		if text, err := os.ReadFile(folder + path); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	for path, want := range map[string]int{outside: 0, folder + "nvram": 2} {
		if entries, err := os.ReadDir(path); err != nil || len(entries) != want {
			t.Errorf("%s: %v, %v", path, entries, err)
		}
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
	m.Disks[2].Guest.Disk = "sata0@friday" // an image that another goes on from, by its name
	if _, err := m.Targets("205", ""); !errors.Is(err, ErrUsage) {
		t.Errorf("a chain of images got another name: %v", err)
	}
	if to, err := m.Targets("", ""); err != nil || to[2].Name != "odd" {
		t.Errorf("%v, %v", err, to)
	}
	if _, err := m.Targets("web2", ""); !errors.Is(err, ErrUsage) {
		t.Errorf("a name for a VMID: %v", err)
	}
}
