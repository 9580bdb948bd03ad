package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountable(t *testing.T) {
	le32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	be32 := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	const sb = extSuperOffset
	for _, c := range []struct {
		name, fsType string
		make         []string
		at           int64
		bytes        []byte
		reason       string // "" means mountable
	}{
		{"ext4", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, 0, nil, ""},
		{"ext4 to be replayed", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0x60, le32(0x2c2 | 0x4), ""},
		{"journal device", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0x60, le32(0x2c2 | 0x8), "journal of another"},
		{"journal elsewhere", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0xe0, append(le32(0), le32(0xfd03)...),
			"journal is on another device"},
		{"journal within and elsewhere", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0xe4, le32(0xfd03),
			"journal is on another device"},
		{"journal number and no inode", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0xe0, le32(0),
			"journal is on another device"},
		{"no journal at all", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal"}, 0, nil, ""},
		{"encrypted", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "encrypt"}, 0, nil, "encrypted directories"},
		{"names a journal device of the host", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0x200,
			[]byte("delalloc,journal_dev=0xfd00"), "journal_dev=0xfd00"},
		{"asks for no replay", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0x200, []byte("noload"), "noload"},
		{"harmless options", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0x200, []byte("delalloc,data=journal"), ""},
		{"unknown feature", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, sb + 0x60, le32(0x2c2 | 0x80000), "FEATURE_I19"},
		{"compressed", "ext2", []string{"mke2fs", "-q", "-F", "-t", "ext2"}, sb + 0x60, le32(0x2 | 0x1), "compression"},
		{"xfs", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 0, nil, ""},
		{"xfs log elsewhere", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 48, make([]byte, 8), "log is on another"},
		{"xfs realtime", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 16, []byte{0, 0, 0, 0, 0, 0, 0, 9}, "realtime"},
		{"xfs in progress", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 126, []byte{1}, "did not finish"},
		{"xfs to be repaired", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 216, be32(0xb | 0x10), "xfs_repair"},
		{"xfs unknown", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 216, be32(0xb | 1<<20), "FEATURE_I20"},
		{"vfat", "vfat", []string{"mkfs.vfat"}, 0, nil, ""},
		{"btrfs", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 0, nil, ""},
		{"btrfs on two", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 64<<10 + 0x88, []byte{2}, "2 devices"},
		{"btrfs seed", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 64<<10 + 0x3c, []byte{1}, "seed"},
		{"btrfs dump", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 64<<10 + 0x3c, []byte{4}, "metadata alone"},
		{"btrfs zoned", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 64<<10 + 0xbd, []byte{0x13}, "zoned"},
		{"btrfs unknown", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 64<<10 + 0xbf, []byte{0x80}, "FEATURE_I31"},
		{"btrfs unknown high", "btrfs", []string{"mkfs.btrfs", "-q", "-M"}, 64<<10 + 0xc0, []byte{1}, "not known"},
		{"swap", "swap", []string{"mkswap", "-q"}, 0, nil, "no files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := blankFile(t, "disk", 128<<20)
			run(t, xfsTinyEnv, path, append(c.make, Device))
			patch(t, path, c.at, c.bytes...)
			ok, reason := read(t, path, c.fsType).Mountable()
			if ok != (c.reason == "") || !strings.Contains(reason, c.reason) {
				t.Errorf("mountable %v, %q; want reason %q", ok, reason, c.reason)
			}
		})
	}
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name, fsType string
		make         []string
		at           int64
		bytes        []byte
		want         State
	}{
		{"clean", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, 0, nil, StateClean},
		{"mounted", "ext2", []string{"mke2fs", "-q", "-F", "-t", "ext2"}, 1024 + 0x3a, []byte{0}, StateDirty},
		{"replay", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, 1024 + 0x60, []byte{0xc6}, StateDirty},
		{"errors", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, 1024 + 0x3a, []byte{3}, StateErrors},
		{"error count", "ext4", []string{"mke2fs", "-q", "-F", "-t", "ext4"}, 1024 + 0x194, []byte{1}, StateErrors},
		{"FAT16 mounted", "vfat", []string{"mkfs.vfat", "-F", "16"}, 37, []byte{1}, StateDirty},
		{"FAT32 mounted", "vfat", []string{"mkfs.vfat", "-F", "32"}, 65, []byte{1}, StateDirty},
		{"FAT", "vfat", []string{"mkfs.vfat"}, 0, nil, StateClean},
		{"xfs", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 0, nil, StateUnknown},
		{"xfs to be repaired", "xfs", []string{"mkfs.xfs", "-q", "-f"}, 219, []byte{0x1b}, StateErrors},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := blankFile(t, "disk", 64<<20)
			run(t, xfsTinyEnv, path, append(c.make, Device))
			patch(t, path, c.at, c.bytes...)
			if got := read(t, path, c.fsType).State; got != c.want {
				t.Errorf("state %s, want %s", got, c.want)
			}
		})
	}
}

