package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"voltar/archive"
	"voltar/internal/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, lab.Options{})) }

func backref(parent, dir uint64, name string) item {
	data := binary.LittleEndian.AppendUint64(nil, dir)
	data = binary.LittleEndian.AppendUint64(data, 1)
	data = binary.LittleEndian.AppendUint16(data, uint16(len(name)))
	return item{object: 257, offset: parent, kind: rootBackref, data: append(data, name...)}
}

// Names lead to folders that a restore makes: one that leads elsewhere must not pass.
func TestHostileNamesAreRefused(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "/", "nul\x00", string(bytes.Repeat([]byte("x"), 256))} {
		if l, err := parseBackref(backref(5, 256, name)); !errors.Is(err, errOdd) {
			t.Errorf("%q: %+v, %v", name, l, err)
		}
	}
	short := backref(5, 256, "name")
	short.data = short.data[:len(short.data)-1]
	if _, err := parseBackref(short); !errors.Is(err, errOdd) {
		t.Errorf("a torn item: %v", err)
	}
	if l, err := parseBackref(backref(5, 300, "caf\xe9")); err != nil || l != (link{5, 300, "caf\xe9"}) {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestPathsOfSubvolumesThatHangInCirclesOrNowhere(t *testing.T) {
	paths := pathFinder{links: map[uint64]link{
		256: {topSubvolume, 256, "a"}, 257: {256, 300, "b"}, 300: {301, 256, "x"}, 301: {300, 256, "y"}, 302: {999, 256, "z"},
	}, known: map[uint64]string{topSubvolume: ""}, dir: func(_, inode uint64) (string, error) {
		if inode == 300 {
			return "in/between", nil
		}
		return "", nil
	}}
	if p, err := paths.find(257, 0); err != nil || p != "a/in/between/b" {
		t.Errorf("%q, %v", p, err)
	}
	for _, id := range []uint64{300, 301, 302} {
		if p, err := paths.find(id, 0); !errors.Is(err, errOdd) {
			t.Errorf("%d: %q, %v", id, p, err)
		}
	}
}

// Subvolumes are listed and come back, with the files that were in them.
func TestLabSubvolumesComeBack(t *testing.T) {
	device := lab.Disk(t, 160<<20)
	lab.Do(t, "mkfs.btrfs", "-q", "-f", device)
	dir := lab.Mount(t, device, "subvolid=5")
	lab.Do(t, "sh", "-euc", `cd "$0"
		btrfs -q subvolume create @
		mkdir -p @/var/lib
		btrfs -q subvolume create @/var/lib/data
		echo precious > @/var/lib/data/file
		btrfs -q subvolume snapshot -r @ $(printf 'snap\351')
		btrfs -q subvolume create gone
		for i in $(seq 12); do mkdir -p many/$i; btrfs -q subvolume create many/$i/a-rather-long-name-for-a-subvolume; done
		btrfs -q subvolume delete gone
		btrfs subvolume set-default "$PWD/@"`, dir)
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	list, err := List(root)
	if err != nil || len(list) != 15 {
		t.Fatalf("%d subvolumes, %v, %v", len(list), list, err)
	}
	named := map[string]Subvolume{}
	for _, s := range list {
		named[s.Path] = s
	}
	if s := named["@"]; !s.Default || s.ReadOnly || s.ID == 0 {
		t.Errorf("%+v", s)
	}
	if s := named["snap\xe9"]; s.Default || !s.ReadOnly {
		t.Errorf("%+v", s)
	}
	if _, ok := named["@/var/lib/data"]; !ok {
		t.Error("one in a folder of another is missing")
	}

	target := lab.Disk(t, 160<<20)
	lab.Do(t, "mkfs.btrfs", "-q", "-f", target)
	back := lab.Mount(t, target, "subvolid=5")
	into, err := os.OpenRoot(back)
	if err != nil {
		t.Fatal(err)
	}
	defer into.Close()
	if err := Make(into, list); err != nil {
		t.Fatal(err)
	}
	copyTree(t, root, back)
	if err := Finish(into, list); err != nil {
		t.Fatal(err)
	}
	top, err := os.Open(back)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	again, err := List(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, lists := range [][]Subvolume{list, again} {
		for i := range lists {
			lists[i].ID = 0
		}
	}
	if !slices.Equal(list, again) {
		t.Errorf("came back as %+v\nfrom %+v", again, list)
	}
	lab.Do(t, "diff", "-r", dir, back)
	if mounted, err := Mounted("00000000-0000-0000-0000-000000000000"); err != nil || mounted {
		t.Errorf("%v, %v", mounted, err)
	}
	uuid := lab.Do(t, "blkid", "-p", "-o", "value", "-s", "UUID", device)
	if mounted, err := Mounted(string(bytes.TrimSpace([]byte(uuid)))); err != nil || !mounted {
		t.Errorf("%v, %v", mounted, err)
	}
}

// copyTree archives one tree and extracts it into a folder that is there.
func copyTree(t *testing.T, root *os.File, target string) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "tree.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var index bytes.Buffer
	if _, err := archive.WriteTree(t.Context(), root, file, &index, archive.TreeOptions{}); err != nil {
		t.Fatal(err)
	}
	lab.Do(t, "tar", "--xattrs", "--acls", "--numeric-owner", "-C", target, "-xzpf", file.Name())
}

// The kernel refuses an older copy of a filesystem while it remembers a newer one, be that gone or not.
func TestLabOlderCopyAfterForgetting(t *testing.T) {
	older, newer := lab.Disk(t, 128<<20), lab.Disk(t, 128<<20)
	lab.Do(t, "mkfs.btrfs", "-q", "-f", older)
	lab.Do(t, "dd", "if="+older, "of="+newer, "bs=1M", "conv=sparse", "status=none")
	t.Run("newer", func(t *testing.T) {
		dir := lab.Mount(t, newer, "defaults")
		for range 3 {
			lab.Do(t, "sh", "-euc", `touch "$0"/file; btrfs filesystem sync "$0"`, dir)
		}
	})
	if err := Forget(newer); err != nil {
		t.Fatal(err)
	}
	lab.Mount(t, older, "ro")
	if err := Forget(newer); err != nil {
		t.Errorf("a device that is not known: %v", err)
	}
}
