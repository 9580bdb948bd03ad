package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// trespass is a file that the names of guests' filesystems and partitions make, when anything runs them as commands.
const trespass = "/owned"

// guests are the layouts that every restore has to bring back.
func guests() []guest {
	return []guest{
		{"gpt", 176 * mib, "", func(t *testing.T, device string) {
			partition(t, device, "label: gpt\n"+
				"size=2M, type=21686148-6449-6E6F-744E-656564454649, name=\"grub\"\n"+
				"size=64M, type=L, name=\"\\x22\\x24(>/owned)'\\x0a    >/owned\"\nsize=8M, type=S\ntype=L, attrs=\"LegacyBIOSBootable GUID:60\"\n")
			scribble(t, device, 0, 440)
			scribble(t, device, 1*mib, 300<<10)
			onPartition(t, device, 2, func(loop string) {
				lab.Do(t, "mkfs.xfs", "-q", "--unsupported", "-L", `$(>/owned)'"`, loop)
				fill(t, loop, "xfs")
			})
			onPartition(t, device, 3, func(loop string) { lab.Do(t, "mkswap", "-q", "-L", "\"'$(>/owned)", loop) })
			onPartition(t, device, 4, func(loop string) {
				lab.Do(t, "mkfs.ext4", "-q", "-L", `"'$(>/owned)b\`, "-m", "3", "-E", "lazy_itable_init=0", loop)
				scribble(t, loop, 0, 1024)
				fill(t, loop, "ext4")
			})
		}},
		{"mbr", 128 * mib, "pool", func(t *testing.T, device string) {
			partition(t, device, "label: dos\nsize=34M, type=c, bootable\ntype=f\nsize=40M, type=83\nsize=40M, type=83\n")
			scribble(t, device, 0, 440)
			scribble(t, device, 512, 100<<10)
			onPartition(t, device, 1, func(loop string) {
				lab.Do(t, "mkfs.vfat", "-F", "16", "-n", "$(X)'", loop)
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
			lab.Do(t, "mkfs.ext4", "-q", "-L", "l\n    >/owned\n", device)
			scribble(t, device, 0, 1024)
			fill(t, device, "ext4")
		}},
		{"thin-xfs", 64 * mib, "pool", func(t *testing.T, device string) {
			lab.Do(t, "mkfs.xfs", "-q", "--unsupported", device)
			fill(t, device, "xfs")
		}},
		{"unknown", 8 * mib, "", func(t *testing.T, device string) {
			scribble(t, device, 3*mib, 1*mib)
			scribble(t, device, 5*mib+8192, 5000) // less than a block of any thin pool, and not where one begins
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
				_, _ = fmt.Sscan(fields[i+1], value) // one that is no number stays 0, and differs
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
	return restoreSiteWith(t, "")
}

// restoreSiteWith is restoreSite with more in its configuration.
func restoreSiteWith(t *testing.T, more string) site {
	t.Helper()
	s := newSite(t, more)
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

// One set of guests is backed up once, and brought back in every way.
func TestLabRestore(t *testing.T) {
	before := makeGuests(t, "vg")
	s := restoreSite(t)
	s.run(t, 0)
	for _, test := range []struct {
		name string
		run  func(*testing.T, site, map[string]facts)
	}{
		{"refuses", restoreRefuses},
		{"dry run", restoreDryRun},
		{"image", restoreImage},
		{"folder", restoreFolder},
		{"larger and smaller", restoreOtherSizes},
		{"old blocks", restoreOldBlocks},
		{"one partition in place", restoreOnePartition},
		{"drill", restoreDrill},
		{"damaged", restoreDamaged},
		{"every layout", restoreEveryLayout},
		{"by hand", restoreByHand},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, before) })
	}
	if _, err := os.Stat(trespass); err == nil {
		t.Error("a guest's name was run as a command")
	}
}

// wipe leaves nothing of what a device held. Zeros would not do: much of what a restore has to write are zeros.
func wipe(t *testing.T, device string) {
	t.Helper()
	file, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	garbage := bytes.Repeat([]byte{0xa5}, mib)
	for err == nil {
		_, err = file.Write(garbage)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// Every layout comes back onto a new volume, as it was. The new one gets the space of the old one.
func restoreEveryLayout(t *testing.T, s site, before map[string]facts) {
	for name, want := range before {
		t.Run(name, func(t *testing.T) {
			wipe(t, "/dev/vg/"+name)
			lab.Do(t, "lvremove", "--force", "vg/"+name)
			s.restore(t, 0, "vg/"+name)
			want.compare(t, diskFacts(t, "/dev/vg/"+name))
			checkLV(t, "vg", name, "voltar.was="+string(manifest(t, s.folder(t, "vg", name)).Source.Identity()))
		})
	}
}

// Every layout comes back by the commands in its RESTORE.txt, without voltar.
func restoreByHand(t *testing.T, s site, before map[string]facts) {
	for name, want := range before {
		t.Run(name, func(t *testing.T) {
			wipe(t, "/dev/vg/"+name)
			lab.Do(t, "lvremove", "--force", "vg/"+name)
			byHand(t, s.folder(t, "vg", name), "")
			checkLV(t, "vg", name)
			withoutFlags(want).compare(t, withoutFlags(diskFacts(t, "/dev/vg/"+name)))
		})
	}
}

// withoutFlags leaves out what chattr sets, which no tar brings back.
func withoutFlags(f facts) facts {
	flags := regexp.MustCompile(` flags [0-9a-f-]+`)
	bare := facts{}
	for name, text := range f {
		bare[name] = flags.ReplaceAllString(text, "")
	}
	return bare
}

// folder is that of the one backup of a volume.
func (s site) folder(t *testing.T, vg, lv string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.backups, "volume-host", vg, lv, "*Z"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v %v", found, err)
	}
	return found[0]
}

// byHand does what the RESTORE.txt in a folder says: onto a volume made by its own words, or onto target.
func byHand(t *testing.T, folder, target string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "RESTORE.txt"))
	if err != nil {
		t.Fatal(err)
	}
	script := "cd " + folder + "\n"
	for line := range strings.Lines(string(text)) {
		if command, found := strings.CutPrefix(line, "    "); found {
			script += command
		} else if strings.HasPrefix(line, "   lvcreate ") && target == "" {
			lab.Do(t, "sh", "-c", line)
		}
	}
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	// A name that is wrong must not become a file in memory.
	const nowhere = "/dev/vg/nowhere"
	out, err := exec.CommandContext(t.Context(), "env", "TARGET="+nowhere, "sh", file).CombinedOutput()
	if _, statErr := os.Stat(nowhere); err == nil || statErr == nil || !strings.Contains(string(out), "there is no "+nowhere) {
		t.Errorf("%v, with the target: %v\n%s", err, statErr, out)
	}
	lab.Do(t, "env", "TARGET="+target, "LC_ALL=C.UTF-8", "sh", file)
}

// A target that holds or does something is refused, by name, and nothing changes.
func restoreRefuses(t *testing.T, s site, before map[string]facts) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	mounted := t.TempDir()
	lab.Do(t, "mount", "-o", "ro", "/dev/vg/plain", mounted)
	defer lab.Do(t, "umount", mounted)
	inUse, err := os.Open("/dev/vg/thin-xfs")
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	for _, c := range []struct {
		name, say string
		code      int
		args      []string
	}{
		{"a partition table", "a gpt partition table with 4 partitions", 1, []string{"vg/gpt"}},
		{"a filesystem", "xfs", 1, []string{"vg/unknown", "--to-lv", "vg/thin-xfs"}},
		{"mounted", "mount " + mounted, 1, []string{"vg/plain", "--force"}},
		{"mounted, as a device", "mount " + mounted, 1, []string{"vg/unknown", "--force", "--to-device", "/dev/vg/plain"}},
		{"open", "process", 1, []string{"vg/thin-xfs", "--force"}},
		{"a file", "a file of 4 B", 1, []string{"vg/plain", "--to-image", taken}},
		{"a folder", "1 entry", 1, []string{"vg/plain", "--to-dir", dir}},
		{"too small", "do not fit", 2, []string{"vg/gpt", "--to-image", dir + "/small", "--size", "78M"}},
		{"an image of another size", "does not fit", 2, []string{"vg/unknown", "--to-lv", "vg/none", "--size", "4M"}},
		{"no such pool", "no thin pool", 2, []string{"vg/plain", "--to-lv", "vg/none", "--thin-pool", "pond"}},
		{"no such group", "no volume group", 2, []string{"vg/plain", "--to-lv", "gone/none"}},
		{"no such partition", `no partition "p9"`, 2, []string{"vg/gpt", "--to-lv", "vg/none", "--partition", "p9"}},
		{"another disk", "not that of the backup", 2, []string{"vg/gpt", "--to-lv", "vg/mbr", "--partition", "p4", "--force"}},
		{"two targets", "give one of", 2, []string{"vg/gpt", "--to-lv", "vg/none", "--to-dir", dir}},
		{"no such backup", "no such backup", 1, []string{"vg/nothing"}},
	} {
		_, errs := s.restore(t, c.code, c.args...)
		if !strings.Contains(errs, c.say) {
			t.Errorf("%s: %q is not said in\n%s", c.name, c.say, errs)
		}
	}
	if got := lab.Do(t, "lvs", "--noheadings", "-o", "lv_tags", "vg"); strings.TrimSpace(got) != "" {
		t.Errorf("a refused target was marked: %q", got)
	}
	before["gpt"].compare(t, diskFacts(t, "/dev/vg/gpt"))
}

// A dry run names everything and does nothing.
func restoreDryRun(t *testing.T, s site, _ map[string]facts) {
	volumes := lab.Do(t, "lvs", "-o", "lv_name,lv_tags", "vg")
	out, _ := s.restore(t, 0, "vg/gpt", "--to-lv", "vg/other", "--dry-run")
	for _, want := range []string{
		"create volume vg/other of 176 MiB in volume group vg", "gpt.boot.gz", "gpt partition table", "mkfs.xfs", "-p2",
		"mkswap", "/dev/mapper/voltar-restore-", "extract", "gpt.p4.tar.gz", "Nothing was done.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if got := lab.Do(t, "lvs", "-o", "lv_name,lv_tags", "vg"); got != volumes {
		t.Errorf("the volumes are now %s", got)
	}
}

// An image file holds the same, and no more space than it needs.
func restoreImage(t *testing.T, s site, before map[string]facts) {
	image := filepath.Join(t.TempDir(), "gpt.img")
	s.restore(t, 0, "vg/gpt", "--to-image", image, "--verify", "stream")
	var st unix.Stat_t
	if err := unix.Stat(image, &st); err != nil || st.Size != 176*mib || st.Blocks*512 > 100*mib {
		t.Errorf("%d bytes in %d blocks: %v", st.Size, st.Blocks, err)
	}
	loop := strings.TrimSpace(lab.Do(t, "losetup", "--find", "--show", image))
	defer lab.Do(t, "losetup", "--detach", loop)
	before["gpt"].compare(t, diskFacts(t, loop))
}

// A folder holds the files, or some of them.
func restoreFolder(t *testing.T, s site, before map[string]facts) {
	all := filepath.Join(t.TempDir(), "all")
	s.restore(t, 0, "vg/plain", "--to-dir", all)
	got := facts{}
	got.addTree(t, "all tree ", all)
	want := before["plain"].only("all tree ")
	delete(want, `all tree "null"`) // no device of this host is made
	delete(want, `all tree "."`)    // the folder stays as it was made:
	if top := got[`all tree "."`]; !strings.HasPrefix(top, "mode 40700 uid 0 gid 0 ") {
		t.Errorf("the folder has %s, want it closed", top)
	}
	delete(got, `all tree "."`)
	setUID := `all tree "set-uid"`
	want[setUID] = strings.Replace(want[setUID], "mode 104751", "mode 100751", 1)
	want[setUID] = regexp.MustCompile(` security\.capability=[0-9a-f]+`).ReplaceAllString(want[setUID], "")
	comparable(want).compare(t, comparable(got))
	lab.Do(t, "sh", "-c", "chattr -i "+all+"/fixed || true")

	some := filepath.Join(t.TempDir(), "some")
	s.restore(t, 0, "vg/mbr", "--to-dir", some, "--partition", "p5", "--partition", "p1", "--path", "etc/f*")
	found, err := filepath.Glob(some + "/*/*/*")
	if err != nil || strings.Join(found, " ") != some+"/p1/etc/fstab "+some+"/p5/etc/fstab" {
		t.Errorf("%q %v", found, err)
	}
	none := filepath.Join(t.TempDir(), "none")
	s.restore(t, exitUsage, "vg/mbr", "--to-dir", none, "--path", "nothing/like/it")
	if _, err := os.Stat(none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what matches nothing has made a folder: %v", err)
	}
}

// comparable leaves out what differs between filesystems of two kinds.
func comparable(f facts) facts {
	allocation := regexp.MustCompile(` (holes \[[0-9 ]*\]|flags [0-9a-f-]+|user\.note=[0-9a-f]+)`)
	bare := facts{}
	for name, text := range f {
		if !strings.Contains(name, "lost+found") {
			bare[name] = allocation.ReplaceAllString(text, "")
		}
	}
	return bare
}

// On a larger or smaller volume the last partition, or the only filesystem, has another size, and all else is the same.
func restoreOtherSizes(t *testing.T, s site, before map[string]facts) {
	for _, c := range []struct {
		name, volume, part string
		args               []string
	}{
		{"larger", "gpt", "p4", []string{"--size", "240M"}},
		{"smaller and thin", "gpt", "p4", []string{"--size", "128M", "--thin-pool", "pool"}},
		{"a smaller whole", "plain", "all", []string{"--size", "40M"}},
		{"a larger whole, no longer thin", "thin-xfs", "all", []string{"--size", "96M", "--classic"}},
		{"larger, and there", "plain", "all", []string{"--grow"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.args[0] == "--grow" {
				lab.LV(t, "vg", "other", 80*mib)
			}
			out, _ := s.restore(t, 0, append([]string{"vg/" + c.volume, "--to-lv", "vg/other"}, c.args...)...)
			if c.volume == "gpt" && !strings.Contains(out, "partition 4 has") {
				t.Errorf("the new size is not told:\n%s", out)
			}
			got, want := diskFacts(t, "/dev/vg/other"), maps.Clone(before[c.volume])
			sized := c.part + " dumpe2fs"
			if _, found := want[sized]; !found {
				sized = c.part + " xfs_info"
			}
			for _, name := range []string{sized, "sfdisk"} {
				if got[name] != "" && got[name] == want[name] {
					t.Errorf("%s is what it was", name)
				}
				delete(got, name)
				delete(want, name)
			}
			want.compare(t, got)
			if c.volume == "gpt" {
				if table := lab.Do(t, "sfdisk", "--verify", "/dev/vg/other"); !strings.Contains(table, "No errors detected") {
					t.Errorf("sfdisk says %s", table)
				}
			}
			lab.Do(t, "lvremove", "--force", "vg/other")
		})
	}
}

// A thin pool that hands out blocks as others left them shows nothing of that, in a new volume and in one that is there.
func restoreOldBlocks(t *testing.T, s site, before map[string]facts) {
	lab.Do(t, "lvcreate", "--yes", "--type", "thin-pool", "--size", "16m", "--zero", "n", "--name", "used", "vg")
	lab.Do(t, "lvcreate", "--yes", "--thin", "--virtualsize", "16m", "--name", "other", "vg/used")
	wipe(t, "/dev/vg/other")
	lab.Do(t, "lvremove", "--force", "vg/other")
	s.restore(t, 0, "vg/unknown", "--to-lv", "vg/other", "--thin-pool", "used")
	before["unknown"].compare(t, diskFacts(t, "/dev/vg/other"))
	wipe(t, "/dev/vg/other")
	s.restore(t, 0, "vg/unknown", "--to-lv", "vg/other", "--force")
	before["unknown"].compare(t, diskFacts(t, "/dev/vg/other"))
	lab.Do(t, "lvremove", "--force", "vg/other", "vg/used")
}

// One partition of a disk that has the right table is restored, and the others are left alone.
func restoreOnePartition(t *testing.T, s site, before map[string]facts) {
	onPartition(t, "/dev/vg/gpt", 4, func(loop string) { lab.Do(t, "mkfs.vfat", loop) })
	s.restore(t, 1, "vg/gpt", "--partition", "p4")
	out, _ := s.restore(t, 0, "vg/gpt", "--partition", "p4", "--force")
	if !strings.Contains(out, "p2 is left as it is") {
		t.Errorf("what is left alone is not told:\n%s", out)
	}
	before["gpt"].compare(t, diskFacts(t, "/dev/vg/gpt"))
}

// A damaged backup is found before the target is touched, or at the end where the sums are checked while reading.
func restoreDamaged(t *testing.T, s site, _ map[string]facts) {
	file := filepath.Join(s.folder(t, "vg", "plain"), "plain.tar.gz")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte{}, good...)
	bad[len(bad)-1] ^= 1 // of the length that ends the last member
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Error(err)
		}
	}()
	_, errs := s.restore(t, 1, "vg/plain", "--to-lv", "vg/damaged")
	if !strings.Contains(errs, "the sum of plain.tar.gz") || strings.Contains(errs, "incomplete and carries") {
		t.Errorf("wrong words: %s", errs)
	}
	if out := lab.Do(t, "lvs", "--noheadings", "-o", "lv_name", "vg"); strings.Contains(out, "damaged") {
		t.Error("the target was touched")
	}
	_, errs = s.restore(t, 1, "vg/plain", "--to-lv", "vg/damaged", "--verify", "stream")
	if !strings.Contains(errs, "incomplete and carries the tag voltar.incomplete") {
		t.Errorf("wrong words: %s", errs)
	}
	if tags := lab.Do(t, "lvs", "--noheadings", "-o", "lv_tags", "vg/damaged"); !strings.Contains(tags, "voltar.incomplete") {
		t.Errorf("the target has the tags %q", tags)
	}
	out, _ := s.restore(t, 3, "vg/plain", "--to-lv", "vg/damaged", "--force", "--keep-going")
	if !strings.Contains(out, "lost: ") {
		t.Errorf("the losses are not told:\n%s", out)
	}
	// One that is too short, or gone, is damaged as well.
	if err := os.WriteFile(file, good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	s.restore(t, 3, "vg/plain", "--to-lv", "vg/damaged", "--force", "--keep-going")
	lab.Do(t, "lvremove", "--force", "vg/damaged")
	image := filepath.Join(s.folder(t, "vg", "unknown"), "unknown.img.gz")
	for _, gone := range []string{file, image} {
		if err := os.Rename(gone, gone+".away"); err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(filepath.Dir(gone)))
		if _, errs := s.restore(t, 1, "vg/"+name, "--to-lv", "vg/damaged"); !strings.Contains(errs, "hint: restore another backup") {
			t.Errorf("wrong words: %s", errs)
		}
		if out, _ := s.restore(t, 3, "vg/"+name, "--to-lv", "vg/damaged", "--keep-going"); !strings.Contains(out, filepath.Base(gone)) {
			t.Errorf("the losses are not told:\n%s", out)
		}
		lab.Do(t, "lvremove", "--force", "vg/damaged")
		if err := os.Rename(gone+".away", gone); err != nil {
			t.Fatal(err)
		}
	}
}

// Tables in sectors of 4096 bytes come back on such disks, and on others byte for byte.
func TestLabRestoreSectorsOf4096(t *testing.T) {
	device := lab.Disk4K(t, 500*mib)
	lab.Do(t, "vgcreate", "--yes", "vg4k", device)
	t.Cleanup(func() { lab.Do(t, "vgremove", "--force", "--yes", "vg4k") })
	lab.VG(t, "vg512", 500*mib)
	origin := lab.LV(t, "vg4k", "large", 96*mib)
	partition(t, origin, "label: gpt\nsize=40M, type=U\nsize=32M, type=L, name=root\n")
	scribble(t, origin, 0, 440)
	onPartition(t, origin, 1, func(loop string) {
		lab.Do(t, "mkfs.vfat", "-S", "4096", "-s", "1", loop)
		fill(t, loop, "vfat")
	})
	onPartition(t, origin, 2, func(loop string) {
		lab.Do(t, "mkfs.ext4", "-q", "-b", "4096", loop)
		fill(t, loop, "ext4")
	})
	before := diskFacts(t, origin)
	s := restoreSite(t)
	s.run(t, 0, "vg4k/large")
	lab.Do(t, "lvremove", "--force", "vg4k/large")

	s.restore(t, 0, "vg4k/large")
	before.compare(t, diskFacts(t, origin))
	s.restore(t, 0, "vg4k/large", "--to-lv", "vg512/large")
	before.compare(t, diskFacts(t, "/dev/vg512/large"))
	s.restore(t, 0, "vg4k/large", "--to-lv", "vg512/more", "--size", "128M")
	before.only("p2 tree").compare(t, diskFacts(t, "/dev/vg512/more").only("p2 tree"))
	target := lab.LV(t, "vg512", "hand", 96*mib)
	byHand(t, s.folder(t, "vg4k", "large"), target)
	withoutFlags(before).compare(t, withoutFlags(diskFacts(t, target)))
}

// A restore that is interrupted cleans up at once, and one that is killed at the next start. What it was restoring to is
// marked, and a further restore makes it whole.
func TestLabRestoreInterrupted(t *testing.T) {
	lab.VG(t, "vg", 300*mib)
	device := lab.LV(t, "vg", "busy", 112*mib)
	partition(t, device, "label: dos\ntype=83\n")
	onPartition(t, device, 1, func(loop string) {
		lab.Do(t, "mkfs.ext4", "-q", loop)
		dir := t.TempDir()
		lab.Do(t, "mount", loop, dir)
		defer lab.Do(t, "umount", dir)
		lab.Do(t, "dd", "if=/dev/urandom", "of="+dir+"/noise", "bs=1M", "count=64", "status=none")
	})
	before := diskFacts(t, device)
	s := restoreSite(t)
	s.run(t, 0)

	if code := s.stopMidway(t, unix.SIGTERM, "vg/busy", "--to-lv", "vg/copy"); code != 130 {
		t.Errorf("exit code %d after SIGTERM, want 130", code)
	}
	if left := restoreMaps(t); left != nil {
		t.Errorf("an interrupted restore left %v", left)
	}
	checkIncomplete(t, "vg/copy", true)

	s.stopMidway(t, unix.SIGKILL, "vg/busy", "--to-lv", "vg/copy", "--force")
	if restoreMaps(t) == nil {
		t.Error("a killed restore left no map: the test came too late or too early")
	}
	checkIncomplete(t, "vg/copy", true)
	if code, out, errs := voltar(t, "cleanup", "--config", s.config); code != 0 || !strings.Contains(out, "voltar-restore-") {
		t.Errorf("cleanup: %d\n%s\n%s", code, out, errs)
	}
	if left := restoreMaps(t); left != nil {
		t.Errorf("cleanup left %v", left)
	}
	checkIncomplete(t, "vg/copy", true)
	s.restore(t, 0, "vg/busy", "--to-lv", "vg/copy", "--force")
	checkIncomplete(t, "vg/copy", false)
	before.compare(t, diskFacts(t, "/dev/vg/copy"))

	drillKilled(t, s, unix.SIGTERM, 130)
	drillKilled(t, s, unix.SIGKILL, -1)

	image := filepath.Join(t.TempDir(), "busy.img")
	s.stopMidway(t, unix.SIGKILL, "vg/busy", "--to-image", image)
	if _, err := os.Stat(image + ".incomplete"); err != nil {
		t.Errorf("the unfinished image: %v", err)
	}
	if _, err := os.Stat(image); err == nil {
		t.Error("an unfinished image has its final name")
	}
	// The next restore cleans up by itself, and takes the place of the unfinished one.
	s.restore(t, 0, "vg/busy", "--to-image", image)
	if out := lab.Do(t, "losetup", "--list", "--noheadings", "--output", "BACK-FILE"); strings.Contains(out, "busy.img") {
		t.Errorf("left: %s", out)
	}
}

// stopMidway runs a restore as a process of its own and ends it by a signal while it fills a filesystem. It lets the restore
// go on by two milliseconds at a time and looks while it stands, so that none is too fast to be seen.
func (s site) stopMidway(t *testing.T, signal unix.Signal, args ...string) (code int) {
	t.Helper()
	return s.stopMidwayOf(t, signal, "restore", args...)
}

// stopMidwayOf is stopMidway of a command that restores.
func (s site) stopMidwayOf(t *testing.T, signal unix.Signal, command string, args ...string) (code int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{command, "--config", s.config}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	send := func(signals ...os.Signal) {
		for _, s := range signals {
			if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		}
	}
	deadline := time.Now().Add(lab.Patience(5 * time.Minute))
	for send(unix.SIGSTOP); !s.isFilling(cmd.Process.Pid) && !hasEnded(cmd.Process.Pid) && time.Now().Before(deadline); send(unix.SIGSTOP) {
		send(unix.SIGCONT)
		time.Sleep(2 * time.Millisecond)
	}
	send(signal, unix.SIGCONT)
	err := cmd.Wait()
	if err == nil {
		t.Fatalf("the restore was done before it could be stopped\n%s", errs.String())
	}
	t.Log(errs.String())
	return cmd.ProcessState.ExitCode()
}

// hasEnded says that a process has ended, and that its parent has yet to hear of it.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// isFilling says that a restore has a file open in the filesystem that it fills.
func (s site) isFilling(pid int) bool {
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasSuffix(target, "/noise") {
			return true
		}
	}
	return false
}

func restoreMaps(t *testing.T) []string {
	t.Helper()
	maps, err := filepath.Glob("/dev/mapper/voltar-restore-*")
	if err != nil {
		t.Fatal(err)
	}
	return maps
}

func checkIncomplete(t *testing.T, volume string, want bool) {
	t.Helper()
	tags := lab.Do(t, "lvs", "--noheadings", "-o", "lv_tags", volume)
	if got := strings.Contains(tags, "voltar.incomplete"); got != want {
		t.Errorf("%s is marked as incomplete: %v, want %v", volume, got, want)
	}
}

// checkLV looks whether a volume is as its guest says, has some tags, and is not marked as incomplete.
func checkLV(t *testing.T, vg, name string, tags ...string) {
	t.Helper()
	got := strings.TrimSpace(lab.Do(t, "lvs", "--noheadings", "--units", "b", "--nosuffix", "--separator", "|",
		"-o", "lv_size,pool_lv,lv_tags", vg+"/"+name))
	for _, g := range guests() {
		if want := fmt.Sprintf("%d|%s|%s", g.sizeBytes, g.pool, strings.Join(tags, ",")); g.name == name && got != want {
			t.Errorf("the volume is %q, want %q", got, want)
		}
	}
}
