package mount

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
)

const diskBytes = 400 << 20

// mkfs lists how each type is made.
var mkfs = map[string][]string{
	"ext2":  {"mke2fs", "-q", "-F", "-t", "ext2"},
	"ext3":  {"mke2fs", "-q", "-F", "-t", "ext3"},
	"ext4":  {"mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0"},
	"xfs":   {"mkfs.xfs", "-q", "-f"},
	"vfat":  {"mkfs.vfat", "-F", "16"},
	"btrfs": {"mkfs.btrfs", "-q", "-f"},
}

func format(t *testing.T, device, fsType string) {
	t.Helper()
	command := mkfs[fsType]
	lab.Do(t, command[0], append(command[1:len(command):len(command)], device)...)
}

// mapOf maps all of a device but its first MiB, as if that were a partition, and returns the map. The test removes it
// itself when it wants to see that it can be; else it goes with the test.
func mapOf(t *testing.T, name, device string) string {
	t.Helper()
	const offset = 2048
	sectors, err := strconv.Atoi(strings.TrimSpace(lab.Do(t, "blockdev", "--getsz", device)))
	if err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "dmsetup", "create", name, "--table", fmt.Sprintf("0 %d linear %s %d", sectors-offset, device, offset))
	t.Cleanup(func() {
		if _, err := os.Stat("/dev/mapper/" + name); err == nil {
			lab.Do(t, "dmsetup", "remove", name)
		}
	})
	return "/dev/mapper/" + name
}

// fill mounts a device for writing, puts a few things on it and unmounts it.
func fill(t *testing.T, device, fsType string) {
	t.Helper()
	dir := t.TempDir()
	options := "defaults"
	if fsType == "vfat" {
		options = "utf8"
	}
	lab.Do(t, "mount", "-t", fsType, "-o", options, device, dir)
	defer lab.Do(t, "umount", dir)
	if err := os.WriteFile(filepath.Join(dir, "grüße.txt"), []byte("from "+fsType), 0o644); err != nil {
		t.Fatal(err)
	}
	if fsType == "vfat" {
		return
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "way-out")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
}

func mounted(t *testing.T, device, fsType string) *Mount {
	t.Helper()
	m, err := New(Options{}).Mount(t.Context(), device, fsType)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func readFile(t *testing.T, m *Mount, name string) string {
	t.Helper()
	root, err := m.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	content, err := root.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestLabMountsEachType(t *testing.T) {
	for fsType := range mkfs {
		t.Run(fsType, func(t *testing.T) {
			device := mapOf(t, "part", lab.Disk(t, diskBytes))
			format(t, device, fsType)
			fill(t, device, fsType)
			before, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}

			m := mounted(t, device, fsType)
			if got := readFile(t, m, "grüße.txt"); got != "from "+fsType {
				t.Errorf("content %q", got)
			}
			after, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil || string(after) != string(before) {
				t.Errorf("the mount shows in mountinfo (%v):\n%s", err, after)
			}
			checkReadOnly(t, m, fsType)
			usage, err := m.Statfs()
			if err != nil || usage.Blocks == 0 || usage.Bfree >= usage.Blocks {
				t.Errorf("statfs %+v, %v", usage, err)
			}
			const attributes = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
			if usage.Flags&attributes != attributes {
				t.Errorf("flags %#x lack some of ro, nosuid, nodev, noexec", usage.Flags)
			}
			var stat unix.Stat_t
			if err := unix.Stat(device, &stat); err != nil || m.Device() != stat.Rdev {
				t.Errorf("device %#x, want %#x (%v)", m.Device(), stat.Rdev, err)
			}

			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			lab.Do(t, "dmsetup", "remove", "part") // at once: Close has waited
		})
	}
}

// checkReadOnly makes sure that nothing can be written and nothing leads out.
func checkReadOnly(t *testing.T, m *Mount, fsType string) {
	t.Helper()
	root, err := m.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.WriteFile("new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing: %v, want EROFS", err)
	}
	if fsType == "vfat" {
		return
	}
	if content, err := root.ReadFile("way-out"); err == nil {
		t.Errorf("a symbolic link leads out, to %q", content)
	}
	if _, err := root.Open("null"); !errors.Is(err, unix.EACCES) {
		t.Errorf("opening a device: %v, want EACCES", err)
	}
}

