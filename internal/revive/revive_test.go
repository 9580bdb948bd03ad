package revive

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
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
	disks := []became{disk("vda", "vg/web1-root", "vg/web2-vda"), disk("vdb", "vg/web1-data", "vg/a&b")}
	same, err := rewriteDomain([]byte(domainXML), "", disks)
	want := strings.NewReplacer(`"/dev/vg/web1-root"`, `"/dev/vg/web2-vda"`, "/dev/mapper/vg-web1--data", "/dev/vg/a&amp;b").Replace(domainXML)
	if err != nil || same.nvramTo != "" || string(same.content) != want || !slices.Equal(same.unknown, []string{"vdc"}) {
		t.Errorf("as itself: %v, %+v\n%s", err, same, same.content)
	}
	out, err := rewriteDomain([]byte(domainXML), "web2", disks)
	if err != nil || out.nvramTo != "/var/lib/libvirt/qemu/nvram/web2_VARS.fd" || !slices.Equal(out.unknown, []string{"vdc"}) {
		t.Errorf("%v, %+v", err, out)
	}
	other := string(out.content)
	for _, change := range []struct{ before, after string }{
		{"  <name>web1</name>\n  <uuid>dcf47dbd-46d1-4d5b-b442-000000000002</uuid>", `  <name>web2</name>\n  <uuid>[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}</uuid>`},
		{"52:54:00:aa:bb:cc", "52:54:00:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}"},
		{"nvram/web1_VARS.fd", "nvram/web2_VARS.fd"},
		{"\n    <disk type='file' device='disk'><source file='/srv/more.qcow2'/><target dev='vdc'/></disk>", ""},
	} {
		want = strings.Replace(want, change.before, "\x00"+change.after+"\x01", 1)
	}
	pattern := "^" + regexp.QuoteMeta(want) + "$"
	pattern = regexp.MustCompile("\x00([^\x01]*)\x01").ReplaceAllStringFunc(pattern, func(quoted string) string {
		return strings.NewReplacer(`\\n`, `\n`, `\[`, `[`, `\]`, `]`, `\{`, `{`, `\}`, `}`, "\x00", "", "\x01", "").Replace(quoted)
	})
	if !regexp.MustCompile(pattern).MatchString(other) || strings.Contains(other, "aa:bb:cc") || strings.Contains(other, "000000000002") {
		t.Errorf("as another:\n%s\nwant\n%s", other, pattern)
	}
	for _, bad := range []string{"", "<html/>", "<domain><name>x</name></domain>", strings.Repeat("<a>", 100), "<domain>", domainXML + domainXML} {
		if out, err := rewriteDomain([]byte(bad), "x", disks); err == nil {
			t.Errorf("%.80q: %s", bad, out.content)
		}
	}
}

func disk(name, from, to string) became {
	ref := func(text string) catalog.Ref {
		vg, lv, _ := strings.Cut(text, "/")
		return catalog.Ref{Kind: catalog.SourceVolume, VG: vg, Name: lv}
	}
	return became{name: name, from: ref(from), to: ref(to)}
}

// domainOf is a machine with some elements, by their paths.
func domainOf(top, devices string) string {
	return "<domain type='kvm'><name>web1</name><uuid>dcf47dbd-46d1-4d5b-b442-000000000002</uuid>" + top + "<devices>" + devices + "</devices></domain>"
}

