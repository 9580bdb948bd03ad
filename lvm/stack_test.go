package lvm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func (h *fakeHost) link(target, name string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(h.dir, target), path); err != nil {
		h.t.Fatal(err)
	}
}

// device makes a device as sysfs shows it, below the given ones.
func (h *fakeHost) device(path, dev string, slaves ...string) {
	h.write("sys/devices/"+path+"/dev", dev+"\n")
	h.link("sys/devices/"+path, "sys/dev/block/"+dev)
	for _, slave := range slaves {
		h.link("sys/devices/"+slave, "sys/devices/"+path+"/slaves/"+filepath.Base(slave))
	}
}

const (
	group32 = "iaytMg3ZChnVurv5BOgH23ea46O6FeuR"
	data32  = "hdpwwMcqT3Z3uHcrvr8jxtwzp1fJ04sv"
	thin32  = "DBOWW21mETCPdywi00qhnzrcZ1f4Ny1b"
)

func TestVolumesUnder(t *testing.T) {
	h := newFakeHost(t)
	h.device("sda", "8:0")
	h.device("sda/sda1", "8:1")
	h.write("sys/devices/sda/sda1/partition", "1\n")
	h.device("dm-9", "254:9", "sda/sda1")
	h.write("sys/devices/dm-9/dm/uuid", "LVM-"+group32+data32+"-real\n")
	h.device("dm-0", "254:0", "dm-9")
	h.write("sys/devices/dm-0/dm/uuid", "LVM-"+group32+data32+"\n")
	h.device("dm-1", "254:1", "dm-0")
	h.write("sys/devices/dm-1/dm/uuid", "part1-LVM-"+group32+data32+"\n")
	h.device("dm-2", "254:2")
	h.write("sys/devices/dm-2/dm/uuid", "LVM-"+group32+thin32+"\n")
	h.device("md0", "9:0", "dm-1", "dm-2")
	h.device("md0/md0p1", "259:0")
	h.write("sys/devices/md0/md0p1/partition", "1\n")

	inv := Inventory{Volumes: []Volume{
		{Name: "data", UUID: "hdpwwM-cqT3-Z3uH-crvr-8jxt-wzp1-fJ04sv"},
		{Name: "thin", UUID: "DBOWW2-1mET-CPdy-wi00-qhnz-rcZ1-f4Ny1b"},
		{Name: "other", UUID: "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"},
	}}
	for dev, want := range map[Dev]string{
		{8, 1}: "", {254, 0}: "data", {254, 1}: "data", {254, 2}: "thin", {9, 0}: "data thin", {259, 0}: "data thin",
	} {
		got, err := h.VolumesUnder(inv, dev)
		if err != nil || names(got) != want {
			t.Errorf("under %s: %q, %v, want %q", dev, names(got), err, want)
		}
	}
	if got, err := h.DevicesUnder(Dev{254, 1}); err != nil || fmt.Sprint(got) != "[254:1 254:0 254:9 8:1 8:0]" {
		t.Errorf("devices under the partition: %v, %v", got, err)
	}
	if _, err := h.VolumesUnder(inv, Dev{7, 7}); err == nil {
		t.Error("a device that sysfs does not know is not an error")
	}
}

func TestDevicesUnderEndsInALoop(t *testing.T) {
	h := newFakeHost(t)
	h.device("dm-0", "254:0", "dm-1")
	h.device("dm-1", "254:1", "dm-0")
	if got, err := h.DevicesUnder(Dev{254, 0}); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestUUIDOfDM(t *testing.T) {
	lv := "hdpwwM-cqT3-Z3uH-crvr-8jxt-wzp1-fJ04sv"
	for in, want := range map[string]string{
		"LVM-" + group32 + data32:            lv,
		"LVM-" + group32 + data32 + "-cow":   lv,
		"LVM-" + group32 + data32 + "x":      "",
		"LVM-" + group32:                     "",
		"LVM-voltar-RUN-" + group32 + data32: "",
		"part1-LVM-" + group32 + data32:      "",
		"CRYPT-LUKS2-" + group32:             "",
		"":                                   "",
	} {
		if got := uuidOfDM(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestParseSwaps(t *testing.T) {
	got := parseSwaps("Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n/dev/dm-1 partition 8188 0 -2\n" +
		"/swap\\040file\\040(deleted) file 4092 0 -3\n")
	if want := []string{"/dev/dm-1", "/swap file"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSwapVolumesOfAKernelWithoutSwap(t *testing.T) {
	if got, err := newFakeHost(t).SwapVolumes(Inventory{}); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMountOf(t *testing.T) {
	mounts := parseMountinfo(`22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 /sub /srv rw shared:1 master:2 - btrfs /dev/sdb rw
31 30 0:41 / /srv/a\134b rw - tmpfs tmpfs rw
broken line
32 22 x:1 / /bad rw - ext4 /dev/sdc rw
33 22 0:42 / /srv rw - nfs server:/x rw
`)
	for path, want := range map[string]string{
		"/": "/dev/sda1", "/srvx": "/dev/sda1", "/srv": "server:/x", "/srv/x": "server:/x", `/srv/a\b/c`: "tmpfs", "/bad": "/dev/sda1",
	} {
		if m, ok := mountOf(mounts, path); !ok || m.source != want {
			t.Errorf("%s lies on %q, want %q", path, m.source, want)
		}
	}
	if _, ok := mountOf(nil, "/"); ok {
		t.Error("a mount where there are none")
	}
}

func TestParseDev(t *testing.T) {
	if d, err := ParseDev("254:17\n"); err != nil || d != (Dev{254, 17}) {
		t.Errorf("%v, %v", d, err)
	}
	for _, in := range []string{"", "8", "8:", ":1", "a:b", "-1:0", "8:1:2", "99999999999:0"} {
		if d, err := ParseDev(in); err == nil {
			t.Errorf("%q: %v", in, d)
		}
	}
}

func FuzzProcTables(f *testing.F) {
	f.Add("22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n/swap\\040file file 1 2 3\n")
	f.Add(`\777 \04 \`)
	f.Fuzz(func(t *testing.T, in string) {
		for _, m := range parseMountinfo(in) {
			if m.dev.Major < 0 || m.dev.Minor < 0 {
				t.Errorf("%+v", m)
			}
		}
		for _, path := range parseSwaps(in) {
			if !strings.HasPrefix(path, "/") {
				t.Errorf("%q", path)
			}
		}
	})
}

func TestHolderString(t *testing.T) {
	for want, h := range map[string]Holder{
		"process 7 (tar)":              {What: "process", Name: "tar", PID: 7},
		"mount /m (seen by process 7)": {What: "mount", Name: "/m", PID: 7},
		"swap /dev/x":                  {What: "swap", Name: "/dev/x"},
	} {
		if got := h.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
