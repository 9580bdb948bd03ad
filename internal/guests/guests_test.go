package guests

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"voltar/internal/hostcmd"
	"voltar/lvm"
)

var update = flag.Bool("update", false, "write the golden files anew")

const wantName = "want"

// TestGolden finds the guests of hosts whose files are in an archive. A name "A -> B" in it is a symbolic link.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 3 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want string
			var rest []txtar.File
			for _, f := range archive.Files {
				if f.Name == wantName {
					want = string(f.Data)
				} else {
					rest = append(rest, f)
				}
			}
			got := described(t, rest)
			if *update {
				archive.Files = append(rest, txtar.File{Name: wantName, Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// described lays out a host and describes what is found on it.
func described(t *testing.T, files []txtar.File) string {
	root := t.TempDir()
	from := Sources{Libvirt: true, Proxmox: true, Runner: hostcmd.New(hostcmd.Options{}), Root: root}
	var inventory lvm.Inventory
	devices := map[string]lvm.Dev{}
	for _, file := range files {
		switch file.Name {
		case "inventory":
			inventory = parseInventory(t, string(file.Data))
			continue
		case "devices":
			for line := range strings.Lines(string(file.Data)) {
				path, number, _ := strings.Cut(strings.TrimSpace(line), " ")
				dev, err := lvm.ParseDev(number)
				if err != nil {
					t.Fatal(err)
				}
				devices[path] = dev
			}
			continue
		case "bin/tell":
			from.Command = []string{filepath.Join(root, file.Name)}
		}
		name, target, isLink := strings.Cut(file.Name, " -> ")
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(path, file.Data, 0o777)
		if isLink {
			err = os.Symlink(target, path+".link")
			if err == nil {
				err = os.Rename(path+".link", path)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f := newFinder(t.Context(), from, inventory)
	f.volumes.device = func(path string) (lvm.Dev, bool) {
		dev, isDevice := devices[path]
		return dev, isDevice
	}
	f.libvirt()
	f.proxmox()
	if len(from.Command) > 0 {
		f.command()
	}
	return strings.ReplaceAll(describe(f.found(), f.told(), inventory), root, "ROOT")
}

// parseInventory reads lines "VG/LV [MAJOR:MINOR]".
func parseInventory(t *testing.T, text string) (inventory lvm.Inventory) {
	for line := range strings.Lines(text) {
		name, number, active := strings.Cut(strings.TrimSpace(line), " ")
		vg, lv, _ := strings.Cut(name, "/")
		v := lvm.Volume{VG: vg, Name: lv, VGUUID: "vg-uuid-of-" + vg, UUID: "lv-uuid-of-" + lv + "-" + vg, Active: active}
		if lv == "log" {
			v.UUID = "lv-uuid-of-log" // as a link in testdata has it
		}
		if active {
			dev, err := lvm.ParseDev(number)
			if err != nil {
				t.Fatal(err)
			}
			v.KernelMajor, v.KernelMinor = dev.Major, dev.Minor
		}
		inventory.Volumes = append(inventory.Volumes, v)
	}
	return inventory
}

func describe(found Found, troubles []lvm.Trouble, inventory lvm.Inventory) string {
	var b strings.Builder
	for _, g := range found.Guests {
		fmt.Fprintf(&b, "%s %q alias %q, %s", g.ID, g.Name, g.Alias, g.Kind)
		if g.Running {
			fmt.Fprint(&b, ", running")
		}
		if g.Transient {
			fmt.Fprint(&b, ", transient")
		}
		fmt.Fprintf(&b, ", agent %v %s\n", g.HasAgent, g.Socket)
		for _, d := range g.Disks {
			fmt.Fprintf(&b, "  %s: %s", d.Name, d.Volume())
			for _, word := range []struct {
				is   bool
				word string
			}{{d.Detached, "detached"}, {d.Shared, "shared"}, {d.Group != "", "group " + d.Group}} {
				if word.is {
					fmt.Fprint(&b, ", ", word.word)
				}
			}
			fmt.Fprintln(&b)
		}
		for _, text := range g.Elsewhere {
			fmt.Fprintf(&b, "  elsewhere: %s\n", text)
		}
		for _, file := range g.Definition {
			fmt.Fprintf(&b, "  defined by: %s, %d bytes\n", file.Name, len(file.Content))
		}
		for _, path := range g.Attached {
			fmt.Fprintf(&b, "  attached: %s\n", path)
		}
	}
	for _, v := range inventory.Volumes {
		owner := "nobody"
		if g, d, known := found.Of(v); known {
			owner = g.Name + ":" + d.Name
		}
		fmt.Fprintf(&b, "%s is of %s\n", v, owner)
	}
	for _, trouble := range troubles {
		fmt.Fprintf(&b, "trouble: %s\n  hint: %s\n", trouble.What, trouble.Hint)
	}
	return b.String()
}

func TestNamed(t *testing.T) {
	found := Found{Guests: []Guest{
		{ID: "1", Name: "web"}, {ID: "2", Name: "web", Alias: "instance-2"}, {ID: "3", Name: "2"}, {ID: "4", Name: "instance-2"},
	}}
	for name, want := range map[string]string{"web": "1 2", "2": "2", "1": "1", "instance-2": "4", "": "", "none": ""} {
		var ids []string
		for _, g := range found.Named(name) {
			ids = append(ids, g.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%q means %q, want %q", name, got, want)
		}
	}
}

// TestHangingLink has a path that never answers lead nowhere.
func TestHangingLink(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, isDevice := deviceAt(ctx, "/dev/null"); isDevice {
		t.Error("a character device passes for a disk")
	}
}

// TestBounds has more and larger definitions than are read.
func TestBounds(t *testing.T) {
	root := t.TempDir()
	folder := filepath.Join(root, libvirtDefined)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	write := func(name string, size int64) {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	write("large.xml", maxFileBytes+1)
	if err := os.Symlink("/dev/zero", filepath.Join(folder, "link.xml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, "folder.xml"), 0o777); err != nil {
		t.Fatal(err)
	}
	f := newFinder(t.Context(), Sources{Root: root}, lvm.Inventory{})
	f.bytes = maxBytes - 10
	write("z.xml", 11)
	write("zz.xml", 11)
	if files := f.folder(libvirtDefined, ".xml"); len(files) != 0 {
		t.Errorf("took %d files", len(files))
	}
	var told []string
	for _, trouble := range f.told() {
		told = append(told, trouble.What)
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"large.xml has more than", "folder.xml is no regular file", "link.xml", "have more than 64.0 MiB"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing tells of %q in:\n%s", want, all)
		}
	}
	if len(told) != 4 {
		t.Errorf("%d troubles:\n%s", len(told), all)
	}
	for range 2 * maxTroubles {
		f.trouble("", "one more")
	}
	if n := len(f.told()); n != maxTroubles+1 {
		t.Errorf("%d troubles are told", n)
	}
}

// TestManyDisks has a definition as large as is read, full of disks: what is taken of it is bounded, in time too, and told.
func TestManyDisks(t *testing.T) {
	var inventory lvm.Inventory
	var xml, conf strings.Builder
	xml.WriteString("<domain type='kvm'><name>a</name><uuid>aaaaaaaa-0000-4000-8000-000000000001</uuid><devices>")
	for i := range maxDisks + 10 {
		name := fmt.Sprintf("lv%d", i)
		inventory.Volumes = append(inventory.Volumes, lvm.Volume{VG: "vg", Name: name, UUID: name})
		fmt.Fprintf(&xml, "<disk type='block'><source dev='/dev/vg/%s'/><target dev='vd%d'/></disk>", name, i)
		fmt.Fprintf(&conf, "mp%d: st:%s\n", i%1000, name)
	}
	for xml.Len() < maxFileBytes-100 {
		xml.WriteString("<disk type='block'><source dev='/none'/><target dev='x'/></disk>")
	}
	xml.WriteString("</devices></domain>")
	root := t.TempDir()
	for name, content := range map[string]string{
		"etc/libvirt/qemu/a.xml": xml.String(), "etc/pve/local/lxc/100.conf": conf.String(), "etc/pve/local/qemu-server/none": "",
		"etc/pve/storage.cfg": "lvm: st\n\tvgname vg\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	found, troubles := Find(t.Context(), Sources{Libvirt: true, Proxmox: true, Runner: hostcmd.New(hostcmd.Options{}), Root: root}, inventory)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	for _, g := range found.Guests {
		if len(g.Disks) != maxDisks || len(g.Elsewhere) > maxElsewhere {
			t.Errorf("%s has %d disks and %d elsewhere", g.Name, len(g.Disks), len(g.Elsewhere))
		}
	}
	told := fmt.Sprint(troubles)
	for _, id := range []string{"aaaaaaaa-0000-4000-8000-000000000001", "100"} {
		if !strings.Contains(told, "the guest "+id+" has more than 1000 disks") {
			t.Errorf("nothing tells of %s: %.300s", id, told)
		}
	}
	f := newFinder(t.Context(), Sources{}, lvm.Inventory{})
	for i := range maxGuests + 1 {
		f.guest(KindTold, fmt.Sprint(i))
	}
	if found := f.found(); len(found.Guests) != maxGuests || !strings.Contains(fmt.Sprint(f.told()), "more than 10000 guests") {
		t.Errorf("%d guests, %v", len(found.Guests), f.told())
	}
}

// TestHangingCluster leaves behind a cluster filesystem that does not answer.
func TestHangingCluster(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, pveFolder), 0o777); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(root, "bin")
	if err := os.Mkdir(bin, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "tar"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	runner := hostcmd.New(hostcmd.Options{SearchPath: []string{bin, "/usr/bin", "/bin"}})
	_, troubles := Find(ctx, Sources{Proxmox: true, Runner: runner, Root: root}, lvm.Inventory{})
	if len(troubles) != 1 || !strings.Contains(troubles[0].What, "cannot look for guests of Proxmox VE") {
		t.Errorf("told %+v", troubles)
	}
}

func FuzzDomain(f *testing.F) {
	for _, seed := range []string{
		"<domain><name>a</name><uuid>aaaaaaaa-0000-4000-8000-000000000001</uuid></domain>",
		"<domain type='kvm'><devices><disk type='volume'><source pool='a' volume='b'/></disk></devices></domain>",
		"<domstatus state='running'><domain type='kvm'><name>a</name></domain></domstatus>",
		"<domain><os><nvram>/x</nvram></os><metadata><i:instance xmlns:i='http://openstack.org/xmlns/libvirt/nova/1.1'><i:name>n</i:name>",
		strings.Repeat("<domain>", 200), "<!DOCTYPE a [<!ENTITY b 'c'>]><domain>&b;</domain>", "\xff\xfe<",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		finder := newFinder(t.Context(), Sources{}, lvm.Inventory{})
		finder.volumes.device = func(string) (lvm.Dev, bool) { return lvm.Dev{}, false }
		var d domain
		if decode(text, "domain", &d) == nil {
			finder.domain(d, "fuzz.xml")
		}
		_ = liveDomain(text)
		_, _, _ = parsePool(text)
		for _, g := range finder.found().Guests {
			if len(g.Name) > maxNameBytes || strings.ContainsAny(g.Name, "\n\x1b") {
				t.Errorf("the name %q", g.Name)
			}
		}
	})
}

func FuzzPVE(f *testing.F) {
	for _, seed := range []string{
		"scsi0: local-lvm:vm-100-disk-0,size=8G\nname: a\n[before]\nscsi0: x:y\nvmstate: a:b", "rootfs: /dev/a/b\nagent: 1\n#a: b", "[PENDING]\n",
		"lvmthin: local-lvm\n\tvgname pve\n\tthinpool data\n", "cicustom: user=local:snippets/../x", "[\n:\n::\nmp0:,,=,file=",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		finder := newFinder(t.Context(), Sources{}, lvm.Inventory{Volumes: []lvm.Volume{{VG: "pve", Name: "vm-100-disk-0", UUID: "u"}}})
		finder.volumes.device = func(string) (lvm.Dev, bool) { return lvm.Dev{}, false }
		c := parsePVE(text)
		g := finder.guest(KindMachine, "100")
		finder.storages = parseStorages(text)
		for _, d := range c.disks {
			finder.diskPVE(g, d)
		}
		if len(g.Disks) > maxDisks {
			t.Errorf("%d disks", len(g.Disks))
		}
	})
}