// copyDisk copies what lies beneath one loop device beneath another. (Reading the device itself would make the kernel
// write first what it keeps for it in memory, and so tidy the filesystem.)
func copyDisk(t *testing.T, from, to string) {
	t.Helper()
	beneath := func(device string) string {
		return strings.TrimSpace(lab.Do(t, "losetup", "-n", "-O", "BACK-FILE", device))
	}
	lab.Do(t, "dd", "if="+beneath(from), "of="+beneath(to), "bs=1M", "conv=sparse,notrunc", "status=none")
	lab.Do(t, "blockdev", "--flushbufs", to)
}

// A filesystem copied while it was mounted has in its journal what is not yet in place; a read-only mount replays it.
func TestLabReplaysTheJournal(t *testing.T) {
	for fsType, unreplayed := range map[string]string{"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"} {
		t.Run(fsType, func(t *testing.T) {
			live, twin := lab.Disk(t, diskBytes), lab.Disk(t, diskBytes)
			format(t, live, fsType)
			dir := lab.Mount(t, live, "defaults")
			file, err := os.Create(filepath.Join(dir, "late"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteString("in the journal"); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(file.Sync(), file.Close()); err != nil {
				t.Fatal(err)
			}
			copyDisk(t, live, twin)

			without := t.TempDir()
			lab.Do(t, "mount", "-t", fsType, "-o", unreplayed, twin, without)
			_, err = os.Stat(filepath.Join(without, "late"))
			lab.Do(t, "umount", without)
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the copy has the file before replay (%v): this test shows nothing", err)
			}
			m := mounted(t, twin, fsType)
			if got := readFile(t, m, "late"); got != "in the journal" {
				t.Errorf("content %q", got)
			}
		})
	}
}

func TestLabReadOnlyDeviceWithADirtyJournalIsRefused(t *testing.T) {
	live, twin := lab.Disk(t, diskBytes), lab.Disk(t, diskBytes)
	format(t, live, "ext4")
	lab.Mount(t, live, "defaults")
	copyDisk(t, live, twin)
	lab.Do(t, "blockdev", "--setro", twin)
	if _, err := New(Options{}).Mount(t.Context(), twin, "ext4"); err == nil || !strings.Contains(err.Error(), "cannot read the filesystem") {
		t.Errorf("error %v, want a refusal", err)
	}
	lab.Do(t, "blockdev", "--setrw", twin)
}

func TestLabSnapshotBesideItsMountedOrigin(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			lab.VG(t, "vg", 2*diskBytes)
			origin := lab.LV(t, "vg", "data", diskBytes)
			format(t, origin, fsType)
			dir := lab.Mount(t, origin, "defaults")
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("then"), 0o644); err != nil {
				t.Fatal(err)
			}
			lab.Do(t, "lvcreate", "-y", "-s", "-l", "50%ORIGIN", "-n", "snap", "vg/data")
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("now"), 0o644); err != nil {
				t.Fatal(err)
			}
			m := mounted(t, "/dev/vg/snap", fsType)
			if got := readFile(t, m, "file"); got != "then" {
				t.Errorf("content %q", got)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			lab.Do(t, "lvremove", "-f", "vg/snap")
		})
	}
}

