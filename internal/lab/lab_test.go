package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m, Options{DiskBytes: 64 << 20})) }

func TestLabSnapshotHoldsTheOldContent(t *testing.T) {
	VG(t, "vg0", 256<<20)
	origin := LV(t, "vg0", "data", 64<<20)
	Do(t, "mkfs.ext4", "-q", origin)
	dir := Mount(t, origin, "rw")
	file := filepath.Join(dir, "file")
	write(t, file, "before")
	Do(t, "lvcreate", "--snapshot", "--size", "16M", "--name", "snap", "vg0/data")
	t.Cleanup(func() { Do(t, "lvremove", "--force", "vg0/snap") })
	write(t, file, "after")
	old := Mount(t, "/dev/vg0/snap", "ro")
	if got := read(t, filepath.Join(old, "file")); got != "before" {
		t.Errorf("the snapshot has %q, want what was there when it was made", got)
	}
}

func TestLabThinPool(t *testing.T) {
	VG(t, "vg0", 512<<20)
	Do(t, "lvcreate", "--type", "thin-pool", "--size", "128M", "--name", "pool", "vg0")
	Do(t, "lvcreate", "--virtualsize", "1G", "--thinpool", "pool", "--name", "thin", "vg0")
	Do(t, "mkfs.xfs", "-q", "/dev/vg0/thin")
	Do(t, "lvcreate", "--snapshot", "--setactivationskip", "n", "--name", "snap", "vg0/thin")
	t.Cleanup(func() { Do(t, "lvremove", "--force", "vg0/snap") })
	Mount(t, "/dev/vg0/thin", "rw")
	Mount(t, "/dev/vg0/snap", "ro,nouuid")
}

func TestLabPartitionMap(t *testing.T) {
	VG(t, "vg0", 256<<20)
	volume := LV(t, "vg0", "guest", 128<<20)
	Do(t, "parted", "--script", volume, "mklabel", "gpt", "mkpart", "one", "1MiB", "64MiB")
	Do(t, "kpartx", "-a", "-s", volume)
	t.Cleanup(func() { Do(t, "kpartx", "-d", volume) })
	Do(t, "mkfs.vfat", "/dev/mapper/vg0-guest1")
	Mount(t, "/dev/mapper/vg0-guest1", "ro,utf8")
}

func TestLabHasItsOwnDisk(t *testing.T) {
	Do(t, "pvcreate", "--yes", "/dev/ubda")
	Do(t, "pvremove", "--yes", "/dev/ubda")
}

func TestLabSees4KSectors(t *testing.T) {
	device := Disk4K(t, 32<<20)
	if got := strings.TrimSpace(Do(t, "blockdev", "--getss", device)); got != "4096" {
		t.Errorf("sectors of %s bytes, want 4096", got)
	}
}

// What the leak check sees is what makes it fail a test: TestMachineReportsResults has one that leaks.
func TestLabTracesShowEachKind(t *testing.T) {
	before := strings.Join(traces(t), "\n")
	VG(t, "vg0", 64<<20)
	volume := LV(t, "vg0", "data", 32<<20)
	Do(t, "mkfs.ext4", "-q", volume)
	dir := Mount(t, volume, "ro")
	after := strings.Join(traces(t), "\n")
	for _, want := range []string{"device vg0-data", "loop device over", "logical volume vg0/data", "on " + dir} {
		if strings.Contains(before, want) || !strings.Contains(after, want) {
			t.Errorf("no %q in\n%s", want, after)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
