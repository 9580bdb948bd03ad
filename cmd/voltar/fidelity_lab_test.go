package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
	"voltar/report"
)

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// peakMemoryBytes is what a run may take however large its volumes are.
const peakMemoryBytes = 200 << 20

// A GPT disk with ext4, xfs, swap and vfat, an MBR disk with vfat and a logical ext4, and a volume of nothing known are
// backed up while their filesystems are mounted and their journals not yet written back. Standard tools bring back
// identical trees. On the way the maps bear kpartx's names and the replayed snapshot passes e2fsck.
func TestLabTreesComeBackIdentical(t *testing.T) {
	lab.VG(t, "vg", 1400<<20)
	lab.LV(t, "vg", "disk1", 176<<20)
	gpt := partitionedDisk(t, "vg-disk1", "label: gpt\n"+
		"size=80M, name=\"sys\"\nsize=48M\nsize=16M, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\nsize=16M\n")
	lab.LV(t, "vg", "disk-b", 64<<20)
	mbr := partitionedDisk(t, "vg-disk--b", "label: dos\nsize=16M, type=c, bootable\nsize=40M, type=5\n/dev/x5 : size=32M, type=83\n")
	blob := lab.LV(t, "vg", "blob", 256<<20)

	makeExt(t, gpt[0], "-I", "256")
	makeXFS(t, gpt[1])
	lab.Do(t, "mkswap", "--label", "pillow", gpt[2])
	lab.Do(t, "mkfs.vfat", "-n", "BOOT", gpt[3])
	lab.Do(t, "mkfs.vfat", mbr[0])
	makeExt(t, mbr[2])
	fillDevice(t, blob, 200<<20)

	roots := map[string]string{"disk1 p1": lab.Mount(t, gpt[0], "user_xattr,acl"), "disk1 p2": lab.Mount(t, gpt[1], "defaults"),
		"disk1 p4": lab.Mount(t, gpt[3], "utf8,tz=UTC,umask=022"), "disk-b p1": lab.Mount(t, mbr[0], "utf8,tz=UTC,umask=022"),
		"disk-b p5": lab.Mount(t, mbr[2], "user_xattr,acl")}
	for _, name := range []string{"disk1 p1", "disk1 p2", "disk-b p5"} {
		fillTree(t, roots[name])
	}
	for _, name := range []string{"disk1 p4", "disk-b p1"} {
		writeFile(t, filepath.Join(roots[name], "日本語のとても長い名前.txt"), []byte("utf8\n"))
	}
	if err := os.Truncate(filepath.Join(roots["disk1 p1"], "huge"), 9<<30); err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 32<<20)
	_, _ = rand.Read(random)
	writeFile(t, filepath.Join(roots["disk1 p1"], "random"), random)
	for _, root := range roots {
		syncFilesystem(t, root)
	}
	for _, name := range []string{"disk1 p1", "disk1 p2", "disk-b p5"} {
		writeJournalled(t, filepath.Join(roots[name], "in the journal"))
	}
	before := hostState(t)

	s := newSite(t, "[snapshot]\nmin_size = \"16MiB\"\n")
	p := start(t, "run", "--json", "--log-level", "debug", "--config", s.config)
	// The one that takes a while, so that the run is not through with it before it stops.
	if !p.until("type=ext4", "/vg-disk1--voltar--") {
		t.Fatalf("the large ext4 was not mounted: %d\n%s", p.wait(t), &p.stderr)
	}
	p.signal(t, syscall.SIGSTOP)
	checkMaps(t)
	p.signal(t, syscall.SIGCONT)
	code := p.wait(t)
	result := parseRun(t, code, 0, p.stdout.Bytes(), p.stderr.String())
	if peak := p.peakBytes(t); peak > peakMemoryBytes {
		t.Errorf("the run took %d MiB of memory", peak>>20)
	}
	if len(result.Volumes) != 3 {
		t.Fatalf("%+v", result.Volumes)
	}
	if after := hostState(t); after != before {
		t.Errorf("the run left\n%s\nwhere there was\n%s", after, before)
	}
	t.Log(report.Text(result, report.Options{}))

	disk1, diskB := s.backupsOf(t, "vg/disk1")[0], s.backupsOf(t, "vg/disk-b")[0]
	checkSums(t, disk1, diskB, s.backupsOf(t, "vg/blob")[0])
	checkLedger(t, disk1, map[string]catalog.State{"boot": "image", "p1": "files", "p2": "files", "p3": "swap", "p4": "files"})
	checkLedger(t, diskB, map[string]catalog.State{"boot": "image", "p1": "files", "p5": "files"})
	if swap := extentOf(t, manifest(t, disk1), "p3").Filesystem; swap == nil || swap.Label != "pillow" || swap.UUID == "" {
		t.Errorf("the swap area is recorded as %+v", swap)
	}
	checkRestores(t, roots, map[string]string{"disk1": disk1, "disk-b": diskB})
	got := lab.Do(t, "sh", "-c", "zcat "+s.backupsOf(t, "vg/blob")[0]+"/*.img.gz | cmp - "+blob)
	if got != "" {
		t.Error(got)
	}
}

