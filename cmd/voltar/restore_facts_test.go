package main

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"voltar/internal/lab"
	"voltar/partmap"
)

// facts are what must be the same before and after: for each name of a fact, its text.
type facts map[string]string

// compare fails the test for each fact that differs.
func (before facts) compare(t *testing.T, after facts) {
	t.Helper()
	names := slices.Sorted(maps.Keys(before))
	for name := range after {
		if _, found := before[name]; !found {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if before[name] != after[name] {
			t.Errorf("%s differs\nbefore: %s\nafter:  %s", name, lines(before[name], after[name]), lines(after[name], before[name]))
		}
	}
}

// lines returns those lines of a text that another lacks.
func lines(text, other string) string {
	var differ []string
	for line := range strings.Lines(text) {
		if !strings.Contains(other, line) {
			differ = append(differ, line)
		}
	}
	return strings.Join(differ, "")
}

// only returns the facts whose names begin with a prefix.
func (f facts) only(prefix string) facts {
	some := facts{}
	for name, text := range f {
		if strings.HasPrefix(name, prefix) {
			some[name] = text
		}
	}
	return some
}

// diskFacts looks at all that is on a device: its table, and each partition or, without a table, the whole.
func diskFacts(t *testing.T, device string) facts {
	t.Helper()
	f := facts{}
	file, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := file.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	table, err := partmap.Read(file, size, partmap.Options{})
	if errors.Is(err, partmap.ErrNoTable) {
		f.addExtent(t, "all", device, 0, size)
		return f
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Notes) > 0 && table.SectorBytes == 512 {
		t.Errorf("the table of %s is odd: %q", device, table.Notes)
	}
	looked := device
	if table.SectorBytes != 512 {
		looked = strings.TrimSpace(lab.Do(t, "losetup", "--find", "--show", "--sector-size", fmt.Sprint(table.SectorBytes), device))
		defer lab.Do(t, "losetup", "--detach", looked)
	}
	named := regexp.MustCompile(regexp.QuoteMeta(looked) + `p?`)
	f["sfdisk"] = named.ReplaceAllString(lab.Do(t, "sfdisk", "--dump", looked), "DISK")
	for _, p := range table.Partitions {
		if !p.Extended {
			f.addExtent(t, fmt.Sprintf("p%d", p.Number), device, p.OffsetBytes(), p.SizeBytes())
		}
	}
	boot := make([]byte, 440)
	if _, err := file.ReadAt(boot, 0); err != nil {
		t.Fatal(err)
	}
	f["boot code"] = fmt.Sprintf("%x", sha1.Sum(boot))
	return f
}

// addExtent looks at one extent, by way of a loop device.
func (f facts) addExtent(t *testing.T, name, device string, offset, size int64) {
	t.Helper()
	loop := strings.TrimSpace(lab.Do(t, "losetup", "--find", "--show", "--read-only", "--offset", fmt.Sprint(offset),
		"--sizelimit", fmt.Sprint(size), device))
	defer lab.Do(t, "losetup", "--detach", loop)
	kind := ""
	out := lab.Do(t, "sh", "-c", "blkid -p -o udev "+loop+" || true")
	for line := range strings.Lines(out) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key == "ID_FS_TYPE" {
			kind = value
		} else if strings.HasPrefix(key, "ID_FS_LAST") || key == "ID_FS_SIZE" {
			continue
		}
		f[name+" blkid"] += line
	}
	switch kind {
	case "ext2", "ext3", "ext4":
		lab.Do(t, "e2fsck", "-f", "-n", loop)
		f[name+" dumpe2fs"] = superblock(lab.Do(t, "dumpe2fs", "-h", loop))
		f[name+" boot"] = headSum(t, loop, 1024)
	case "xfs":
		lab.Do(t, "xfs_repair", "-n", loop)
		f[name+" xfs_info"] = strings.ReplaceAll(lab.Do(t, "sh", "-c", "xfs_db -r -c info "+loop), loop, "DEVICE")
	case "vfat":
		lab.Do(t, "fsck.vfat", "-n", loop)
		f[name+" fat boot code"] = lab.Do(t, "sh", "-c", "dd if="+loop+" bs=1 skip=62 count=448 status=none | sha1sum")
	case "swap":
		return
	default:
		f[name+" content"] = headSum(t, loop, size)
		return
	}
	dir := t.TempDir()
	lab.Do(t, "mount", "-t", kind, "-o", mountOptions(kind), loop, dir)
	defer lab.Do(t, "umount", dir)
	f.addTree(t, name+" tree ", dir)
}