func TestFactsBesideMkfs(t *testing.T) {
	ext := newExt(t, "-t", "ext4", "-M", "/srv/data", "-b", "1024")
	fs := read(t, ext, "ext4")
	if fs.LastMounted != "/srv/data" || fs.BootAreaBytes() != 1024 || fs.SizeBytes != 8<<20 {
		t.Errorf("last mounted on %q, boot area %d, size %d", fs.LastMounted, fs.BootAreaBytes(), fs.SizeBytes)
	}
	if used := fs.UsedBytes(); used < 256<<10 || used > 4<<20 {
		t.Errorf("%d bytes used by an empty filesystem with a journal", used)
	}
	if fs.Ext.JournalBytes != 1<<20 || fs.Ext.JournalBlock <= 0 || fs.Ext.JournalInode != 8 {
		t.Errorf("journal of %d bytes at block %d in inode %d", fs.Ext.JournalBytes, fs.Ext.JournalBlock, fs.Ext.JournalInode)
	}
	path := blankFile(t, "fat", 64<<20)
	run(t, nil, path, []string{"mkfs.vfat", "-F", "16", "-R", "4", "-i", "12ab34cd", Device})
	fat := read(t, path, "vfat")
	if fat.BootAreaBytes() != 4*512 || fat.UUID != "12AB-34CD" || fat.UsedBytes() != -1 {
		t.Errorf("boot area %d, UUID %s, used %d", fat.BootAreaBytes(), fat.UUID, fat.UsedBytes())
	}
	path = blankFile(t, "xfs", 64<<20)
	run(t, xfsTinyEnv, path, []string{"mkfs.xfs", "-q", "-f", Device})
	if fs := read(t, path, "xfs"); fs.BootAreaBytes() != 0 || fs.UsedBytes() < 4096 || fs.UsedBytes() > 32<<20 {
		t.Errorf("xfs: boot area %d, used %d", fs.BootAreaBytes(), fs.UsedBytes())
	}
}