// Each disk that comes back is led to where it is, whatever it was to libvirt. Nothing of another machine's is left of the old one's.
func TestDomainDisks(t *testing.T) {
	disks := []became{disk("vda", "vg/root", "vg/web2-vda"), disk("vdb", "vg/data", "vg/web2-vdb")}
	const rootDisk = "<disk type='block'><source dev='/dev/vg/root'/><target dev='vda'/></disk>"
	const root = "<disk type='block'><source dev='/dev/vg/web2-vda'/><target dev='vda'/></disk>"
	for name, x := range map[string]struct {
		top, devices, as string
		want             []string
		not              []string
		unknown, lacking string
		notes            int
	}{
		"a volume of a pool": {
			devices: rootDisk + "<disk type='volume' device='disk'><source pool='p' volume='data'/><target dev='vdb'/></disk>",
			want:    []string{root, "<disk type='block' device='disk'><source dev='/dev/vg/web2-vdb'/><target dev='vdb'/></disk>"},
		},
		"a device called a file": {
			devices: rootDisk + "<disk type='file'><source file='/dev/vg/data'><seclabel/></source><target dev='vdb'/></disk>",
			want:    []string{"<disk type='file'><source file='/dev/vg/web2-vdb'><seclabel/></source><target dev='vdb'/></disk>"},
		},
		"iSCSI": {
			devices: rootDisk + "<disk type='network'><source protocol='iscsi' name='iqn'>\n<host name='a'/>\n<encryption format='luks'/></source><target dev='vdb'/></disk>",
			want:    []string{"<disk type='block'><source dev='/dev/vg/web2-vdb'>\n<encryption format='luks'/></source><target dev='vdb'/></disk>"},
		},
		"a disk that ran only, and one in its place": {
			devices: rootDisk + "<disk type='block'><source dev='/dev/vg/never'/><target dev='vdb'/></disk>",
			as:      "web2", want: []string{root}, not: []string{"never", "vdb"}, unknown: "vdb", lacking: "vdb",
		},
		"what ran had them the other way round": {
			devices: "<disk type='block'><source dev='/dev/mapper/vg-data'/><target dev='vda'/></disk><disk type='block'><source dev='/dev/vg/root'/><target dev='vdb'/></disk>",
			want:    []string{"<source dev='/dev/vg/web2-vdb'/><target dev='vda'/>", "<source dev='/dev/vg/web2-vda'/><target dev='vdb'/>"},
		},
		"by another path": {
			devices: rootDisk + "<disk type='block'><source dev='/dev/disk/by-path/x'/><target dev='vdb'/></disk>",
			want:    []string{"<source dev='/dev/vg/web2-vdb'/><target dev='vdb'/>"},
		},
		"drives": {
			as: "web2", lacking: "vdb", notes: 2,
			devices: rootDisk + "<disk type='block' device='cdrom'><source dev='/dev/vg/seed'/><target dev='sda'/></disk><disk type='file' device='floppy'><source file='/x.img'/><target dev='fda'/></disk>" +
				"<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sdb'/></disk>",
			want: []string{"<disk type='block' device='cdrom'><target dev='sda'/></disk><disk type='file' device='floppy'><target dev='fda'/></disk>", "/x.iso"},
		},
		"its own drives": {
			lacking: "vdb", devices: rootDisk + "<disk type='block' device='cdrom'><source dev='/dev/vg/seed'/><target dev='sda'/></disk>", want: []string{"/dev/vg/seed"},
		},
		"nova's": {
			as: "web2", lacking: "vdb", devices: "<disk type='block'><source dev='/dev/vg/root'/><target dev='vda'/><serial>2F1d7c1e-0000-0000-0000-000000000000</serial></disk>",
			top: "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>shop</nova:name></nova:instance></metadata>" +
				"<genid>dcf47dbd-46d1-4d5b-b442-000000000003</genid><sysinfo type='smbios'><system><entry name='product'>nova</entry>" +
				"<entry name='serial'>dcf47dbd-46d1-4d5b-b442-000000000002</entry><entry name='uuid'>dcf47dbd-46d1-4d5b-b442-000000000002</entry></system></sysinfo>",
			want: []string{"<nova:name>web2</nova:name>", "<uuid>UUID</uuid>", "<entry name='serial'>UUID</entry>", "<entry name='uuid'>UUID</entry>", "<entry name='product'>nova</entry>"},
			not:  []string{"dcf47dbd", "2F1d7c1e"},
		},
		"variables in a source": {
			as: "web2", lacking: "vdb", devices: rootDisk, top: "<os><nvram type='file'><source file='/var/lib/libvirt/qemu/nvram/web1_VARS.fd'/></nvram></os>",
			want: []string{"<nvram type='file'><source file='/var/lib/libvirt/qemu/nvram/web2_VARS.fd'/></nvram>"},
		},
		"variables that are no file": {
			as: "web2", lacking: "vdb", devices: rootDisk, top: "<os><nvram type='block'><source dev='/dev/vg/vars'/></nvram></os>", want: []string{"<os></os>"}, notes: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := rewriteDomain([]byte(domainOf(x.top, x.devices)), x.as, disks)
			lacking := strings.Join(say.Names(out.lacking, func(b became) string { return b.name }), " ")
			if err != nil || strings.Join(out.unknown, " ") != x.unknown || lacking != x.lacking || len(out.notes) != x.notes {
				t.Errorf("%v, %q, %q, %q", err, out.unknown, lacking, out.notes)
			}
			for _, want := range x.want {
				if want = strings.ReplaceAll(want, "UUID", out.uuid); !strings.Contains(string(out.content), want) {
					t.Errorf("lacks %s:\n%s", want, out.content)
				}
			}
			for _, not := range x.not {
				if strings.Contains(string(out.content), not) {
					t.Errorf("has %s:\n%s", not, out.content)
				}
			}
		})
	}
}

