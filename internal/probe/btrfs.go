package probe

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Btrfs is the superblock of btrfs on one device: struct btrfs_super_block in the kernel's
// include/uapi/linux/btrfs_tree.h. What lies in its trees is not described: subvolumes, quotas, the default subvolume.
type Btrfs struct {
	SectorBytes  uint32 `param:"sector_bytes"`
	NodeBytes    uint32 `param:"node_bytes"`
	Devices      int64  `param:"devices"`
	ChecksumType uint32 `param:"checksum_type"`
	CompatRO     uint32 `param:"feature_compat_ro"`
	Incompat     uint32 `param:"feature_incompat"`
	HighFeatures bool   `param:"high_features"` // some beyond bit 31 are set
	Seeding      bool   `param:"seeding"`
	MetadataDump bool   `param:"metadata_dump"`
	DupMetadata  bool   `param:"metadata_dup"` // two copies; one otherwise. Taken from that of the system chunk
}

const (
	btrfsSuperOffset = 64 << 10
	btrfsMagic       = "_BHRfS_M"

	btrfsMixedGroups   = 0x4
	btrfsExtref        = 0x40
	btrfsSkinny        = 0x100
	btrfsNoHoles       = 0x200
	btrfsZoned         = 0x1000
	btrfsFreeSpaceTree = 0x1

	btrfsFlagSeeding  = 1 << 32
	btrfsFlagMetadump = 1<<33 | 1<<34
	btrfsChunkDup     = 1 << 5
)

var (
	btrfsIncompatNames = [32]string{0: "mixed-backref", 1: "default-subvol", 2: "mixed-bg", 3: "compress-lzo", 4: "compress-zstd",
		5: "big-metadata", 6: "extref", 7: "raid56", 8: "skinny-metadata", 9: "no-holes", 10: "metadata-uuid", 11: "raid1c34",
		12: "zoned", 13: "extent-tree-v2", 14: "raid-stripe-tree", 16: "simple-quota"}
	btrfsCompatRONames = [32]string{0: "free-space-tree", 1: "free-space-tree-valid", 2: "verity", 3: "block-group-tree"}
)

// btrfsIncompatKnown are the features of a filesystem on one ordinary device.
const btrfsIncompatKnown = 0xfff | 1<<16

// Features that mkfs.btrfs is told, or sets by itself or at run time with nothing to be told.
const (
	btrfsIncompatMade = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200
	btrfsCompatROMade = 0x3
)

var btrfsChecksums = map[uint32]string{0: "crc32c", 1: "xxhash", 2: "sha256", 3: "blake2"}

func readBtrfs(r io.ReaderAt) (*Filesystem, error) {
	sb := make([]byte, 4096)
	if _, err := r.ReadAt(sb, btrfsSuperOffset); err != nil {
		return nil, err
	}
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(sb[at:]) }
	le64 := func(at int) uint64 { return binary.LittleEndian.Uint64(sb[at:]) }
	small := func(at int) int64 { return int64(min(le64(at), 1<<62)) }
	if string(sb[0x40:0x48]) != btrfsMagic {
		return nil, invalid("magic number %q", sb[0x40:0x48])
	}
	flags := le64(0x38)
	b := &Btrfs{
		SectorBytes: le32(0x90), NodeBytes: le32(0x94), Devices: small(0x88),
		ChecksumType: uint32(binary.LittleEndian.Uint16(sb[0xc4:])),
		CompatRO:     le32(0xb4), Incompat: le32(0xbc), HighFeatures: le32(0xb8)|le32(0xc0) != 0,
		Seeding: flags&btrfsFlagSeeding != 0, MetadataDump: flags&btrfsFlagMetadump != 0,
	}
	// The array of system chunks at 0x32b begins with a key of 17 bytes; the chunk's type is 24 bytes into it.
	if le32(0xa0) >= 17+32 {
		b.DupMetadata = le64(0x32b+17+24)&btrfsChunkDup != 0
	}
	fs := &Filesystem{
		UUID: uuidString(sb[0x20:0x30]), Label: cString(sb[0x12b:0x22b]), BlockBytes: int64(b.SectorBytes),
		SizeBytes: small(0x70), State: StateClean, Btrfs: b,
	}
	if le64(0x60) != 0 {
		fs.State = StateDirty // a log of fsyncs since the last transaction is to be replayed
	}
	if err := fs.validate(); err != nil {
		return nil, err
	}
	fs.FreeBytes = fs.SizeBytes - min(small(0x78), fs.SizeBytes)
	return fs, nil
}

