package probe

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Ext is the superblock of ext2, ext3 or ext4. Offsets and meanings are those of the kernel's
// Documentation/filesystems/ext4/super.rst (struct ext4_super_block); names of features are those of mke2fs(8) and
// ext4(5).
type Ext struct {
	Revision         uint32 `param:"revision"`
	CreatorOS        uint32 `param:"creator_os"` // 0 is Linux
	BlockCount       int64  `param:"block_count"`
	ReservedBlocks   int64  `param:"reserved_blocks"`
	ReservedUID      uint32 `param:"reserved_uid"`
	ReservedGID      uint32 `param:"reserved_gid"`
	FirstBlock       uint32 `param:"first_block"`
	InodeCount       uint32 `param:"inode_count"`
	FreeInodes       uint32 `param:"free_inodes"`
	InodeBytes       uint32 `param:"inode_bytes"`
	MinExtraIsize    uint32 `param:"min_extra_isize"`
	WantExtraIsize   uint32 `param:"want_extra_isize"`
	ClusterBytes     int64  `param:"cluster_bytes"` // that of a block without bigalloc
	BlocksPerGroup   uint32 `param:"blocks_per_group"`
	ClustersPerGroup uint32 `param:"clusters_per_group"`
	InodesPerGroup   uint32 `param:"inodes_per_group"`
	FlexGroups       uint32 `param:"flex_bg_size"` // 0 without flex_bg
	ReservedGDT      uint32 `param:"reserved_gdt_blocks"`
	DescBytes        uint32 `param:"group_descriptor_bytes"`
	FirstMetaGroup   uint32 `param:"first_meta_bg"`
	BackupGroup1     uint32 `param:"backup_group_1"` // sparse_super2; 0 means none
	BackupGroup2     uint32 `param:"backup_group_2"`

	Compat   uint32 `param:"feature_compat"`
	Incompat uint32 `param:"feature_incompat"`
	ROCompat uint32 `param:"feature_ro_compat"`

	HashSeed     string `param:"hash_seed"` // as a UUID
	HashVersion  uint32 `param:"hash_version"`
	UnsignedHash bool   `param:"unsigned_hash"`

	Errors        uint32 `param:"errors_behaviour"` // 1 continue, 2 remount-ro, 3 panic
	ErrorCount    uint32 `param:"error_count"`
	MountFlags    uint32 `param:"default_mount_flags"`
	MountOptions  string `param:"mount_options"`
	MaxMounts     int64  `param:"max_mount_count"` // -1: never checked for it
	CheckInterval uint32 `param:"check_interval_seconds"`
	Stride        uint32 `param:"stride"`
	StripeWidth   uint32 `param:"stripe_width"`
	MMPInterval   uint32 `param:"mmp_interval_seconds"`
	Encoding      uint32 `param:"encoding"`
	EncodingFlags uint32 `param:"encoding_flags"`
	UserQuota     bool   `param:"quota_user"`
	GroupQuota    bool   `param:"quota_group"`
	ProjectQuota  bool   `param:"quota_project"`

	JournalUUID       string `param:"journal_uuid"`
	JournalDevice     uint32 `param:"journal_device"` // device number of a journal outside
	JournalInode      uint32 `param:"journal_inode"`
	JournalBytes      int64  `param:"journal_bytes"`              // fast-commit area included; 0 when not told
	JournalBlock      int64  `param:"journal_block"`              // where it begins; 0 when not told
	JournalFastCommit uint32 `param:"journal_fast_commit_blocks"` // 0 without
	JournalIncompat   uint32 `param:"journal_incompat"`
}

const (
	extSuperOffset = 1024
	extSuperBytes  = 1024
	extMagic       = 0xef53
)

// Bits that decide something here.
const (
	extCompatHasJournal  = 0x4
	extCompatResizeInode = 0x10
	extCompatSparse2     = 0x200
	extCompatFastCommit  = 0x400

	extIncompatRecover    = 0x4
	extIncompatJournalDev = 0x8
	extIncompatMetaBG     = 0x10
	extIncompat64Bit      = 0x80
	extIncompatMMP        = 0x100
	extIncompatFlexBG     = 0x200
	extIncompatCsumSeed   = 0x2000
	extIncompatEncrypt    = 0x10000
	extIncompatCasefold   = 0x20000

	extROQuota    = 0x100
	extROBigalloc = 0x200
	extROReadOnly = 0x1000
)