const machineConf = `# web1%3A the shop
boot: order=scsi0
name: web1
net0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0,firewall=1
scsi0: local-lvm:base-100-disk-0/vm-101-disk-0,iothread=1,size=32G
scsi1: file=local-lvm:vm-101-disk-1,size=8G
scsi2: /dev/fast/raw,size=1G
ide2: local:iso/debian.iso,media=cdrom
ide3: local-lvm:vm-101-cloudinit,media=cdrom
ide1: none,media=cdrom
efidisk0: other:vm-101-disk-2,size=4M
scsi3: /dev/disk/by-id/ata-x
smbios1: uuid=11111111-2222-3333-4444-555555555555
template: 1
unused0: local-lvm:vm-101-disk-9
vmgenid: 11111111-2222-3333-4444-555555555556
parent: before
[before]
scsi0: local-lvm:vm-101-disk-0
`

func TestPVEIsRewritten(t *testing.T) {
	disks := []became{
		disk("scsi0", "vg/vm-101-disk-0", "vg/vm-205-disk-0"), disk("scsi1", "vg/vm-101-disk-1", "vg/vm-205-disk-1"),
		disk("scsi2", "fast/raw", "fast/vm-205-disk-2"), disk("unused0", "vg/vm-101-disk-9", "vg/vm-205-disk-9"),
	}
	out, err := rewritePVE([]byte(machineConf), true, disks)
	if err != nil || !slices.Equal(out.unknown, []string{"efidisk0", "scsi3"}) || len(out.notes) != 1 || !strings.Contains(out.notes[0], "ide3") ||
		len(out.lacking) != 1 || out.lacking[0].name != "unused0" {
		t.Errorf("%v, %q, %q, %v", err, out.unknown, out.notes, out.lacking)
	}
	pattern := `^# web1%3A the shop
boot: order=scsi0
name: web1
net0: virtio=52:54:00:[0-9A-F:]{8},bridge=vmbr0,firewall=1
scsi0: local-lvm:vm-205-disk-0,iothread=1,size=32G
scsi1: file=local-lvm:vm-205-disk-1,size=8G
scsi2: /dev/fast/vm-205-disk-2,size=1G
ide2: local:iso/debian.iso,media=cdrom
ide1: none,media=cdrom
smbios1: uuid=[0-9a-f-]{36}
vmgenid: [0-9a-f-]{36}
$`
	if !regexp.MustCompile(pattern).Match(out.content) || strings.Contains(string(out.content), "1111-2222") {
		t.Errorf("%s", out.content)
	}
	same, err := rewritePVE([]byte(machineConf), false, []became{disk("scsi0", "vg/vm-101-disk-0", "vg/vm-101-disk-0")})
	if err != nil || !slices.Equal(same.unknown, []string{"scsi1", "scsi2", "efidisk0", "scsi3"}) || len(same.notes) > 0 {
		t.Errorf("%v, %+v", err, same)
	}
	for _, line := range []string{"AA:BB:CC:DD:EE:FF", "scsi0: local-lvm:vm-101-disk-0,", "scsi1: file=local-lvm:vm-101-disk-1,size=8G\n", "vm-101-cloudinit", "other:vm-101-disk-2"} {
		if !strings.Contains(string(same.content), line) {
			t.Errorf("lacks %s:\n%s", line, same.content)
		}
	}
	for _, bad := range []string{"", "# web1\n", "[snapshot]\nscsi0: x:y\n"} {
		if out, err := rewritePVE([]byte(bad), true, disks); err == nil {
			t.Errorf("%q: %s", bad, out.content)
		}
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
	disks := []became{
		disk("scsi0", "pve/vm-101-disk-0", "pve/vm-205-disk-0"), disk("scsi1", "pve/vm-101-disk-1", "fast/vm-205-disk-1"),
		disk("efidisk0", "pve/vm-101-disk-2", "two/vm-205-disk-2"),
	}
	for i := range disks {
		disks[i].storages = storages[disks[i].to.VG]
	}
	machine, err := rewritePVE([]byte(machineConf), true, disks)
	if err != nil || slices.Contains(machine.unknown, "efidisk0") || !strings.Contains(strings.Join(machine.notes, "\n"), "a storage for efidisk0") {
		t.Fatalf("%v, %q", err, machine.notes)
	}
	domain, err := rewriteDomain([]byte(domainXML), "web2", []became{disk("vda", "pve/x", "pve/web2-vda"), disk("vdb", "pve/y", "fast/web2-vdb")})
	if err != nil {
		t.Fatal(err)
	}
	write("etc/pve/storage.cfg", "lvmthin: local-lvm\n\tvgname pve\n\tthinpool data\nlvm: fast-a\n\tvgname fast\nlvm: two-a\n\tvgname two\nlvm: two-b\n\tvgname two\n")
	write("etc/pve/local/lxc/none", "")
	write("etc/pve/local/qemu-server/205.conf", string(machine.content))
	write("etc/libvirt/qemu/web2.xml", string(domain.content))
	var inventory lvm.Inventory
	for _, name := range []string{"pve/vm-205-disk-0", "fast/vm-205-disk-1", "pve/web2-vda", "fast/web2-vdb"} {
		vg, lv, _ := strings.Cut(name, "/")
		inventory.Volumes = append(inventory.Volumes, lvm.Volume{VG: vg, Name: lv, UUID: name})
	}
	write("etc/pve/.vmlist", `{"version": 7, "ids": {"205": {"node": "here"}, "300": {"node": "node-b", "type": "qemu"}}}`)
	found, troubles := guests.Find(t.Context(), guests.Sources{Libvirt: true, Proxmox: true, Runner: hostcmd.New(hostcmd.Options{}), Root: root}, inventory)
	if len(troubles) > 0 || !maps.EqualFunc(found.Storages, storages, slices.Equal) {
		t.Errorf("%+v, %v", troubles, found.Storages)
	}
	if !maps.Equal(found.Elsewhere, map[string]string{"300": "node-b"}) {
		t.Errorf("on other nodes: %v", found.Elsewhere)
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
	out, err := rewriteDomain([]byte(domain), "web2", nil)
	if err != nil || out.nvramTo != "/etc/web2_VARS.fd" {
		t.Fatalf("%v, %q", err, out.nvramTo)
	}
	d := &Definition{rewritten: out, main: "domain.xml", folder: "/folder of mine", files: map[string][]byte{
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
	for path, refused := range map[string]bool{"nvram/new": false, "nvram/there": true, "link/new": true, "none/new": true, "../new": true} {
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
	if _, err := m.checkDisks([]string{"vdb"}, true); !errors.Is(err, ErrUsage) || !strings.Contains(strings.Join(say.Hints(err), ""), "`voltar restore --guest web1@"+m.Other+"`") {
		t.Errorf("a disk that is missing: %v, %q", err, say.Hints(err))
	}
	for another, want := range map[bool]string{true: "not in the definition", false: "still names"} {
		if notes, err := m.checkDisks([]string{"vdz"}, another); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "in no backup") || !strings.Contains(notes[0], want) {
			t.Errorf("a disk that never was: %v, %q", err, notes)
		}
	}
	if err := m.checkUndefined(); !errors.Is(err, ErrUsage) {
		t.Errorf("a disk is missing, and no definition tells whether the guest still had it: %v", err)
	}
	if m, err := Choose(on, found, "web1:vda", "", now); err != nil || m.checkUndefined() != nil {
		t.Errorf("one disk: %v", err)
	} else if notes, err := m.checkDisks([]string{"vdb"}, true); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "not asked for") {
		t.Errorf("one disk: %v, %q", err, notes)
	}
	if m, err := Choose(on, found, "web1", "2026-11-17", now); err != nil || len(m.Disks) != 1 || m.checkUndefined() != nil {
		t.Errorf("before it had its other disk: %v", err)
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

// A disk of which all backups are known to be damaged is no disk that is in no backup.
func TestDamagedDisk(t *testing.T) {
	bad := backupOf("vda", 0, "r0")
	bad.Damage = "rotten"
	m, err := Choose([]catalog.Destination{{}}, []catalog.Listed{listed(bad, backupOf("vdb", 0, "r0"))}, "web1", "", now)
	if err != nil || len(m.Disks) != 1 {
		t.Fatalf("%v, %+v", err, m)
	}
	for _, err := range []error{m.checkUndefined(), func() error { _, err := m.checkDisks([]string{"vda"}, true); return err }()} {
		if !errors.Is(err, ErrUsage) || !strings.Contains(strings.Join(say.Hints(err), ""), "`voltar restore --guest web1:vdb`") {
			t.Errorf("%v, %q", err, say.Hints(err))
		}
	}
}

// Only the file of the variables gets the new machine's name, whatever else lies in its folder.
func TestVariablesGetTheirName(t *testing.T) {
	const folder = "/var/lib/libvirt/qemu/nvram/"
	d := &Definition{rewritten: rewritten{nvramFrom: folder + "web1_VARS.fd", nvramTo: folder + "web2_VARS.fd"}}
	for from, want := range map[string]string{"web1_VARS.fd": "web2_VARS.fd", "seed.iso": "seed.iso"} {
		if to, allowed := d.place(guests.AttachedFolder + folder + from); to != folder+want || !allowed {
			t.Errorf("%s: %s, %t", from, to, allowed)
		}
	}
}

// An archive whose files are larger than they can be is refused before they are read, and a name never leads out of the folder.
func TestHostileArchive(t *testing.T) {
	folder := t.TempDir()
	if err := errors.Join(os.WriteFile(folder+"/domain.xml", nil, 0o600), os.Truncate(folder+"/domain.xml", 2*maxBytes)); err != nil {
		t.Fatal(err)
	}
	bomb, err := exec.CommandContext(t.Context(), "tar", "--create", "--format=posix", "--sparse", "--directory", folder, "domain.xml").Output()
	if err != nil || len(bomb) > 1<<20 {
		t.Fatalf("%v, %d bytes", err, len(bomb))
	}
	if files, err := readFiles(bytes.NewReader(bomb)); !errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("%v, %d files", err, len(files))
	}
	m := Moment{Guest: catalog.Guest{ID: "../../etc/precious", Kind: "proxmox-vm"}}
	if _, _, err := m.rewrite(map[string][]byte{"../../etc/precious.conf": []byte(machineConf)}, "", nil); !errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("an ID that is a path: %v", err)
	}
	d := &Definition{files: map[string][]byte{"../out": nil}}
	if err := d.Write(folder + "/below"); !errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("a name that leads out: %v", err)
	}
}

// A guest that another node of the cluster has is not overwritten, and its VMID is not taken.
func TestOtherNodes(t *testing.T) {
	here := guests.Found{Elsewhere: map[string]string{"101": "node-b", "205": "node-c"}}
	m := Moment{Guest: catalog.Guest{ID: "101", Name: "web1", Kind: "proxmox-ct"}}
	for as, node := range map[string]string{"": "node-b", "205": "node-c", "206": ""} {
		if err := m.CheckHost(here, as); (err != nil) != (node != "") || err != nil && !strings.Contains(err.Error(), node) {
			t.Errorf("as %q: %v", as, err)
		}
	}
	m.Guest.Kind = "libvirt"
	if err := m.CheckHost(here, "205"); err != nil {
		t.Error(err)
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
