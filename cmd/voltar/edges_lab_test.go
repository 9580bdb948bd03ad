//go:build slow

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"voltar/internal/catalog"
	"voltar/internal/lab"
)

// edge is a filesystem at one of its edges.
type edge struct {
	name  string
	mib   int64
	mkfs  string // with the device for $1
	kind  string // of the mount; "" when this kernel cannot
	fill  func(t *testing.T, dir string)
	after string // what is done to $1 when it was filled
}

// edges are what guests may have that most have not.
func edges() []edge {
	return []edge{
		{"bigalloc", 64, "mkfs.ext4 -q -O bigalloc,64bit -C 16384 $1", "ext4", fillEdges, ""},
		{"inline", 32, "mkfs.ext4 -q -b 4096 -I 512 -O inline_data,metadata_csum $1", "ext4", fillEdges, ""},
		{"quota", 32, "mkfs.ext4 -q -b 1024 -O quota,project -E quotatype=usrquota:grpquota:prjquota $1", "ext4", fillProject, ""},
		{"old", 32, "mkfs.ext4 -q -b 4096 -O ^64bit,^metadata_csum,^extent,^flex_bg $1", "ext4", fillEdges, ""},
		{"folded", 16, "mkfs.ext4 -q -b 4096 -O casefold $1", "", nil, "e2fsck -fn $1"},
		{"full", 16, "mkfs.ext4 -q -b 4096 -m 0 $1", "ext4", fillUp, ""},
		{"xfs4", 48, "mkfs.xfs -q --unsupported -m crc=0 $1", "xfs", fillEdges, ""},
		{"xfs5", 64, "mkfs.xfs -q --unsupported -m reflink=1,bigtime=1,inobtcount=1 $1", "xfs", fillShared, ""},
	}
}

func fillEdges(t *testing.T, dir string) {
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(in("times"), 0o755))
	for name, seconds := range map[string]int64{"before 1970": -1_000_000_000, "after 2038": 2_200_000_000, "after 2106": 5_000_000_000} {
		path := in("times/" + name)
		writeFile(t, path, []byte(name))
		must(os.Chtimes(path, time.Unix(seconds, 0), time.Unix(seconds, 0)))
	}
	must(os.Mkdir(in("names"), 0o755))
	for _, letter := range []string{"n", "\xff", "é"} {
		writeFile(t, in("names/"+strings.Repeat(letter, 255/len(letter))), []byte(letter))
	}
	// As an overlay's upper folder has them.
	must(os.Mkdir(in("upper"), 0o755))
	must(unix.Setxattr(in("upper"), "trusted.overlay.opaque", []byte("y"), 0))
	must(unix.Mknod(in("upper/gone"), unix.S_IFCHR, 0))
	must(unix.Setxattr(in("upper"), "trusted.overlay.origin", []byte("\x00\xfb\x1d\x00"), 0))
	// Small enough to lie in its inode, and not quite.
	writeFile(t, in("tiny"), []byte("0123456789"))
	writeFile(t, in("small"), []byte(strings.Repeat("x", 300)))
	reserved, err := os.Create(in("reserved"))
	must(err)
	_, err = reserved.WriteString("written")
	must(err)
	err = errors.Join(unix.Fallocate(int(reserved.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 256<<10), unix.Fallocate(int(reserved.Fd()), 0, 64<<10, 64<<10))
	if !errors.Is(err, unix.EOPNOTSUPP) { // as without extents
		must(err)
	}
	must(reserved.Close())
	deepTree(t, dir)
}

// deepTree makes a file whose path is longer than any that the kernel takes at once.
func deepTree(t *testing.T, dir string) {
	t.Helper()
	shell(t, `cd "$1"; long=$(printf '%0200d' 0); i=0; mkdir deep; cd deep
while [ $i -lt 24 ]; do mkdir $long; cd -P ./$long; i=$((i + 1)); done; echo bottom >file`, dir)
}

// deepFacts looks at it with a tool that can.
func deepFacts(t *testing.T, dir string) string {
	t.Helper()
	return shell(t, `cd "$1"; [ ! -d deep ] || find deep -printf '%d %M %U %G %T@ %n\n' -type f -execdir cat {} \;`, dir)
}

func fillProject(t *testing.T, dir string) {
	t.Helper()
	fillEdges(t, dir)
	shell(t, `cd "$1"; mkdir project; chattr +P -p 42 project; echo x >project/file`, dir)
}

// fillUp leaves no block free.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	shell(t, `cd "$1"; i=0; while mkdir d$i 2>/dev/null && seq 1 200 | (cd d$i; while read n; do echo $n >$n || exit; done) 2>/dev/null; do
	i=$((i + 1)); [ $i -lt 4 ] || break; done
dd if=/dev/urandom of=rest bs=4096 status=none 2>/dev/null || :; sync; ! dd if=/dev/urandom of=more bs=4096 count=1 conv=fsync status=none 2>/dev/null`, dir)
}

func fillShared(t *testing.T, dir string) {
	t.Helper()
	fillEdges(t, dir)
	shell(t, `cd "$1"; dd if=/dev/urandom of=first bs=1M count=3 status=none; cp --reflink=always first second
dd if=/dev/urandom of=second bs=4096 seek=7 count=1 conv=notrunc status=none`, dir)
}

// Filesystems at their edges come back with the same features and everything in them.
func TestLabFilesystemsAtTheirEdges(t *testing.T) {
	lab.VG(t, "vg", 1000*mib)
	before, deep := map[string]facts{}, map[string]string{}
	look := func(e edge) (facts, string) {
		t.Helper()
		device := "/dev/vg/" + e.name
		if e.kind == "" {
			return facts{"content": headSum(t, device, e.mib*mib)}, ""
		}
		dir := t.TempDir()
		lab.Do(t, "mount", "-o", mountOptions(e.kind), device, dir)
		bottom := deepFacts(t, dir)
		lab.Do(t, "umount", dir)
		return diskFacts(t, device), bottom
	}
	for _, e := range edges() {
		device := lab.LV(t, "vg", e.name, e.mib*mib)
		shell(t, e.mkfs, device)
		if e.fill != nil {
			dir := t.TempDir()
			lab.Do(t, "mount", device, dir)
			func() {
				defer lab.Do(t, "umount", dir)
				e.fill(t, dir)
			}()
		}
		if e.after != "" {
			shell(t, e.after, device)
		}
		before[e.name], deep[e.name] = look(e)
	}
	s := restoreSite(t)
	s.run(t, 0)
	for _, e := range edges() {
		t.Run(e.name, func(t *testing.T) {
			want := catalog.StateFiles
			if e.kind == "" {
				want = catalog.StateImage
			}
			if _, m := s.newest(t, "vg/"+e.name); m.Extents[0].State != want {
				t.Fatalf("stored as %s (%s), want %s", m.Extents[0].State, m.Extents[0].Reason, want)
			}
			lab.Do(t, "lvremove", "--force", "--yes", "vg/"+e.name)
			s.restore(t, 0, "vg/"+e.name)
			after, bottom := look(e)
			before[e.name].compare(t, after)
			if bottom != deep[e.name] {
				t.Errorf("the deep tree is\n%s\nwant\n%s", bottom, deep[e.name])
			}
		})
	}
}
