package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"voltar/internal/hostcmd"
)

// On a quiet machine.
const (
	// commandTimeLimit holds for each command that a test runs with Do.
	commandTimeLimit = 2 * time.Minute
	// detachTimeLimit is for udevd to close a device that it looks at.
	detachTimeLimit = 15 * time.Second
)

// Inside reports whether this process runs in a lab machine. The processor is asked, because a setting could be wrong,
// and a test that believed it would then run among the host's own volumes.
func Inside() bool {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !bytes.Contains(cpu, []byte("User Mode Linux")) {
		return false
	}
	_, err = os.Stat("/lab/machine.env")
	return err == nil
}

// Do runs a command and returns what it wrote to standard output. It fails the test when the command fails.
func Do(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	return command(context.WithoutCancel(t.Context()), name, args...) // cleanups run when the test's own context has ended
}

// command runs a command to its end and returns what it wrote to standard output.
func command(ctx context.Context, name string, args ...string) (string, error) {
	return commandWithin(ctx, Patience(commandTimeLimit), name, args...)
}

func commandWithin(ctx context.Context, limit time.Duration, name string, args ...string) (string, error) {
	res, err := hostcmd.New(hostcmd.Options{}).Run(ctx, hostcmd.Cmd{Name: name, Args: args, Timeout: limit})
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(append([]string{name}, args...), " "), err, res.Stderr)
	}
	return string(res.Stdout), nil
}

// Disk returns a loop device over a new sparse file in memory. It is detached when the test ends.
func Disk(t testing.TB, sizeBytes int64) string {
	t.Helper()
	return diskOf(t, sizeBytes, "512")
}

// Disk4K is Disk with logical sectors of 4096 bytes.
func Disk4K(t testing.TB, sizeBytes int64) string {
	t.Helper()
	return diskOf(t, sizeBytes, "4096")
}

func diskOf(t testing.TB, sizeBytes int64, sectorSize string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := NewDisk(image, sizeBytes); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(Do(t, "losetup", "--find", "--show", "--sector-size", sectorSize, image))
	t.Cleanup(func() {
		if _, err := try(t, "losetup", "--detach", device); err != nil {
			t.Error(err)
		}
		waitUntilDetached(t, device)
	})
	return device
}

// waitUntilDetached returns once the kernel has let go of a loop device. A device that someone still has open, as udevd
// may for a moment, goes only with the last close.
func waitUntilDetached(t testing.TB, device string) {
	t.Helper()
	attribute := filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file")
	patience := Patience(detachTimeLimit)
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(attribute); errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	t.Errorf("%s is still attached %s after it was detached: something holds it open", device, patience)
}

// VG makes a volume group on a new Disk. When the test ends it is removed with all its logical volumes, but snapshots
// that still stand then fail the test: whoever makes one has to remove it.
func VG(t testing.TB, name string, sizeBytes int64) {
	t.Helper()
	VGOn(t, name, Disk(t, sizeBytes))
}

// VGOn is VG on devices that there are.
func VGOn(t testing.TB, name string, devices ...string) {
	t.Helper()
	Do(t, "vgcreate", append([]string{"--yes", name}, devices...)...)
	t.Cleanup(func() {
		left, err := try(t, "lvs", "--noheadings", "-o", "lv_full_name,lv_tags", "--select",
			`lv_role=snapshot || lv_role=thinsnapshot`, name)
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(left) {
			t.Errorf("the test left the snapshot %s", strings.TrimSpace(line))
		}
		if _, err := try(t, "vgremove", "--force", "--yes", name); err != nil {
			t.Error(err)
		}
		if _, err := try(t, "pvremove", append([]string{"--yes"}, devices...)...); err != nil {
			t.Error(err)
		}
	})
}

// LV makes a logical volume, linear unless options of lvcreate say otherwise, and returns its device, /dev/VG/NAME. It
// goes with its volume group.
func LV(t testing.TB, vg, name string, sizeBytes int64, options ...string) string {
	t.Helper()
	args := []string{"--yes", "--wipesignatures", "n", "--size", fmt.Sprintf("%db", sizeBytes), "--name", name}
	Do(t, "lvcreate", append(append(args, options...), vg)...)
	return "/dev/" + vg + "/" + name
}

// Mount mounts a device on a new folder until the test ends and returns the folder. Options are those of mount -o.
func Mount(t testing.TB, device, options string) string {
	t.Helper()
	dir := t.TempDir()
	Do(t, "mount", "-o", options, device, dir)
	t.Cleanup(func() {
		if _, err := try(t, "umount", dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// traces lists what stands on this machine that a test could leave behind: device-mapper devices, logical volumes, loop
// devices and mounts in whichever namespace.
func traces() ([]string, error) {
	var all []string
	for _, list := range []func() ([]string, error){
		func() ([]string, error) { return blockDevices("dm-*/dm/name", "the device-mapper device") },
		func() ([]string, error) { return blockDevices("loop*/loop/backing_file", "a loop device over") },
		logicalVolumes,
		mounts,
	} {
		found, err := list()
		if err != nil {
			return nil, fmt.Errorf("cannot tell what a test left: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// blockDevices reads one attribute of the block devices that have it.
func blockDevices(pattern, what string) ([]string, error) {
	paths, err := filepath.Glob("/sys/block/" + pattern)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, path := range paths {
		name, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			continue // gone since the folder was read, or since the file was opened
		}
		if err != nil {
			return nil, err
		}
		found = append(found, what+" "+strings.TrimSpace(string(name)))
	}
	return found, nil
}

func logicalVolumes() ([]string, error) {
	out, err := command(context.Background(), "lvs", "--all", "--noheadings", "-o", "lv_full_name")
	var found []string
	for line := range strings.Lines(out) {
		found = append(found, "the logical volume "+strings.TrimSpace(line))
	}
	return found, err
}

// mounts lists the mounts that any process sees, without the number that tells two of one kind apart: namespaces have
// copies of each other's.
func mounts() ([]string, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) {
			continue // the process has ended
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 6 {
				return nil, fmt.Errorf("cannot read the line %q of %s", line, path)
			}
			found = append(found, fmt.Sprintf("the mount of %s on %s", fields[2], fields[4]))
		}
	}
	return found, nil
}
