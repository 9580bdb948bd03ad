package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// F2FS is the superblock of f2fs: struct f2fs_super_block in the kernel's include/linux/f2fs_fs.h. Names of features are
// those of mkfs.f2fs(8).
type F2FS struct {
	Features           uint32 `param:"features_bits"`
	SectorBytes        uint32 `param:"sector_bytes"`
	SegmentBlocks      uint32 `param:"segment_blocks"`
	SegmentsPerSection uint32 `param:"segments_per_section"`
	SectionsPerZone    uint32 `param:"sections_per_zone"`
	BlockCount         int64  `param:"block_count"`
	Encoding           uint32 `param:"encoding"`
	EncodingFlags      uint32 `param:"encoding_flags"`
	OtherDevices       bool   `param:"other_devices"` // it names the paths of others, which the kernel would open
	// CopyDiffers says that the second superblock, which the kernel takes when the first is bad, has other features.
	CopyDiffers bool `param:"copy_differs"`
}

const (
	f2fsSuperOffset = 1024
	f2fsMagic       = 0xf2f52010
	f2fsBlockBytes  = 4096

	f2fsEncrypt       = 0x1
	f2fsZoned         = 0x2
	f2fsSBChecksum    = 0x800
	f2fsCasefold      = 0x1000
	f2fsCompression   = 0x2000
	f2fsReadOnly      = 0x4000
	f2fsFeaturesKnown = 0x7fff &^ 0x4

	// Features that mkfs.f2fs is told by name. It has one name more, for the checksum of the superblock.
	f2fsMakeable = 0x1 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | f2fsSBChecksum | f2fsCasefold
)

var f2fsFeatureNames = [32]string{0: "encrypt", 1: "blkzoned", 2: "atomic_write", 3: "extra_attr", 4: "project_quota",
	5: "inode_checksum", 6: "flexible_inline_xattr", 7: "quota", 8: "inode_crtime", 9: "lost_found", 10: "verity",
	11: "sb_checksum", 12: "casefold", 13: "compression", 14: "ro"}

func readF2FS(r io.ReaderAt) (*Filesystem, error) {
	sb := make([]byte, 3072)
	if _, err := r.ReadAt(sb, f2fsSuperOffset); err != nil {
		return nil, err
	}
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(sb[at:]) }
	if le32(0) != f2fsMagic {
		return nil, invalid("magic number %#x", le32(0))
	}
	if le32(8) < 9 || le32(8) > 12 || le32(16) != 12 || le32(20) > 16 {
		return nil, invalid("sectors of 2^%d bytes, blocks of 2^%d, segments of 2^%d blocks", le32(8), le32(16), le32(20))
	}
	second := make([]byte, len(sb))
	if _, err := r.ReadAt(second, f2fsSuperOffset+f2fsBlockBytes); err != nil {
		return nil, err
	}
	x := &F2FS{
		Features: le32(2180), SectorBytes: 1 << le32(8), SegmentBlocks: 1 << le32(20),
		SegmentsPerSection: le32(24), SectionsPerZone: le32(28),
		BlockCount: int64(min(binary.LittleEndian.Uint64(sb[36:]), 1<<50)),
		Encoding:   uint32(binary.LittleEndian.Uint16(sb[2758:])), EncodingFlags: uint32(binary.LittleEndian.Uint16(sb[2760:])),
		OtherDevices: f2fsNamesDevices(sb) || f2fsNamesDevices(second),
		CopyDiffers:  !bytes.Equal(sb[2180:2184], second[2180:2184]),
	}
	fs := &Filesystem{
		UUID: uuidString(sb[108:124]), Label: utf16Text(sb[124 : 124+1024]), BlockBytes: f2fsBlockBytes,
		SizeBytes: x.BlockCount * f2fsBlockBytes, FreeBytes: -1, State: StateUnknown, F2FS: x,
	}
	return fs, x.validate()
}

// f2fsNamesDevices says whether the list of devices in a superblock has any: 8 paths of 64 bytes, each with a count.
func f2fsNamesDevices(sb []byte) bool {
	const list, deviceBytes, devices = 2201, 64 + 4, 8
	return strings.Trim(string(sb[list:list+devices*deviceBytes]), "\x00") != ""
}

func (x *F2FS) validate() error {
	switch {
	case !isPowerOfTwo(int64(x.SectorBytes), 512, f2fsBlockBytes):
		return invalid("sectors of %d bytes", x.SectorBytes)
	case x.BlockCount <= 0 || x.BlockCount >= 1<<50:
		return invalid("%d blocks", x.BlockCount)
	case x.SegmentsPerSection == 0 || x.SectionsPerZone == 0 || x.SegmentsPerSection > 1<<20 || x.SectionsPerZone > 1<<20:
		return invalid("%d segments in a section, %d sections in a zone", x.SegmentsPerSection, x.SectionsPerZone)
	}
	return nil
}

func (x *F2FS) whyNotMountable() string {
	unknown := x.Features &^ uint32(f2fsFeaturesKnown)
	switch {
	case x.OtherDevices:
		return "it names other devices, which mounting would open"
	case x.Features&f2fsZoned != 0:
		return "it is made for a zoned device"
	case x.Features&f2fsEncrypt != 0:
		return "it has encrypted directories, whose names and data cannot be read without their keys"
	case x.Features&f2fsCompression != 0:
		return "it has compressed files, which not every kernel can read"
	case x.Features&f2fsReadOnly != 0:
		return "it was made to be read only, and could not be filled again"
	case unknown != 0:
		return "it has features that are not known: " + strings.Join(bitNames(nil, unknown, f2fsFeatureNames, 'F'), ", ")
	case x.CopyDiffers:
		return "its two superblocks differ in their features"
	}
	return ""
}

// mkfsF2FS follows mkfs.f2fs(8) of f2fs-tools 1.15. How much is set aside for garbage collection is left to it.
func (f *Filesystem) mkfsF2FS(opts MkfsOptions) (Recipe, error) {
	x := f.F2FS
	sizeBytes := f.SizeBytes
	if opts.SizeBytes != 0 {
		sizeBytes = opts.SizeBytes
	}
	const leastBytes = 52 << 20 // of which mkfs.f2fs says that it is not sufficient below
	if sizeBytes < leastBytes {
		return Recipe{}, fmt.Errorf("cannot make f2fs in %d bytes", sizeBytes)
	}
	argv := []string{"mkfs.f2fs", "-q", "-f", "-w", itoa(int64(x.SectorBytes)),
		"-s", itoa(int64(x.SegmentsPerSection)), "-z", itoa(int64(x.SectionsPerZone))}
	if names := bitNames(nil, x.Features&f2fsMakeable&^uint32(f2fsCasefold), f2fsFeatureNames, 'F'); len(names) > 0 {
		argv = append(argv, "-O", strings.Join(names, ","))
	}
	if x.Features&f2fsCasefold != 0 {
		encoding := "utf8"
		if x.EncodingFlags&1 != 0 {
			encoding += ":strict"
		}
		argv = append(argv, "-C", encoding)
	}
	if f.UUID != "" {
		argv = append(argv, "-U", f.UUID)
	}
	if f.Label != "" {
		argv = append(argv, "-l", f.Label)
	}
	recipe := Recipe{Commands: [][]string{append(argv, Device, itoa(sizeBytes/int64(x.SectorBytes)))}}
	if lost := bitNames(nil, x.Features&^uint32(f2fsMakeable), f2fsFeatureNames, 'F'); len(lost) > 0 {
		recipe.Notes = append(recipe.Notes, "features that are not made again: "+strings.Join(lost, ", "))
	}
	return recipe, nil
}