// btrfs knows its devices by UUID: a copy beside its mounted original must not be taken for it. Linux before 6.7 refuses to mount
// it; later ones mount the copy.
func TestLabBtrfsCopyBesideItsOriginal(t *testing.T) {
	original, twin := lab.Disk(t, diskBytes), lab.Disk(t, diskBytes)
	format(t, original, "btrfs")
	fill(t, original, "btrfs")
	copyDisk(t, original, twin)
	where := lab.Mount(t, original, "defaults")
	const later = "of the original alone"
	if err := os.WriteFile(filepath.Join(where, later), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := New(Options{}).Mount(t.Context(), twin, "btrfs")
	if err != nil {
		return
	}
	root, err := m.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Stat(later); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the original was mounted in place of its copy: %v", err)
	}
	if err := errors.Join(root.Close(), m.Close()); err != nil {
		t.Error(err)
	}
}

func TestLabHangingMountIsLeftBehind(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "vfat"} {
		t.Run(fsType, func(t *testing.T) {
			device := mapOf(t, "part", lab.Disk(t, diskBytes))
			format(t, device, fsType)
			fill(t, device, fsType)
			lab.Do(t, "blockdev", "--flushbufs", device)
			lab.Do(t, "dmsetup", "suspend", "--nolockfs", "part") // frozen, it would be refused and not hang
			resumed := false
			resume := func() {
				if !resumed {
					lab.Do(t, "dmsetup", "resume", "part")
				}
				resumed = true
			}
			t.Cleanup(resume)

			_, err := New(Options{Timeout: time.Second}).Mount(t.Context(), device, fsType)
			if !errors.Is(err, ErrHung) {
				t.Errorf("error %v, want ErrHung", err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("stopped by a person")
			time.AfterFunc(time.Second, func() { cancel(cause) })
			if _, err := New(Options{}).Mount(ctx, device, fsType); !errors.Is(err, cause) {
				t.Errorf("error %v, want the cause of cancellation", err)
			}
			resume()
			if err := awaitReleased(device, time.Now().Add(lab.Patience(time.Minute))); err != nil {
				t.Errorf("what was left behind did not end with the hang: %v", err)
			}
			if got := readFile(t, mounted(t, device, fsType), "grüße.txt"); got != "from "+fsType {
				t.Errorf("content %q afterwards", got)
			}
		})
	}
}

// A guest that asks for a panic at the first error gets none, and the damage shows as an error of the read.
func TestLabPanicOnErrorsIsNotObeyed(t *testing.T) {
	device := lab.Disk(t, diskBytes)
	format(t, device, "ext4")
	lab.Do(t, "tune2fs", "-e", "panic", device)
	dir := t.TempDir()
	lab.Do(t, "mount", device, dir)
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "whole"), []byte("whole"), 0o644); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "umount", dir)
	block := strings.Fields(lab.Do(t, "debugfs", "-R", "blocks /folder", device))[0]
	lab.Do(t, "debugfs", "-w", "-R", "zap_block -p 0xff "+block, device)

	m := mounted(t, device, "ext4")
	root, err := m.OpenRoot()
	if err != nil {
		t.Fatal(err)
	}
	if found, err := m.Errors(); err != nil || len(found) != 0 {
		t.Errorf("errors before anything was read: %v, %v", found, err)
	}
	if entries, err := fs.ReadDir(root.FS(), "folder"); err == nil {
		t.Errorf("the damaged folder reads as %v", entries)
	}
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, m, "whole"); got != "whole" {
		t.Errorf("content %q", got)
	}
	if found, err := m.Errors(); err != nil || len(found) == 0 || found[0].Inode == 0 {
		t.Errorf("errors of the damaged folder: %v, %v", found, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// The filesystem keeps its count from mount to mount.
	if found, err := mounted(t, device, "ext4").Errors(); err != nil || len(found) != 0 {
		t.Errorf("errors of an earlier mount: %v, %v", found, err)
	}
}

// What the kernel mounted has to be the device that was named, or an archive of something else would pass for it.
func TestLabAnotherDeviceIsRefused(t *testing.T) {
	named, other := lab.Disk(t, 32<<20), lab.Disk(t, 32<<20)
	format(t, named, "ext4")
	format(t, other, "ext4")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := program(t, fmt.Sprintf(`exec %s "$1" "$2" "$3" %s`, exe, other))
	if _, err := New(Options{Exe: child}).Mount(t.Context(), named, "ext4"); !errors.Is(err, ErrWrongDevice) {
		t.Errorf("error %v, want ErrWrongDevice", err)
	}
}

func TestLabErrorsSayWhy(t *testing.T) {
	blank := lab.Disk(t, diskBytes)
	for fsType, says := range map[string]string{"ext4": "Can't find ext4", "xfs": "superblock magic", "vfat": "bogus number", "btrfs": ""} {
		_, err := New(Options{}).Mount(t.Context(), blank, fsType)
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "cannot read the filesystem") ||
			!strings.Contains(strings.ToLower(err.Error()), strings.ToLower(says)) {
			t.Errorf("%s: %v, want EINVAL and %q", fsType, err, says)
		}
	}
	if err := awaitReleased(blank, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestLabCloseTellsWhoIsStillThere(t *testing.T) {
	device := lab.Disk(t, diskBytes)
	format(t, device, "ext4")
	fill(t, device, "ext4")
	m, err := New(Options{CloseTimeout: 300 * time.Millisecond}).Mount(t.Context(), device, "ext4")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d/grüße.txt", m.Root().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); !errors.Is(err, ErrBusy) {
		t.Errorf("closing with a file open: %v, want ErrBusy", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := awaitReleased(device, time.Now().Add(lab.Patience(time.Minute))); err != nil {
		t.Error(err)
	}
	if err := m.Close(); !errors.Is(err, ErrBusy) {
		t.Errorf("closing again: %v, want what it was", err)
	}
}

// A process that is killed takes its mounts along.
func TestLabKilledHolderFreesTheDevice(t *testing.T) {
	device := mapOf(t, "part", lab.Disk(t, diskBytes))
	format(t, device, "ext4")
	holder := exec.Command("/proc/self/exe", holdArg, device, "ext4")
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "mounted\n" {
		t.Errorf("the holder says %q (%v)", line, err)
	}
	if err := awaitReleased(device, time.Now()); !errors.Is(err, ErrBusy) {
		t.Errorf("while it is held: %v, want ErrBusy", err)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err == nil {
		t.Error("the holder ended well though it was killed")
	}
	lab.Do(t, "dmsetup", "remove", "part")
}

// What is written to a writable mount is on the device when it is closed, and nobody sees the mount meanwhile.
func TestLabWritable(t *testing.T) {
	for _, fsType := range []string{"ext4", "vfat"} {
		device := lab.Disk(t, 64<<20)
		format(t, device, fsType)
		mounter := New(Options{})
		before, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		mounted, err := mounter.MountWritable(t.Context(), device, fsType)
		if err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile("/proc/self/mountinfo"); err != nil || string(after) != string(before) {
			t.Errorf("%s: the mount shows in mountinfo (%v):\n%s", fsType, err, after)
		}
		if path, err := ext4Attribute(mounted.rdev, "reserved_clusters"); fsType == "ext4" {
			if kept, readErr := os.ReadFile(path); err != nil || string(kept) != "0\n" {
				t.Errorf("%q clusters are kept back from files (%v, %v)", kept, err, readErr)
			}
		}
		root, err := mounted.OpenRoot()
		if err != nil {
			t.Fatal(err)
		}
		file, err := root.Create("written")
		if err != nil {
			t.Fatal(err)
		}
		_, writeErr := file.WriteString("here")
		if err := errors.Join(writeErr, file.Close(), root.Close(), mounted.Sync(), mounted.Close()); err != nil {
			t.Fatal(err)
		}
		again, err := mounter.Mount(t.Context(), device, fsType)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		root, err = again.OpenRoot()
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if data, err := root.ReadFile("written"); string(data) != "here" {
			t.Errorf("%s: %q %v", fsType, data, err)
		}
		if err := root.WriteFile("more", nil, 0o600); err == nil {
			t.Errorf("%s: an ordinary mount can be written to", fsType)
		}
	}
}