// The label that counts is the one in the root directory, wherever in it that is.
func TestFATLabel(t *testing.T) {
	path := blankFile(t, "fat", 300<<20)
	run(t, nil, path, []string{"mkfs.vfat", "-F", "32", "-s", "1", "-n", "OLD", Device})
	fs := read(t, path, "vfat")
	if fs.Label != "OLD" {
		t.Fatalf("label %q", fs.Label)
	}
	// A root directory of two clusters, 2 and 9: deleted and long-name entries fill the first, the label is in the second.
	root := bytes.Repeat(append([]byte("\xe5LABEL   XX\x08"), make([]byte, 20)...), 15)
	root = append(root, append([]byte("ALongNameXX\x0f"), make([]byte, 20)...)...)
	dataAt := fs.FAT.dataSector() * 512
	patch(t, path, dataAt, root...)
	patch(t, path, dataAt+7*512, []byte("\x05CAF\xc9 NEW  \x08")...)
	patch(t, path, int64(fs.FAT.ReservedSectors)*512+2*4, 9, 0, 0, 0)
	patch(t, path, int64(fs.FAT.ReservedSectors)*512+9*4, 2, 0, 0, 0) // and round again: a loop must end
	fs = read(t, path, "vfat")
	if fs.Label != "\xe5CAF\xc9 NEW" || fs.FAT.BootLabel != "OLD" {
		t.Errorf("label %q, in the boot sector %q", fs.Label, fs.FAT.BootLabel)
	}
	recipe, err := fs.Mkfs(MkfsOptions{})
	if err != nil || len(recipe.Notes) != 1 || !strings.Contains(recipe.Notes[0], "_CAF_ NEW") {
		t.Errorf("notes %q, %v; want one about the label", recipe.Notes, err)
	}
	patch(t, path, dataAt+7*512, make([]byte, 32)...)
	if label := read(t, path, "vfat").Label; label != "OLD" {
		t.Errorf("without one in the root directory: label %q", label)
	}
	patch(t, path, dataAt+7*512, bytes.Repeat([]byte{0xe5}, 512)...)
	if label := read(t, path, "vfat").Label; label != "OLD" {
		t.Errorf("in a looping directory: label %q", label)
	}
}