// The names of feature bits 0 to 31; "" has none and is written as dumpe2fs does (FEATURE_C7).
var (
	extCompatNames = [32]string{0: "dir_prealloc", 1: "imagic_inodes", 2: "has_journal", 3: "ext_attr", 4: "resize_inode",
		5: "dir_index", 6: "lazy_bg", 8: "snapshot_bitmap", 9: "sparse_super2", 10: "fast_commit", 11: "stable_inodes",
		12: "orphan_file"}
	extIncompatNames = [32]string{0: "compression", 1: "filetype", 2: "needs_recovery", 3: "journal_dev", 4: "meta_bg",
		6: "extent", 7: "64bit", 8: "mmp", 9: "flex_bg", 10: "ea_inode", 12: "dirdata", 13: "metadata_csum_seed",
		14: "large_dir", 15: "inline_data", 16: "encrypt", 17: "casefold"}
	extROCompatNames = [32]string{0: "sparse_super", 1: "large_file", 3: "huge_file", 4: "uninit_bg", 5: "dir_nlink",
		6: "extra_isize", 7: "snapshot", 8: "quota", 9: "bigalloc", 10: "metadata_csum", 11: "replica", 12: "read-only",
		13: "project", 14: "shared_blocks", 15: "verity", 16: "orphan_present"}
)

// Features that mke2fs 1.47 sets when asked. The others come and go at run time or are experiments of the past.
const (
	extCompatMakeable   = 0x4 | 0x8 | 0x10 | 0x20 | 0x200 | 0x400 | 0x800 | 0x1000
	extIncompatMakeable = 0x2 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
	extROMakeable       = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x8000

	// Incompatible features that the kernel knows how to read. What lies beyond is not mounted.
	extIncompatKnown = extIncompatMakeable | extIncompatRecover

	// Features that mean "now" and not "always": a journal to replay, orphans to delete.
	extIncompatTransient = extIncompatRecover
	extROTransient       = 0x10000
)

// Features lists the names of all feature bits that are set, in the order of dumpe2fs.
func (e *Ext) Features() []string {
	names := bitNames(nil, e.Compat, extCompatNames, 'C')
	names = bitNames(names, e.Incompat, extIncompatNames, 'I')
	return bitNames(names, e.ROCompat, extROCompatNames, 'R')
}

func bitNames(names []string, bits uint32, table [32]string, class rune) []string {
	for i, name := range table {
		if bits&(1<<i) == 0 {
			continue
		}
		if name == "" {
			name = fmt.Sprintf("FEATURE_%c%d", class, i)
		}
		names = append(names, name)
	}
	return names
}

