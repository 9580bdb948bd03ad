package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
)

const mib = 1 << 20

// guest is a volume with something on it.
type guest struct {
	name      string
	sizeBytes int64
	pool      string // thin pool that it is in
	make      func(t *testing.T, device string)
}

// odd names what a guest may call its filesystems and partitions.
const odd = `a"$(id)'b\`

// guests are the layouts that every restore has to bring back.
func guests() []guest {
	return []guest{
		{"gpt", 176 * mib, "", func(t *testing.T, device string) {
			partition(t, device, "label: gpt\n"+
				"size=2M, type=21686148-6449-6E6F-744E-656564454649, name=\"grub\"\n"+
				"size=64M, type=L, name=\"a\\x22\\x24(id)'b\"\nsize=8M, type=S\ntype=L, attrs=\"LegacyBIOSBootable GUID:60\"\n")
			scribble(t, device, 0, 440)
			scribble(t, device, 1*mib, 300<<10)
			onPartition(t, device, 2, func(loop string) {
				lab.Do(t, "mkfs.xfs", "-q", "--unsupported", "-L", `$(id)'"`, loop)
				fill(t, loop, "xfs")
			})
			onPartition(t, device, 3, func(loop string) { lab.Do(t, "mkswap", "-q", "-L", "swap $(x)", loop) })
			onPartition(t, device, 4, func(loop string) {
				lab.Do(t, "mkfs.ext4", "-q", "-L", odd, "-m", "3", "-E", "lazy_itable_init=0", loop)
				scribble(t, loop, 0, 1024)
				fill(t, loop, "ext4")
			})
		}},
		{"mbr", 128 * mib, "pool", func(t *testing.T, device string) {
			partition(t, device, "label: dos\nsize=34M, type=c, bootable\ntype=f\nsize=40M, type=83\nsize=40M, type=83\n")
			scribble(t, device, 0, 440)
			scribble(t, device, 512, 100<<10)
			onPartition(t, device, 1, func(loop string) {
				lab.Do(t, "mkfs.vfat", "-F", "16", "-n", "EFI", loop)
				scribble(t, loop, 62, 448)
				fill(t, loop, "vfat")
			})
			onPartition(t, device, 5, func(loop string) {
				lab.Do(t, "mke2fs", "-q", "-t", "ext3", "-I", "128", "-L", "old", loop)
				fill(t, loop, "ext3")
			})
			onPartition(t, device, 6, func(loop string) {
				lab.Do(t, "mke2fs", "-q", "-t", "ext2", "-I", "128", "-b", "1024", "-N", "2000", loop)
				fill(t, loop, "ext2")
			})
		}},
		{"plain", 64 * mib, "", func(t *testing.T, device string) {
			lab.Do(t, "mkfs.ext4", "-q", "-L", "new\nline", device)
			scribble(t, device, 0, 1024)
			fill(t, device, "ext4")
		}},
		{"thin-xfs", 64 * mib, "pool", func(t *testing.T, device string) {
			lab.Do(t, "mkfs.xfs", "-q", "--unsupported", device)
			fill(t, device, "xfs")
		}},
		{"unknown", 8 * mib, "", func(t *testing.T, device string) {
			scribble(t, device, 3*mib, 1*mib)
		}},
	}
}

// partition gives a device a table, as a script for sfdisk has it.
func partition(t *testing.T, device, script string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "sh", "-c", "sfdisk --quiet --no-reread --no-tell-kernel "+device+" < "+file)
}

// onPartition gives a partition a loop device for as long as use runs.
func onPartition(t *testing.T, device string, number int, use func(loop string)) {
	t.Helper()
	table := lab.Do(t, "sh", "-c", fmt.Sprintf("sfdisk --dump %s | grep -E '%[1]sp?%d ' ; sfdisk --dump %[1]s | grep sector-size",
		device, number))
	var start, size, sector int64
	fields := strings.FieldsFunc(table, func(r rune) bool { return strings.ContainsRune(" ,=:\n", r) })
	for i := range len(fields) - 1 {
		for name, value := range map[string]*int64{"start": &start, "size": &size, "sector-size": &sector} {
			if fields[i] == name {
				fmt.Sscan(fields[i+1], value)
			}
		}
	}
	loop := strings.TrimSpace(lab.Do(t, "losetup", "--find", "--show", "--offset", fmt.Sprint(start*sector),
		"--sizelimit", fmt.Sprint(size*sector), device))
	defer lab.Do(t, "losetup", "--detach", loop)
	use(loop)
}

// scribble writes bytes that mean nothing and are not zero.
func scribble(t *testing.T, device string, offset int64, n int) {
	t.Helper()
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i*i>>3) | 1
	}
	if _, err := file.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
}