func mountOptions(kind string) string {
	switch kind {
	case "xfs":
		return "ro,norecovery,nouuid"
	case "vfat":
		return "ro,utf8,tz=UTC"
	case "ext2":
		return "ro"
	}
	return "ro,noload"
}

func headSum(t *testing.T, device string, bytes int64) string {
	t.Helper()
	return lab.Do(t, "sh", "-c", fmt.Sprintf("head -c %d %s | sha1sum", bytes, device))
}

// changing are the lines of dumpe2fs that time, or what is in use, changes.
var changing = regexp.MustCompile(`(?m)^(Filesystem created|Last mount time|Last write time|Last mounted on|Last checked|` +
	`Mount count|Lifetime writes|Free blocks|Free inodes|Free clusters|Next check after|Checksum|Journal sequence|` +
	`Journal checksum|Journal start|Directories|First error .*|Overhead clusters|Filesystem creation|Log device number):.*\n`)

// revoked is what the kernel enters into a journal when it first has to revoke a block, which may be never; "(none)" is
// there before.
var revoked = regexp.MustCompile(`(?m)^(Journal features:) +(?:\(none\)|journal_incompat_revoke)? *`)

func superblock(text string) string {
	return revoked.ReplaceAllString(changing.ReplaceAllString(text, ""), "$1")
}

// addTree looks at every file whose path the kernel takes.
func (f facts) addTree(t *testing.T, prefix, dir string) {
	t.Helper()
	links := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if len(path) > unix.PathMax-256 {
			return fs.SkipDir
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		text, err := fileFacts(path, rel, links)
		f[fmt.Sprintf("%s%q", prefix, rel)] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func fileFacts(path, rel string, links map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "mode %o uid %d gid %d mtime %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR {
		fmt.Fprintf(&b, " links %d", st.Nlink)
		if first, found := links[st.Ino]; found {
			fmt.Fprintf(&b, " with %q", first)
		}
		links[st.Ino] = rel
	}
	switch kind {
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, " device %d", st.Rdev)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		fmt.Fprintf(&b, " to %q", target)
		return b.String(), err
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, " size %d sha1 %x holes %v", len(data), sha1.Sum(data), holes(path, st.Size))
	}
	if kind == unix.S_IFREG || kind == unix.S_IFDIR {
		fmt.Fprintf(&b, " flags %x", fileFlags(path))
	}
	return b.String() + xattrs(path), nil
}

// holes lists the offsets where holes begin and end.
func holes(path string, size int64) []int64 {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var list []int64
	for at := int64(0); at < size; {
		hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
		if err != nil || hole >= size {
			break
		}
		if at, err = unix.Seek(fd, hole, unix.SEEK_DATA); err != nil {
			at = size
		}
		list = append(list, hole, at)
	}
	return list
}

// fileFlags are those that chattr changes: the others follow from how a file lies on the disk.
func fileFlags(path string) int {
	const changeable = 0x10 | 0x20 | 0x40 | 0x80 | 0x8 // immutable, append, nodump, noatime, sync
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return -1
	}
	return flags & changeable
}

func xattrs(path string) string {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return ""
	}
	names := bytes.Split(list[:max(n-1, 0)], []byte{0})
	slices.SortFunc(names, bytes.Compare)
	var b strings.Builder
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, " %s=%x", name, value[:n])
	}
	return b.String()
}
