package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// What the leak check sees is what makes it fail a test: TestBootReportsEachResultAsItsOwn has one that leaks.
func TestLabTracesShowEachKind(t *testing.T) {
	all := func() string {
		found, err := traces()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(found, "\n")
	}
	before := all()
	VG(t, "vg0", 64<<20)
	volume := LV(t, "vg0", "data", 32<<20)
	Do(t, "mkfs.ext4", "-q", volume)
	dir := Mount(t, volume, "ro")
	after := all()
	for _, want := range []string{"device vg0-data", "loop device over", "logical volume vg0/data", "on " + dir} {
		if strings.Contains(before, want) || !strings.Contains(after, want) {
			t.Errorf("no %q in\n%s", want, after)
		}
	}
}

// What the host's administrator and root have set up is not seen: it would change what programs do and how soon they start.
func TestLabHasSettingsOfItsOwn(t *testing.T) {
	for _, name := range []string{"/root/.bashrc", "/root/.profile", "/etc/bash.bashrc", "/etc/localtime", "/etc/ld.so.preload",
		"/etc/ssh/ssh_config", "/etc/mke2fs.conf", "/etc/voltar"} {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want none", name, err)
		}
	}
	if config := read(t, "/etc/lvm/lvm.conf"); strings.Contains(config, "#") {
		t.Errorf("lvm2 is set up as on the host:\n%s", config)
	}
	if got := Do(t, "sh", "-c", "umask; echo $HOME $LANG $TZ $ENV"); got != "0022\n/root\n" {
		t.Errorf("the environment is %q", got)
	}
}

func TestLabPatienceFollowsTheMachine(t *testing.T) {
	if os.Getenv(slownessVariable) == "" || Patience(time.Minute) < room*time.Minute {
		t.Errorf("a minute is %s on a machine of slowness %q", Patience(time.Minute), os.Getenv(slownessVariable))
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

func TestLabUntilFrozen(t *testing.T) {
	VG(t, "vg0", 64<<20)
	volume := LV(t, "vg0", "data", 32<<20)
	Do(t, "mkfs.ext4", "-q", volume)
	dir := Mount(t, volume, "rw")
	note := filepath.Join(dir, "note")
	done := make(chan error, 1)
	go func() {
		_, err := command(t.Context(), "fsfreeze", "--freeze", dir)
		done <- err
	}()
	written := UntilFrozen(t, func() error { return os.WriteFile(note, []byte("x"), 0o600) })
	if err := <-done; err != nil {
		t.Error(err)
	}
	select {
	case err := <-written:
		t.Errorf("a write ended while the filesystem was frozen: %v", err)
	default:
	}
	Do(t, "fsfreeze", "--unfreeze", dir)
	if err := <-written; err != nil {
		t.Error(err)
	}
}