// partitionedDisk writes a partition table to a device-mapper device, maps it with kpartx until the test ends, and returns
// the devices of its partitions.
func partitionedDisk(t *testing.T, name, script string) []string {
	t.Helper()
	device := "/dev/mapper/" + name
	file := filepath.Join(t.TempDir(), "table")
	writeFile(t, file, []byte(script))
	lab.Do(t, "sh", "-c", "sfdisk --quiet --no-reread --no-tell-kernel "+device+" <"+file)
	var devices []string
	for line := range strings.Lines(lab.Do(t, "kpartx", "-av", device)) {
		devices = append(devices, "/dev/mapper/"+strings.Fields(line)[2])
	}
	t.Cleanup(func() { lab.Do(t, "kpartx", "-d", device) })
	return devices
}

// fillDevice writes data to the beginning of a device, of which compression makes something, but not much.
func fillDevice(t *testing.T, device string, sizeBytes int) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for written := 0; written < sizeBytes; written += len(block) {
		_, _ = rand.Read(block[:len(block)/2])
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// fillTree makes one entry of every kind that an archive must keep.
func fillTree(t *testing.T, root string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(root, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, mode := range []os.FileMode{0, 0o400, 0o644, 0o755 | os.ModeSetuid, 0o755 | os.ModeSetgid, 0o777 | os.ModeSticky} {
		name := in(fmt.Sprintf("mode%d", i))
		writeFile(t, name, fmt.Appendf(nil, "content %d", i))
		check(os.Chown(name, 1000+i, 4000000000+i))
		check(os.Chmod(name, mode))
		check(os.Chtimes(name, time.Time{}, time.Date(1999+i, 2, 3, 4, 5, 6, 123456789+i, time.UTC)))
	}
	writeFile(t, in("attributes"), []byte("x"))
	check(unix.Setxattr(in("attributes"), "user.empty", nil, 0))
	check(unix.Setxattr(in("attributes"), "user.binary", []byte("a\x00b\nc=\xff"), 0))
	check(unix.Setxattr(in("attributes"), "trusted.overlay", []byte("y"), 0))
	check(unix.Setxattr(in("attributes"), "security.evm", []byte("sealed"), 0))
	writeFile(t, in("ping"), []byte("#!"))
	check(os.Chown(in("ping"), 5, 6))
	lab.Do(t, "setcap", "cap_net_raw+ep", in("ping"))
	check(os.Mkdir(in("acl"), 0o750))
	lab.Do(t, "setfacl", "-m", "u:1234:rwx,g:77:r-x,d:u:4321:r--,d:g::---", in("acl"))
	writeFile(t, in("acl/inherits"), []byte("acl"))
	check(os.Link(in("attributes"), in("acl/hard link to attributes")))
	check(os.Link(in("attributes"), in("a first name")))
	check(os.Symlink("../nowhere/日本\xff", in("symlink")))
	check(os.Lchown(in("symlink"), 12, 13))
	check(unix.Mkfifo(in("fifo"), 0o610))
	check(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	check(unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	check(unix.Mknod(in("socket"), unix.S_IFSOCK|0o600, 0))
	check(os.Remove(in("socket"))) // tar cannot hold one; the index does, which is tested with it
	writeFile(t, in("latin1 \xe9\xff\\n\ttab\nnewline"), []byte("bytes"))
	writeFile(t, in(strings.Repeat("n", 255)), []byte("long"))
	deep := root
	for range 24 {
		deep = filepath.Join(deep, strings.Repeat("d", 100))
		check(os.Mkdir(deep, 0o711))
	}
	writeFile(t, filepath.Join(deep, "bottom"), []byte("deep"))
	check(os.Mkdir(in("empty folder"), 0o700|os.ModeSticky))
	writeFile(t, in("empty file"), nil)

	sparse, err := os.Create(in("huge"))
	check(err)
	for _, at := range []int64{1 << 20, 5 << 20, 8<<30 + 64<<10} {
		_, err := sparse.WriteAt(bytes.Repeat([]byte("data"), 16<<10), at)
		check(err)
	}
	check(sparse.Truncate(8<<30 + 1<<20))
	check(sparse.Close())
	check(os.Chtimes(in("acl"), time.Time{}, time.Unix(1234567890, 987654321)))
	check(os.Chtimes(deep, time.Time{}, time.Unix(-1e6, 0)))
	check(unix.UtimesNanoAt(unix.AT_FDCWD, in("symlink"), []unix.Timespec{{Sec: 1}, {Sec: 77, Nsec: 88}}, unix.AT_SYMLINK_NOFOLLOW))
}

// checkMaps compares the maps of a run that stands still with what kpartx would call them, and lets e2fsck look at a
// filesystem whose journal the mount has replayed.
func checkMaps(t *testing.T) {
	t.Helper()
	var snapshots, maps []string
	for line := range strings.Lines(lab.Do(t, "dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o", "uuid,name")) {
		uuid, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.HasPrefix(uuid, "LVM-voltar-"):
			maps = append(maps, name)
		case strings.Contains(name, "-voltar--") && !strings.HasSuffix(name, "-cow"):
			snapshots = append(snapshots, name)
		}
	}
	if len(maps) == 0 {
		t.Fatalf("no map stands:\n%s", lab.Do(t, "dmsetup", "ls"))
	}
	var want []string
	for _, snapshot := range snapshots {
		if !slices.ContainsFunc(maps, func(name string) bool { return strings.HasPrefix(name, snapshot) }) {
			continue // another command may be about to make it, or to remove it: it does not stand still with the run
		}
		for line := range strings.Lines(lab.Do(t, "kpartx", "-l", "/dev/mapper/"+snapshot)) {
			if name, _, found := strings.Cut(line, " : "); found {
				want = append(want, name)
			}
		}
	}
	checked := 0
	for _, name := range maps {
		if !slices.Contains(want, name) {
			t.Errorf("map %s, where kpartx has %q", name, want)
		}
		if isExt(t, "/dev/mapper/"+name) {
			t.Log(lab.Do(t, "e2fsck", "-f", "-n", "/dev/mapper/"+name))
			checked++
		}
	}
	if checked == 0 {
		t.Errorf("no ext4 is mapped: %q", maps)
	}
}

func isExt(t *testing.T, device string) bool {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	magic := make([]byte, 2)
	_, err = f.ReadAt(magic, 1024+56)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return magic[0] == 0x53 && magic[1] == 0xef
}

func checkLedger(t *testing.T, folder string, want map[string]catalog.State) {
	t.Helper()
	m := manifest(t, folder)
	var next int64
	for _, x := range m.Extents {
		if x.OffsetBytes != next {
			t.Errorf("%s: %s begins at %d, the one before ends at %d", folder, x.Name, x.OffsetBytes, next)
		}
		next = x.OffsetBytes + x.SizeBytes
	}
	if next != m.Source.SizeBytes {
		t.Errorf("%s: the ledger ends at %d of %d", folder, next, m.Source.SizeBytes)
	}
	for name, state := range want {
		if x := extentOf(t, m, name); x.State != state {
			t.Errorf("%s: %s is stored as %s (%s), want %s", folder, name, x.State, x.Reason, state)
		}
	}
}

// checkRestores unpacks each archive with GNU tar and with bsdtar and compares the trees with their origins.
func checkRestores(t *testing.T, roots, folders map[string]string) {
	t.Helper()
	device := lab.LV(t, "vg", "restored", 320<<20)
	makeExt(t, device, "-O", "^has_journal")
	target := lab.Mount(t, device, "user_xattr,acl")
	unpackers := map[string]string{
		"GNU tar": "tar --xattrs --xattrs-include='*' --acls --numeric-owner -xzpf",
		"bsdtar":  "bsdtar -xzpf",
	}
	for name, root := range roots {
		lv, part, _ := strings.Cut(name, " ")
		archive := filepath.Join(folders[lv], lv+"."+part+".tar.gz")
		want := treeOf(t, root)
		for tool, command := range unpackers {
			dir := filepath.Join(target, "tree")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			lab.Do(t, "sh", "-c", "cd "+dir+" && LC_ALL=C.UTF-8 "+command+" "+archive)
			got := treeOf(t, dir)
			if tool == "bsdtar" { // sets the time of a folder that is there before it fills it
				top := got["."]
				top.mtime = want["."].mtime
				got["."] = top
			}
			compareTrees(t, tool+" of "+name, want, got)
			lab.Do(t, "rm", "-rf", dir)
		}
	}
}