func readExt(r *io.SectionReader) (*Filesystem, error) {
	sb := make([]byte, extSuperBytes)
	if _, err := r.ReadAt(sb, extSuperOffset); err != nil {
		return nil, err
	}
	le16 := func(at int) uint32 { return uint32(binary.LittleEndian.Uint16(sb[at:])) }
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(sb[at:]) }
	if le16(0x38) != extMagic {
		return nil, invalid("magic number %#x", le16(0x38))
	}
	logBlock, logCluster := le32(0x18), le32(0x1c)
	if logBlock > 6 || logCluster > 20 {
		return nil, invalid("block size 2^%d, cluster size 2^%d KiB", logBlock, logCluster)
	}
	e := &Ext{
		Revision: le32(0x4c), CreatorOS: le32(0x48), FirstBlock: le32(0x14),
		InodeCount: le32(0), FreeInodes: le32(0x10), InodeBytes: 128,
		ClusterBytes:   1024 << logBlock,
		BlocksPerGroup: le32(0x20), ClustersPerGroup: le32(0x24), InodesPerGroup: le32(0x28),
		ReservedUID: le16(0x50), ReservedGID: le16(0x52), DescBytes: 32,
		Errors: le16(0x3c), MaxMounts: int64(int16(le16(0x36))), CheckInterval: le32(0x44),
	}
	if e.Revision > 0 { // what follows is not there in the good old revision
		e.InodeBytes = le16(0x58)
		e.Compat, e.Incompat, e.ROCompat = le32(0x5c), le32(0x60), le32(0x64)
	}
	if e.ROCompat&extROBigalloc != 0 {
		e.ClusterBytes = 1024 << logCluster
	}
	e.ReservedGDT = le16(0xce)
	e.HashSeed, e.HashVersion, e.UnsignedHash = uuidString(sb[0xec:0xfc]), uint32(sb[0xfc]), le32(0x160)&2 != 0
	e.MountFlags, e.MountOptions = le32(0x100), cString(sb[0x200:0x240])
	e.MinExtraIsize, e.WantExtraIsize = le16(0x15c), le16(0x15e)
	e.Stride, e.StripeWidth, e.ErrorCount = le16(0x164), le32(0x170), le32(0x194)
	e.UserQuota, e.GroupQuota, e.ProjectQuota = le32(0x240) != 0, le32(0x244) != 0, le32(0x26c) != 0
	blocks := int64(le32(0x4))
	reserved, free := int64(le32(0x8)), int64(le32(0xc))
	if e.Incompat&extIncompat64Bit != 0 {
		if le32(0x150) > 1<<20 {
			return nil, invalid("more than 2^52 blocks")
		}
		blocks |= int64(le32(0x150)) << 32
		reserved |= int64(le32(0x154)&0xfffff) << 32
		free |= int64(le32(0x158)&0xfffff) << 32
		e.DescBytes = le16(0xfe)
	}
	e.BlockCount, e.ReservedBlocks = blocks, reserved
	if e.Incompat&extIncompatFlexBG != 0 && sb[0x174] < 32 {
		e.FlexGroups = 1 << sb[0x174]
	}
	if e.Incompat&extIncompatMetaBG != 0 {
		e.FirstMetaGroup = le32(0x104)
	}
	if e.Incompat&extIncompatMMP != 0 {
		e.MMPInterval = le16(0x166)
	}
	if e.Compat&extCompatSparse2 != 0 {
		e.BackupGroup1, e.BackupGroup2 = le32(0x24c), le32(0x250)
	}
	if e.Incompat&extIncompatCasefold != 0 {
		e.Encoding, e.EncodingFlags = le16(0x27c), le16(0x27e)
	}
	blockBytes := int64(1024) << logBlock
	fs := &Filesystem{
		UUID: uuidString(sb[0x68:0x78]), Label: cString(sb[0x78:0x88]), LastMounted: cString(sb[0x88:0xc8]),
		BlockBytes: blockBytes, State: e.state(le16(0x3a)), Ext: e,
	}
	if err := e.validate(fs); err != nil {
		return nil, err
	}
	fs.SizeBytes = blocks * blockBytes
	fs.FreeBytes = free * blockBytes // of bigalloc too: the superblock counts blocks
	if e.Compat&extCompatHasJournal != 0 {
		e.readJournal(r, sb, blockBytes)
	}
	return fs, nil
}

// state turns s_state and its companions into one word.
func (e *Ext) state(bits uint32) State {
	switch {
	case bits&2 != 0 || e.ErrorCount > 0:
		return StateErrors
	case bits&1 == 0 || e.Incompat&extIncompatTransient != 0 || e.ROCompat&extROTransient != 0:
		return StateDirty
	}
	return StateClean
}