// fill puts one of everything onto a filesystem.
func fill(t *testing.T, device, kind string) {
	t.Helper()
	options := "defaults"
	if kind == "vfat" {
		options = "utf8,tz=UTC"
	}
	dir := t.TempDir()
	lab.Do(t, "mount", "-t", kind, "-o", options, device, dir)
	defer lab.Do(t, "umount", dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(in("etc/deep/er"), 0o750))
	must(os.WriteFile(in("etc/fstab"), []byte("UUID=x / ext4\n"), 0o644))
	must(os.WriteFile(in("grüße.txt"), []byte("hello"), 0o600))
	must(os.WriteFile(in("large"), []byte(strings.Repeat("0123456789abcdef", 1<<17)), 0o644))
	if kind != "vfat" {
		fillUnix(t, in, kind)
	}
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if kind == "ext4" || kind == "xfs" {
		old = old.Add(123456789)
	}
	for _, name := range []string{"etc/fstab", "etc/deep", "large"} {
		must(os.Chtimes(in(name), old, old))
	}
	if kind == "ext4" {
		lab.Do(t, "chattr", "+i", in("fixed"))
	}
}

// fillUnix adds what only a Unix filesystem can hold.
func fillUnix(t *testing.T, in func(string) string, kind string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(in("fixed"), []byte("immutable"), 0o640))
	must(os.WriteFile(in("set-uid"), []byte("#!"), 0o755))
	must(os.Chown(in("set-uid"), 1234, 70000))
	must(unix.Setxattr(in("set-uid"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	must(os.Chmod(in("set-uid"), 0o751|os.ModeSetuid))
	must(os.Link(in("etc/fstab"), in("etc/deep/again")))
	must(os.Symlink("../../etc/fstab", in("etc/deep/link")))
	must(unix.Mkfifo(in("pipe"), 0o620))
	must(unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(os.WriteFile(in("new\nline \xff"), []byte("x"), 0o644))
	sparse, err := os.Create(in("sparse"))
	must(err)
	_, err = sparse.WriteAt([]byte("end"), 3<<20)
	must(err)
	_, err = sparse.WriteAt([]byte(strings.Repeat("m", 64<<10)), 1<<20)
	must(err)
	must(sparse.Close())
	if kind == "ext2" || kind == "ext3" {
		return // inodes of 128 bytes: attributes are possible, but one of them is enough
	}
	must(unix.Setxattr(in("large"), "user.note", []byte("kept"), 0))
	// An ACL in the kernel's form: version 2; owner rw, user 1234 r, group r, mask r, others none.
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xd2\x04\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	must(unix.Setxattr(in("etc/fstab"), "system.posix_acl_access", []byte(acl), 0))
	must(unix.Setxattr(in("etc/deep/er"), "system.posix_acl_default", []byte(acl), 0))
}

// makeGuests makes all guests in a volume group with a thin pool, and returns what they are like.
func makeGuests(t *testing.T, vg string, wanted ...string) map[string]facts {
	t.Helper()
	lab.VG(t, vg, 2000*mib)
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "600m", "--name", "pool", vg)
	all := map[string]facts{}
	for _, g := range guests() {
		if len(wanted) > 0 && !strings.Contains(" "+strings.Join(wanted, " ")+" ", " "+g.name+" ") {
			continue
		}
		device := "/dev/" + vg + "/" + g.name
		if g.pool == "" {
			lab.LV(t, vg, g.name, g.sizeBytes)
		} else {
			lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", fmt.Sprintf("%db", g.sizeBytes), "--name", g.name, vg+"/"+g.pool)
		}
		g.make(t, device)
		all[g.name] = diskFacts(t, device)
	}
	return all
}

// restoreSite backs up one volume at a time: what is tested here is what comes back.
func restoreSite(t *testing.T) site {
	t.Helper()
	s := newSite(t, "")
	text, err := os.ReadFile(s.config)
	if err == nil {
		err = os.WriteFile(s.config, append([]byte("parallel = 1\n"), text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// restore runs voltar restore, which must end with the code given.
func (s site) restore(t *testing.T, wantCode int, args ...string) (stdout, stderr string) {
	t.Helper()
	code, out, errs := voltar(t, append([]string{"restore", "--config", s.config}, args...)...)
	if code != wantCode {
		t.Fatalf("restore %q: exit code %d, want %d\n%s\n%s", args, code, wantCode, errs, out)
	}
	return out, errs
}

// Every layout comes back onto a new volume, as it was.
func TestLabRestoreEveryLayout(t *testing.T) {
	before := makeGuests(t, "vg")
	s := restoreSite(t)
	s.run(t, 0)
	for name := range before {
		lab.Do(t, "lvremove", "--force", "vg/"+name)
	}
	for name, want := range before {
		t.Run(name, func(t *testing.T) {
			out, _ := s.restore(t, 0, "vg/"+name)
			t.Log(out)
			want.compare(t, diskFacts(t, "/dev/vg/"+name))
			checkLV(t, "vg", name)
		})
	}
}

// checkLV looks whether a volume is as its guest says, and not marked as incomplete.
func checkLV(t *testing.T, vg, name string) {
	t.Helper()
	got := strings.TrimSpace(lab.Do(t, "lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", "|",
		"-o", "lv_size,pool_lv,lv_tags", vg+"/"+name))
	for _, g := range guests() {
		if want := fmt.Sprintf("%d|%s|", g.sizeBytes, g.pool); g.name == name && got != want {
			t.Errorf("the volume is %q, want %q", got, want)
		}
	}
}
