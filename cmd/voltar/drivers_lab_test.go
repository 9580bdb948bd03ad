//go:build types

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/internal/probe"
	"voltar/report"
)

// loadDrivers brings the drivers into the machine's kernel that `make test-types` has built for it.
func loadDrivers(t *testing.T) {
	t.Helper()
	folder := os.Getenv(modulesVariable)
	if folder == "" {
		t.Fatalf("%s names no folder of drivers: these tests run by `make test-types`", modulesVariable)
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"exfat", "ntfs3"} {
		if !strings.Contains(string(known), "\t"+name+"\n") {
			lab.Do(t, "insmod", filepath.Join(folder, name+".ko"))
		}
	}
}

const bothTypes = "[archive]\nmount_types = [\"exfat\", \"ntfs\"]\n"

// drives are volumes with Windows' filesystems in every shape: for each partition, or the whole volume, how it is made.
func drives() []struct {
	name, kind, table string
	mkfs              []string
} {
	return []struct {
		name, kind, table string
		mkfs              []string
	}{
		{"windows", "ntfs", "label: gpt\nsize=40M\nsize=32M\n", []string{
			`LC_ALL=C.UTF-8 mkfs.ntfs -Q -q -F -L "Bücher & \$(X)" -p 2048 -H 255 -S 63 "$1"`,
			`mkfs.ntfs -Q -q -F -c 65536 "$1"; ntfslabel -f --new-serial=0123456789ABCDEF "$1"`,
		}},
		{"data", "ntfs", "", []string{`mkfs.ntfs -Q -q -F -s 4096 -L data "$1"`}},
		{"photos", "exfat", "label: dos\nsize=32M, type=7\nsize=24M, type=7\n", []string{
			`LC_ALL=C.UTF-8 mkfs.exfat -L "Größe & \$X" "$1"`,
			`mkfs.exfat -c 32K "$1"; tune.exfat -I 0xDEADBEEF "$1"`,
		}},
	}
}

// makeDrive makes one filesystem, and fills it.
func makeDrive(t *testing.T, device, kind, mkfs string) {
	t.Helper()
	shell(t, "exec >/dev/null 2>&1; "+mkfs, device)
	if kind == "ntfs" {
		scribble(t, device, 84, 426)
		scribble(t, device, 512, 15*512)
	} else {
		bootCode(t, device)
	}
	fillWindows(t, device, kind)
}