// readJournal learns where the journal is and how large. The superblock holds a copy of its inode's block map (s_jnl_blocks,
// kept by e2fsprogs); what is not told stays 0, which leaves the size to mke2fs.
func (e *Ext) readJournal(r io.ReaderAt, sb []byte, blockBytes int64) {
	le32 := func(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
	e.JournalUUID = uuidString(sb[0xd0:0xe0])
	e.JournalInode, e.JournalDevice = le32(sb[0xe0:]), le32(sb[0xe4:])
	if sb[0xfd] != 1 || e.JournalInode == 0 { // EXT3_JNL_BACKUP_BLOCKS
		return
	}
	blockMap := sb[0x10c : 0x10c+17*4]
	size := int64(le32(blockMap[16*4:])) | int64(le32(blockMap[15*4:])&0xffff)<<32
	if size > 0 && size/blockBytes < e.BlockCount {
		e.JournalBytes = size
	}
	first := int64(le32(blockMap)) // block number; with extents the first leaf of the tree, if it has depth 0
	if binary.LittleEndian.Uint16(blockMap) == 0xf30a {
		first = 0
		if entries, depth := binary.LittleEndian.Uint16(blockMap[2:]), binary.LittleEndian.Uint16(blockMap[6:]); entries > 0 &&
			depth == 0 {
			first = int64(le32(blockMap[12+8:])) | int64(binary.LittleEndian.Uint16(blockMap[12+6:]))<<32
		}
	}
	if first <= 0 || first >= e.BlockCount {
		return
	}
	e.JournalBlock = first
	// Documentation/filesystems/ext4/journal.rst: big-endian; block type 4 is a version 2 superblock.
	jsb := make([]byte, 0x58)
	if _, err := r.ReadAt(jsb, first*blockBytes); err != nil || binary.BigEndian.Uint32(jsb) != 0xc03b3998 ||
		binary.BigEndian.Uint32(jsb[4:]) != 4 {
		return
	}
	e.JournalIncompat = binary.BigEndian.Uint32(jsb[0x28:])
	if blocks := binary.BigEndian.Uint32(jsb[0x54:]); int64(blocks) < e.JournalBytes/blockBytes {
		e.JournalFastCommit = blocks
	}
}

func (e *Ext) validate(f *Filesystem) error {
	switch {
	case !isPowerOfTwo(f.BlockBytes, 1<<10, 64<<10):
		return invalid("blocks of %d bytes", f.BlockBytes)
	case !isPowerOfTwo(e.ClusterBytes, f.BlockBytes, 1<<40):
		return invalid("clusters of %d bytes", e.ClusterBytes)
	case !isPowerOfTwo(int64(e.InodeBytes), 128, f.BlockBytes):
		return invalid("inodes of %d bytes", e.InodeBytes)
	case e.BlockCount <= int64(e.FirstBlock) || e.BlockCount > (1<<62)/f.BlockBytes:
		return invalid("%d blocks", e.BlockCount)
	case e.BlocksPerGroup == 0 || e.InodesPerGroup == 0 || e.InodeCount == 0:
		return invalid("%d blocks and %d inodes per group", e.BlocksPerGroup, e.InodesPerGroup)
	case !isPowerOfTwo(int64(e.DescBytes), 32, f.BlockBytes):
		return invalid("group descriptors of %d bytes", e.DescBytes)
	case e.ReservedBlocks < 0 || e.ReservedBlocks > e.BlockCount:
		return invalid("%d of %d blocks reserved", e.ReservedBlocks, e.BlockCount)
	case e.JournalBytes < 0 || e.JournalBytes > e.BlockCount*f.BlockBytes:
		return invalid("a journal of %d bytes", e.JournalBytes)
	}
	return nil
}

func (e *Ext) whyNotMountable() string {
	unknown := e.Incompat &^ extIncompatKnown
	switch {
	case e.Incompat&extIncompatJournalDev != 0:
		return "it is the journal of another ext filesystem"
	case e.Compat&extCompatHasJournal != 0 && (e.JournalDevice != 0 || e.JournalInode == 0):
		return "its journal is on another device, which mounting would write to"
	case foreignMountOption(e.MountOptions) != "":
		return "its superblock asks for the mount option " + foreignMountOption(e.MountOptions)
	case e.Incompat&extIncompatEncrypt != 0:
		return "it has encrypted directories, whose names and data cannot be read without their keys"
	case unknown != 0:
		return "it has features that are not known: " + strings.Join(bitNames(nil, unknown, extIncompatNames, 'I'), ", ")
	}
	return ""
}

// foreignMountOption returns the first of the mount options in a superblock that must not be obeyed: those that name a
// journal device of this host, and those that leave the journal alone.
func foreignMountOption(options string) string {
	for option := range strings.SplitSeq(options, ",") {
		switch name, _, _ := strings.Cut(option, "="); name {
		case "journal_dev", "journal_path", "noload", "norecovery":
			return option
		}
	}
	return ""
}
