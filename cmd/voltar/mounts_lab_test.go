package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
	"voltar/report"
)

// A folder on the way to which a disk belongs, by fstab, takes no backup while that disk is not mounted.
func TestLabRunToADiskThatIsNotMounted(t *testing.T) {
	lab.VG(t, "vg", 200<<20)
	makeExt(t, lab.LV(t, "vg", "little", 16<<20))
	usb := lab.LV(t, "vg", "usb", 64<<20)
	makeExt(t, usb)
	point := t.TempDir()
	const fstab = "/etc/fstab"
	before, err := os.ReadFile(fstab)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, fstab, append(before, []byte("\n"+usb+" "+point+" ext4 noauto 0 0\n")...))
	t.Cleanup(func() { writeFile(t, fstab, before) })
	run := func() (code int, stderr string) {
		t.Helper()
		code, _, stderr = voltar(t, "run", "--no-mail", "--to", filepath.Join(point, "backups"), "--config", newSite(t, "").config, "vg/little")
		return code, stderr
	}

	code, errs := run()
	if left, err := os.ReadDir(point); code != exitUsage || err != nil || len(left) > 0 ||
		!strings.Contains(errs, point+" is not mounted, and is a mountpoint by /etc/fstab") {
		t.Errorf("not mounted: %d, %s, and below the mountpoint %v, %v", code, errs, left, err)
	}
	lab.Do(t, "mount", point)
	t.Cleanup(func() { lab.Do(t, "umount", point) })
	if err := os.Mkdir(filepath.Join(point, "backups"), 0o700); err != nil {
		t.Fatal(err)
	}
	if code, errs := run(); code != 0 {
		t.Errorf("mounted: %d, %s", code, errs)
	}
	if found, err := filepath.Glob(filepath.Join(point, "backups/*/vg/little/*/manifest.json")); len(found) != 1 || err != nil {
		t.Errorf("backups %v, %v", found, err)
	}
}

// A bind mount is a mountpoint, though its device is that of the folder above it.
func TestLabDirectoryOnABindMount(t *testing.T) {
	exports, point := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(exports, "file"), []byte("text"))
	writeFile(t, filepath.Join(point, "below"), []byte("what the mount hides"))
	s := newSite(t, "[[directory]]\nname = \"exports\"\npath = \""+point+"\"\nrequire_mount = \""+point+"\"\n")

	v := wantStatus(t, s.run(t, exitNothing, "@directory/exports"), "@directory/exports", report.VolumeFailed)
	if v.Error == nil || !strings.Contains(v.Error.Message, "nothing is mounted at "+point) {
		t.Errorf("not mounted: %+v", v.Error)
	}
	lab.Do(t, "mount", "--bind", exports, point)
	t.Cleanup(func() { lab.Do(t, "umount", point) })
	wantStatus(t, s.run(t, 0, "@directory/exports"), "@directory/exports", report.VolumeOK)
	if code, out, errs := voltar(t, "ls", "@directory/exports", "--config", s.config); code != 0 || !strings.Contains(out, "file") || strings.Contains(out, "below") {
		t.Errorf("ls: %d %s %s", code, out, errs)
	}
}

// A directory, too, may have more attributes than an archive takes. What is not stored is said.
func TestLabDirectoryWithTooManyAttributes(t *testing.T) {
	disk := lab.Disk(t, 400<<20)
	lab.Do(t, "mkfs.xfs", "-q", disk)
	dir := lab.Mount(t, disk, "defaults")
	file := filepath.Join(dir, "file")
	writeFile(t, file, []byte("text"))
	for i := range 30 {
		if err := unix.Setxattr(file, fmt.Sprintf("user.a%d", i), bytes.Repeat([]byte("x"), 60_000), 0); err != nil {
			t.Fatal(err)
		}
	}
	s := newSite(t, "[[directory]]\nname = \"home\"\npath = \""+dir+"\"\n")
	v := wantStatus(t, s.run(t, 0, "@directory/home"), "@directory/home", report.VolumeOK)
	if len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0].Message, "extended attributes are not stored") {
		t.Errorf("warnings %+v", v.Warnings)
	}
}