func (b *Btrfs) validate() error {
	switch {
	case !isPowerOfTwo(int64(b.SectorBytes), 4<<10, 64<<10):
		return invalid("sectors of %d bytes", b.SectorBytes)
	case !isPowerOfTwo(int64(b.NodeBytes), int64(b.SectorBytes), 64<<10):
		return invalid("nodes of %d bytes", b.NodeBytes)
	case btrfsChecksums[b.ChecksumType] == "":
		return invalid("checksums of type %d", b.ChecksumType)
	}
	return nil
}

func (b *Btrfs) whyNotMountable() string {
	unknown := b.Incompat &^ btrfsIncompatKnown
	switch {
	case b.Devices != 1:
		return fmt.Sprintf("it spans %d devices", b.Devices)
	case b.Seeding:
		return "it is the seed of other filesystems"
	case b.MetadataDump:
		return "it is an image of metadata alone, without the data of its files"
	case b.Incompat&btrfsZoned != 0:
		return "it is made for a zoned device"
	case unknown != 0:
		return "it has features that are not known: " + strings.Join(bitNames(nil, unknown, btrfsIncompatNames, 'I'), ", ")
	case b.HighFeatures:
		return "it has features that are not known"
	}
	return ""
}

// mkfsBtrfs follows mkfs.btrfs(8) of btrfs-progs 6.2.
func (f *Filesystem) mkfsBtrfs(opts MkfsOptions) (Recipe, error) {
	b := f.Btrfs
	sizeBytes := f.SizeBytes
	if opts.SizeBytes != 0 {
		sizeBytes = opts.SizeBytes / int64(b.SectorBytes) * int64(b.SectorBytes)
	}
	argv := []string{"mkfs.btrfs", "-q", "-f", "-b", itoa(sizeBytes), "-s", itoa(int64(b.SectorBytes)),
		"-n", itoa(int64(b.NodeBytes)), "--csum", btrfsChecksums[b.ChecksumType]}
	var features []string
	for _, feature := range []uint32{btrfsExtref, btrfsSkinny, btrfsNoHoles} {
		name := strings.Join(bitNames(nil, feature, btrfsIncompatNames, 'I'), "")
		if b.Incompat&feature == 0 {
			name = "^" + name
		}
		features = append(features, name)
	}
	profile := "single"
	if b.DupMetadata {
		profile = "dup"
	}
	if b.Incompat&btrfsMixedGroups != 0 {
		argv = append(argv, "-M", "-d", profile, "-m", profile) // data and metadata lie together
	} else {
		argv = append(argv, "-d", "single", "-m", profile)
	}
	tree := "^free-space-tree"
	if b.CompatRO&btrfsFreeSpaceTree != 0 {
		tree = "free-space-tree"
	}
	argv = append(argv, "-O", strings.Join(features, ","), "-R", tree)
	if f.UUID != "" {
		argv = append(argv, "-U", f.UUID)
	}
	if f.Label != "" {
		argv = append(argv, "-L", f.Label)
	}
	recipe := Recipe{Commands: [][]string{append(argv, Device)}, Notes: []string{
		"snapshots come back as ordinary subvolumes, and quotas and compression settings not at all",
		"the device within the filesystem has a new UUID"}}
	lost := bitNames(nil, b.Incompat&^btrfsIncompatMade, btrfsIncompatNames, 'I')
	if lost = bitNames(lost, b.CompatRO&^btrfsCompatROMade, btrfsCompatRONames, 'R'); len(lost) > 0 {
		recipe.Notes = append(recipe.Notes, "features that are not made again: "+strings.Join(lost, ", "))
	}
	return recipe, nil
}