// bootCode gives a new exFAT boot code. The driver mounts it when the sum is right.
func bootCode(t *testing.T, device string) {
	t.Helper()
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	area := []byte(strings.Repeat("boot", 12*1024))
	clear(area[440:510]) // where a partition table and its number would be
	if _, err := file.ReadAt(area[:120], 0); err != nil {
		t.Fatal(err)
	}
	fs, err := probe.ReadFilesystem(file, 40*mib, "exfat")
	if err == nil {
		err = errors.Join(fs.ExFAT.WriteBootCode(file, area), file.Sync())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What is on NTFS and exFAT is stored as files, and comes back onto a new filesystem that is like the old one.
func TestLabTypesComeBack(t *testing.T) {
	loadDrivers(t)
	lab.VG(t, "vg", 500*mib)
	large := lab.Disk4K(t, 100*mib)
	lab.VGOn(t, "vg4k", large)
	before := map[string]facts{}
	for _, d := range drives() {
		device := lab.LV(t, "vg", d.name, 80*mib)
		if d.table == "" {
			makeDrive(t, device, d.kind, d.mkfs[0])
		} else {
			partition(t, device, d.table)
			for i, mkfs := range d.mkfs {
				onPartition(t, device, i+1, func(loop string) { makeDrive(t, loop, d.kind, mkfs) })
			}
		}
		before["vg/"+d.name] = diskFacts(t, device)
	}
	makeDrive(t, lab.LV(t, "vg4k", "camera", 40*mib), "exfat", `mkfs.exfat -c 16K "$1"`) // in sectors of 4096 bytes
	before["vg4k/camera"] = diskFacts(t, "/dev/vg4k/camera")

	s := restoreSiteWith(t, bothTypes)
	for _, v := range s.runAt(t, time.Now(), 0).Volumes {
		_, m := s.newest(t, v.Name)
		if i := slices.IndexFunc(m.Extents, func(x catalog.Extent) bool { return x.State == catalog.StateFiles }); i < 0 {
			t.Errorf("%s has no files", v.Name)
		}
		for _, x := range m.Extents {
			if x.Filesystem != nil && x.State != catalog.StateFiles {
				t.Errorf("%s %s is stored as %s (%s)", v.Name, x.Name, x.State, x.Reason)
			}
		}
		if len(v.Warnings) > 0 {
			t.Errorf("the warnings of %s are %q", v.Name, warnings(v))
		}
	}
	for name, want := range before {
		t.Run(name, func(t *testing.T) {
			wipe(t, "/dev/"+name)
			lab.Do(t, "lvremove", "--force", "--yes", name)
			s.restore(t, 0, name)
			want.compare(t, diskFacts(t, "/dev/"+name))
		})
	}
	t.Run("larger", func(t *testing.T) {
		s.restore(t, 0, "vg/windows", "--to-lv", "vg/larger", "--size", "128M")
		before["vg/windows"].only("p1 ").compare(t, diskFacts(t, "/dev/vg/larger").only("p1 "))
		before["vg/windows"].only("p2 tree").compare(t, diskFacts(t, "/dev/vg/larger").only("p2 tree"))
	})
	t.Run("by hand", func(t *testing.T) {
		wipe(t, "/dev/vg/photos")
		byHand(t, s.folder(t, "vg", "photos"), "/dev/vg/photos")
		want, got := before["vg/photos"], diskFacts(t, "/dev/vg/photos")
		for _, name := range []string{"p1 boot", "p2 boot"} { // there, a sum is needed
			delete(want, name)
			delete(got, name)
		}
		want.compare(t, got)
	})
	t.Run("by hand and by FUSE", func(t *testing.T) {
		folder := s.folder(t, "vg", "data")
		shell(t, `sed -i 's/^    mount -t ntfs3 .*/    ntfs-3g "$LOOP" "$MNT"/' "$1"/RESTORE.txt`, folder)
		wipe(t, "/dev/vg/data")
		byHand(t, folder, "/dev/vg/data")
		withoutRights(before["vg/data"]).compare(t, withoutRights(diskFacts(t, "/dev/vg/data")))
	})
}

// withoutRights leaves out what standard tools do not bring back of NTFS.
func withoutRights(f facts) facts {
	rights := regexp.MustCompile(`mode [0-7]+| system\.[a-z_]+=[0-9a-f]*`)
	bare := facts{}
	for name, text := range f {
		bare[name] = rights.ReplaceAllString(text, "")
	}
	return bare
}

// readAndExecute is a security descriptor: of the administrators, and everyone may read and execute.
const readAndExecute = "01000480300000004000000000000000140000000200" + "1c0001000000000314" +
	"00a9001200010100000000000100000000" + "01020000000000052000000020020000" + "01020000000000052000000020020000"

// fillWindows puts onto a filesystem what Windows' own can hold.
func fillWindows(t *testing.T, device, kind string) {
	t.Helper()
	dir := t.TempDir()
	if kind == "ntfs" {
		// Not by the driver that is to read it, which could understand what it writes and nobody else.
		lab.Do(t, "modprobe", "fuse")
		lab.Do(t, "ntfs-3g", device, dir)
	} else {
		lab.Do(t, "mount", "-t", kind, "-o", "iocharset=utf8", device, dir)
	}
	defer lab.Do(t, "umount", dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	long := strings.Repeat("長", 83) + ".txt"
	folders := []string{"Users", "Users/Ünï", "Users/Ünï/My Documents", "empty folder"}
	for _, name := range folders {
		must(os.Mkdir(in(name), 0o755))
	}
	files := map[string]string{
		"Users/Ünï/My Documents/Résumé 😀.docx": strings.Repeat("docx", 30<<10), long: "long", "none": "", "UPPER.TXT": "upper",
		" leading": "blank", "$(touch owned)'": "shell", "small": "resident in the record",
		"holes": strings.Repeat("\x00", 2*mib) + strings.Repeat("m", 200<<10),
	}
	// Far more than a new NTFS has records for.
	for i := range 150 {
		files[fmt.Sprintf("Users/file number %03d", i)] = strings.Repeat("x", i*10)
	}
	for name, content := range files {
		must(os.WriteFile(in(name), []byte(content), 0o644))
	}
	if kind == "ntfs" {
		descriptor, err := hex.DecodeString(readAndExecute)
		must(err)
		for _, name := range folders {
			files[name] = ""
		}
		for name := range files {
			must(unix.Setxattr(in(name), "system.ntfs_acl", descriptor, 0))
		}
		must(unix.Setxattr(in("UPPER.TXT"), "system.ntfs_attrib_be", []byte{0, 0, 0, 0x22}, 0)) // hidden
		must(unix.Setxattr(in("small"), "system.ntfs_attrib_be", []byte{0, 0, 0, 0x21}, 0))     // read-only
		must(os.Link(in("UPPER.TXT"), in("Users/again")))
	}
	old := time.Date(2001, 2, 3, 4, 5, 6, 780000000, time.UTC)
	for _, name := range []string{"UPPER.TXT", "empty folder", long, "Users/Ünï"} {
		must(os.Chtimes(in(name), old, old))
	}
}

// What a driver must not or cannot mount is an image, and what it cannot read of what it mounts is told. What it can read,
// is there.
func TestLabTypesThatAreNotWhole(t *testing.T) {
	loadDrivers(t)
	lab.VG(t, "vg", 400*mib)
	const mft, record = 4 * 4096, 1024 // as mkfs.ntfs has them
	cases := []struct {
		name, kind string
		harm       func(device string)
		state      catalog.State
		reason     string // of an image
		warning    string
		file       string // that is damaged, or that must be there
	}{
		{"dirty", "ntfs", func(device string) { patch(t, device, mft+3*record+0x1a2, "\x01") }, catalog.StateImage, "chkdsk", "", ""},
		{"asleep", "ntfs", func(device string) { memory(t, device, "hibr") }, catalog.StateImage, "a Windows hibernates on it", "", ""},
		{"awake", "ntfs", func(device string) { memory(t, device, "RSTR") }, catalog.StateFiles, "", "", "hiberfil.sys"},
		{"rootless", "ntfs", func(device string) { patch(t, device, mft+5*record, strings.Repeat("X", record)) },
			catalog.StateImage, "cannot be mounted", "check the filesystem in the guest", ""},
		{"recordless", "ntfs", func(device string) { patch(t, device, mft+70*record, strings.Repeat("X", record)) },
			catalog.StateFiles, "", "", "file6"},
		{"bootless", "exfat", func(device string) { patch(t, device, 11*512, "XXXX") },
			catalog.StateImage, "Invalid boot checksum", "check the filesystem in the guest", ""},
		{"astray", "exfat", func(device string) {
			// The cluster that a file begins with stands in the entry before its name.
			patch(t, device, find(t, device, "\xc1\x00f\x00i\x00l\x00e\x003\x00")-32+20, "\xf0\xff\xff\x00")
		}, catalog.StateFiles, "", "", "file3"},
		{"live-ntfs", "ntfs", func(device string) { mountAndWrite(t, device, "ntfs3") }, catalog.StateFiles, "", "", "just written"},
		{"live-exfat", "exfat", func(device string) { mountAndWrite(t, device, "exfat") }, catalog.StateFiles, "", "", "just written"},
	}
	for _, c := range cases {
		device := lab.LV(t, "vg", c.name, 24*mib)
		makeSmall(t, device, c.kind)
		c.harm(device)
	}

	s := restoreSiteWith(t, bothTypes)
	result := s.runAt(t, time.Now(), 3)
	for _, c := range cases {
		v := volume(t, result, "vg/"+c.name)
		folder, m := s.newest(t, v.Name)
		x := m.Extents[0]
		if len(m.Extents) != 1 || x.State != c.state || !strings.Contains(x.Reason, c.reason) {
			t.Errorf("%s is stored as %s (%s), want %s (%s)", c.name, x.State, x.Reason, c.state, c.reason)
			continue
		}
		if text := warnings(v); text == "" != (c.warning == "") {
			t.Errorf("the warnings of %s are %q, want %q", c.name, text, c.warning)
		} else if c.warning != "" && !strings.Contains(v.Warnings[0].Hint, c.warning) {
			t.Errorf("the hint of %s is %q, want %q", c.name, v.Warnings[0].Hint, c.warning)
		}
		want := report.VolumeOK
		switch {
		case c.state == catalog.StateImage:
			shell(t, `zcat "$1" | cmp - "$2"`, filepath.Join(folder, x.Archive), "/dev/vg/"+c.name)
		case strings.HasPrefix(c.file, "file"):
			want = report.VolumeDamaged
			if x.DamagedCount != 1 || x.Damaged[0].Path != c.file {
				t.Errorf("%s has the damaged files %+v, want %s", c.name, x.Damaged, c.file)
			}
		default:
			shell(t, `tar -tzf "$1" | grep -qE "^(\./)?$2\$"`, filepath.Join(folder, x.Archive), c.file)
		}
		if v.Status != want {
			t.Errorf("%s is %s, want %s", c.name, v.Status, want)
		}
	}
}

// makeSmall makes a filesystem with the files file0 to file7.
func makeSmall(t *testing.T, device, kind string) {
	t.Helper()
	if kind == "ntfs" {
		file := filepath.Join(t.TempDir(), "file")
		writeFile(t, file, []byte(strings.Repeat("f", 20000)))
		shell(t, `mkfs.ntfs -Q -q -F "$1" 2>/dev/null; for i in 0 1 2 3 4 5 6 7; do ntfscp -q "$1" "$2" "file$i"; done`, device, file)
		return
	}
	shell(t, `mkfs.exfat "$1" >/dev/null`, device)
	dir := t.TempDir()
	lab.Do(t, "mount", "-t", kind, device, dir)
	defer lab.Do(t, "umount", dir)
	for i := range 8 {
		writeFile(t, filepath.Join(dir, fmt.Sprintf("file%d", i)), []byte(strings.Repeat("f", 20000)))
	}
}

// memory puts onto an NTFS the file that Windows keeps its memory in, which begins so.
func memory(t *testing.T, device, head string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "memory")
	writeFile(t, file, []byte(head+strings.Repeat("m", 4096)))
	lab.Do(t, "ntfscp", "-q", device, file, "hiberfil.sys")
}

// mountAndWrite has a filesystem mounted until the test ends, with a file in memory alone.
func mountAndWrite(t *testing.T, device, driver string) {
	t.Helper()
	dir := t.TempDir()
	lab.Do(t, "mount", "-t", driver, device, dir)
	t.Cleanup(func() { lab.Do(t, "umount", dir) })
	writeFile(t, filepath.Join(dir, "just written"), []byte("now"))
}

// patch writes a text over what a device holds.
func patch(t *testing.T, device string, offset int64, text string) {
	t.Helper()
	file, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte(text), offset)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// find returns where the only text of a kind lies on a device.
func find(t *testing.T, device, text string) int64 {
	t.Helper()
	content, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(content), text); n != 1 {
		t.Fatalf("%q is %d times on %s", text, n, device)
	}
	return int64(strings.Index(string(content), text))
}