func TestReadFilesystemErrors(t *testing.T) {
	blank := bytes.NewReader(make([]byte, 1<<20))
	for _, fsType := range []string{"ext4", "xfs", "vfat", "btrfs", "swap"} {
		if _, err := ReadFilesystem(blank, 1<<20, fsType); !errors.Is(err, ErrNoSuperblock) {
			t.Errorf("%s on zeroes: %v, want ErrNoSuperblock", fsType, err)
		}
		if _, err := ReadFilesystem(failing{}, 1<<20, fsType); !errors.Is(err, errBroken) {
			t.Errorf("%s on a broken device: %v", fsType, err)
		}
		if _, err := ReadFilesystem(blank, 100, fsType); err == nil {
			t.Errorf("%s in 100 bytes: no error", fsType)
		}
	}
	if _, err := ReadFilesystem(blank, 1<<20, "zfs_member"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("zfs: %v, want ErrUnsupported", err)
	}
	ext := newExt(t, "-t", "ext4")
	file, err := os.Open(ext)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := ReadFilesystem(file, 4<<20, "ext4"); !errors.Is(err, ErrNoSuperblock) {
		t.Errorf("a filesystem larger than its extent: %v", err)
	}
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

func TestFromParamsRefusesNonsense(t *testing.T) {
	good := read(t, newExt(t, "-t", "ext4"), "ext4").Params()
	for name, value := range map[string]string{"block_bytes": "0", "block_count": "-4", "inode_bytes": "many",
		"blocks_per_group": "0", "label_hex": "zz", "group_descriptor_bytes": "0"} {
		bad := maps.Clone(good)
		bad[name] = value
		if _, err := FromParams("ext4", bad); err == nil {
			t.Errorf("%s = %q: no error", name, value)
		}
	}
	good["of a later version"] = "x"
	if _, err := FromParams("ext4", good); err != nil {
		t.Errorf("unknown parameter: %v", err)
	}
	for _, fsType := range []string{"ext4", "xfs", "vfat", "swap", "btrfs", "zfs"} {
		if _, err := FromParams(fsType, nil); err == nil {
			t.Errorf("%s without parameters: no error", fsType)
		}
	}
}

func TestReservedPercent(t *testing.T) {
	for _, c := range []struct {
		reserved, blocks int64
		want             string
		exact            bool
	}{{0, 1000, "0", true}, {50, 1000, "5", true}, {51, 1000, "5.1", true}, {13107, 262144, "5", true}, {600, 1000, "5", false},
		{1, math.MaxUint32, "0.0000000233", true}} {
		got, exact := reservedPercent(c.reserved, c.blocks)
		if got != c.want || exact != c.exact {
			t.Errorf("%d of %d: %s, %v; want %s, %v", c.reserved, c.blocks, got, exact, c.want, c.exact)
		}
	}
}

// Newer releases of mkfs.xfs switch features on that older ones cannot name.
func TestXFSFeaturesByRelease(t *testing.T) {
	path := blankFile(t, "xfs", 64<<20)
	run(t, xfsTinyEnv, path, []string{"mkfs.xfs", "-q", "-f", Device})
	fs := read(t, path, "xfs")
	for _, c := range []struct {
		progs       [2]int
		has, hasNot []string
	}{
		{[2]int{4, 20}, nil, []string{"nrext64", "exchange"}},
		{[2]int{5, 10}, []string{"bigtime=1", "inobtcount=1"}, []string{"nrext64", "exchange"}},
		{[2]int{}, []string{"nrext64=0"}, []string{"exchange", "metadir"}},
		{[2]int{6, 10}, []string{"nrext64=0", "exchange=0"}, []string{"metadir", "parent"}},
		{[2]int{6, 13}, []string{"exchange=0", "metadir=0"}, nil},
	} {
		recipe, err := fs.Mkfs(MkfsOptions{XFSProgs: c.progs})
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Join(recipe.Commands[0], " ")
		for _, want := range c.has {
			if !strings.Contains(line, want) {
				t.Errorf("%v: %s lacks %s", c.progs, line, want)
			}
		}
		for _, not := range c.hasNot {
			if strings.Contains(line, not) {
				t.Errorf("%v: %s has %s", c.progs, line, not)
			}
		}
	}
}

// FuzzReadFilesystem gives the parsers any bytes; whatever they accept can be described, stored, read back and made in
// any size without panic.
func FuzzReadFilesystem(f *testing.F) {
	for _, name := range []string{"ext3 of 2008", "ext4 of today", "ext4 bigalloc", "ext4 fast commit", "xfs of today", "FAT12",
		"FAT32", "btrfs of today", "swap"} {
		for _, o := range originals() {
			if o.name != name {
				continue
			}
			f.Add(o.fsType, seed(f, o), o.sizeMiB<<20, int64(1<<30))
		}
	}
	f.Fuzz(func(t *testing.T, fsType string, head []byte, sizeBytes, otherBytes int64) {
		fs, err := ReadFilesystem(&padded{head: head}, sizeBytes, fsType)
		if err != nil {
			return
		}
		again, err := FromParams(fsType, fs.Params())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fs, again); diff != "" {
			t.Fatal(diff)
		}
		fs.Mountable()
		for _, size := range []int64{0, otherBytes} {
			recipe, err := fs.Mkfs(MkfsOptions{SizeBytes: size})
			if err == nil && (len(recipe.Commands) == 0 || recipe.Commands[0][0] == "") {
				t.Fatal("no command")
			}
		}
		if n := fs.BootAreaBytes(); n < 0 || n > 256<<20 {
			t.Fatalf("boot area of %d bytes", n)
		}
	})
}

// padded reads as head followed by zeroes without end, and fails reads that no parser has a reason for.
type padded struct{ head []byte }

func (p *padded) ReadAt(b []byte, at int64) (int, error) {
	if len(b) > 1<<20 {
		return 0, errors.New("reads too much")
	}
	clear(b)
	if at < int64(len(p.head)) {
		copy(b, p.head[at:])
	}
	return len(b), nil
}

func seed(f *testing.F, o original) []byte {
	f.Helper()
	path := f.TempDir() + "/seed"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Truncate(path, o.sizeMiB<<20); err != nil {
		f.Fatal(err)
	}
	for _, command := range o.commands {
		run(f, o.env, path, command)
	}
	file, err := os.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	head := make([]byte, 68<<10)
	if _, err := io.ReadFull(file, head); err != nil {
		f.Fatal(err)
	}
	return head
}
