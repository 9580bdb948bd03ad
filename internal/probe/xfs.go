package probe

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
)

// XFS is the superblock of xfs: struct xfs_dsb in the kernel's fs/xfs/libxfs/xfs_format.h, described in the "XFS Algorithms
// & Data Structures" document. All numbers on disk are big-endian. Names of features are those of mkfs.xfs(8).
type XFS struct {
	Version          uint32 `param:"version"`       // 4 or 5
	VersionFlags     uint32 `param:"version_flags"` // sb_versionnum without the version
	Features2        uint32 `param:"features2"`
	Compat           uint32 `param:"feature_compat"`
	ROCompat         uint32 `param:"feature_ro_compat"`
	Incompat         uint32 `param:"feature_incompat"`
	LogIncompat      uint32 `param:"feature_log_incompat"`
	BlockCount       int64  `param:"block_count"`
	AGBlocks         int64  `param:"ag_blocks"`
	AGCount          uint32 `param:"ag_count"`
	SectorBytes      uint32 `param:"sector_bytes"`
	InodeBytes       uint32 `param:"inode_bytes"`
	InodeMaxPercent  uint32 `param:"inode_max_percent"`
	DirBlockBytes    int64  `param:"directory_block_bytes"`
	LogStart         int64  `param:"log_start"` // 0: the log is outside
	LogBlocks        int64  `param:"log_blocks"`
	LogSectorBytes   uint32 `param:"log_sector_bytes"`
	LogStripeBytes   uint32 `param:"log_stripe_bytes"`   // 0 or 1 means none
	StripeUnitBlocks uint32 `param:"stripe_unit_blocks"` // sunit
	StripeBlocks     uint32 `param:"stripe_width_blocks"`
	RealtimeBlocks   int64  `param:"realtime_blocks"`
	RealtimeExtent   int64  `param:"realtime_extent_blocks"`
	InProgress       bool   `param:"in_progress"` // mkfs did not finish
	HasMetaUUID      bool   `param:"has_meta_uuid"`
	Quotas           bool   `param:"quotas"` // were counted when it was last mounted
}

// Bits of sb_versionnum and its continuations.
const (
	xfsFlagInodeAlign  = 0x80
	xfsFlagStripe      = 0x100
	xfsFlagLogV2       = 0x400
	xfsFlagDirV2       = 0x2000
	xfsFlagASCIICI     = 0x4000
	xfsFlagMore        = 0x8000
	xfs2LazySB         = 0x2
	xfs2Attr2          = 0x8
	xfs2Projid32       = 0x80
	xfs2Ftype          = 0x200
	xfsROFinobt        = 0x1
	xfsRORmapbt        = 0x2
	xfsROReflink       = 0x4
	xfsROInobtCount    = 0x8
	xfsIncompatFtype   = 0x1
	xfsIncompatSparse  = 0x2
	xfsIncompatMeta    = 0x4
	xfsIncompatBigtime = 0x8
	xfsIncompatRepair  = 0x10
	xfsIncompatNrext64 = 0x20
	xfsIncompatExch    = 0x40
	xfsIncompatParent  = 0x80
	xfsIncompatMetadir = 0x100
)

var xfsIncompatNames = [32]string{0: "ftype", 1: "sparse", 2: "meta_uuid", 3: "bigtime", 4: "needsrepair", 5: "nrext64",
	6: "exchange", 7: "parent", 8: "metadir", 9: "zoned", 10: "zone_gaps"}

// xfsIncompatKnown are features of a filesystem on one device that the kernel may be trusted to know or to refuse.
const xfsIncompatKnown = xfsIncompatFtype | xfsIncompatSparse | xfsIncompatMeta | xfsIncompatBigtime | xfsIncompatRepair |
	xfsIncompatNrext64 | xfsIncompatExch | xfsIncompatParent | xfsIncompatMetadir

func readXFS(r io.ReaderAt) (*Filesystem, error) {
	sb := make([]byte, 512)
	if _, err := r.ReadAt(sb, 0); err != nil {
		return nil, err
	}
	be16 := func(at int) uint32 { return uint32(binary.BigEndian.Uint16(sb[at:])) }
	be32 := func(at int) uint32 { return binary.BigEndian.Uint32(sb[at:]) }
	// Counters that no real filesystem has are cut to the largest int64, and fail the checks.
	be64 := func(at int) int64 { return int64(min(binary.BigEndian.Uint64(sb[at:]), 1<<62)) }
	if string(sb[:4]) != "XFSB" {
		return nil, invalid("magic number %q", sb[:4])
	}
	version := be16(100)
	x := &XFS{
		Version: version & 0xf, VersionFlags: version &^ 0xf,
		BlockCount: be64(8), AGBlocks: int64(be32(84)), AGCount: be32(88),
		SectorBytes: be16(102), InodeBytes: be16(104), InodeMaxPercent: uint32(sb[127]),
		LogStart: be64(48), LogBlocks: int64(be32(96)), LogSectorBytes: be16(194), LogStripeBytes: be32(196),
		StripeUnitBlocks: be32(184), StripeBlocks: be32(188),
		RealtimeBlocks: be64(16), RealtimeExtent: int64(be32(80)),
		InProgress: sb[126] != 0, Quotas: be16(176) != 0,
	}
	blockBytes := int64(be32(4))
	if sb[192] > 16 {
		return nil, invalid("directory blocks of 2^%d blocks", sb[192])
	}
	x.DirBlockBytes = min(blockBytes, 64<<10) << sb[192]
	if x.VersionFlags&xfsFlagMore != 0 {
		x.Features2 = be32(200)
	}
	if x.Version == 5 {
		x.Compat, x.ROCompat, x.Incompat, x.LogIncompat = be32(208), be32(212), be32(216), be32(220)
		x.HasMetaUUID = x.Incompat&xfsIncompatMeta != 0
	}
	if x.LogSectorBytes == 0 {
		x.LogSectorBytes = 512
	}
	if x.VersionFlags&xfsFlagStripe == 0 {
		x.StripeUnitBlocks, x.StripeBlocks = 0, 0
	}
	fs := &Filesystem{
		UUID: uuidString(sb[32:48]), Label: cString(sb[108:120]), BlockBytes: blockBytes,
		State: StateUnknown, XFS: x,
	}
	if x.Incompat&xfsIncompatRepair != 0 || x.InProgress {
		fs.State = StateErrors
	}
	if err := fs.validate(); err != nil {
		return nil, err
	}
	fs.SizeBytes = x.BlockCount * blockBytes
	fs.FreeBytes = min(be64(144), x.BlockCount) * blockBytes
	return fs, nil
}

func (x *XFS) validate() error {
	switch {
	case x.Version != 4 && x.Version != 5:
		return invalid("version %d", x.Version)
	case x.BlockCount < 1 || x.BlockCount > 1<<46:
		return invalid("%d blocks", x.BlockCount)
	case x.AGBlocks < 1 || x.AGCount < 1 || ceilDiv(x.BlockCount, x.AGBlocks) != int64(x.AGCount):
		return invalid("%d blocks in %d groups of %d", x.BlockCount, x.AGCount, x.AGBlocks)
	case !isPowerOfTwo(int64(x.SectorBytes), 512, 32<<10):
		return invalid("sectors of %d bytes", x.SectorBytes)
	case !isPowerOfTwo(int64(x.InodeBytes), 256, 2<<10):
		return invalid("inodes of %d bytes", x.InodeBytes)
	case !isPowerOfTwo(x.DirBlockBytes, 512, 64<<10):
		return invalid("directory blocks of %d bytes", x.DirBlockBytes)
	case x.InodeMaxPercent > 100:
		return invalid("%d %% for inodes", x.InodeMaxPercent)
	case x.LogBlocks > x.BlockCount && x.LogStart != 0:
		return invalid("a log of %d blocks", x.LogBlocks)
	}
	return nil
}

func (x *XFS) whyNotMountable() string {
	unknown := x.Incompat &^ xfsIncompatKnown
	switch {
	case x.LogStart == 0:
		return "its log is on another device, which mounting would write to"
	case x.RealtimeBlocks > 0:
		return "it has a realtime device, where data of its files lies"
	case x.InProgress:
		return "mkfs.xfs did not finish it"
	case x.Incompat&xfsIncompatRepair != 0:
		return "it is marked for xfs_repair and no kernel mounts it"
	case unknown != 0:
		return "it has features that are not known: " + strings.Join(bitNames(nil, unknown, xfsIncompatNames, 'I'), ", ")
	}
	return ""
}

// Limits below which mkfs.xfs refuses since xfsprogs 5.19, unless the variables of xfsTinyEnv are set.
const (
	xfsLeastBytes    = 300 << 20
	xfsLeastLogBytes = 64 << 20
)

// xfsTinyEnv is the switch that mkfs.xfs has for its own test suite. Guests of former years have logs of 10 MiB and /boot
// of 200 MiB, which it would not make otherwise. (The option --unsupported does the same, but older releases that need
// no switch do not know it.)
var xfsTinyEnv = []string{"TEST_DIR=/", "TEST_DEV=/", "QA_CHECK_FS=1"}

func (f *Filesystem) mkfsXFS(opts MkfsOptions) (Recipe, error) {
	x := f.XFS
	progs := opts.XFSProgs
	if progs == [2]int{} {
		progs = [2]int{6, 1}
	}
	atLeast := func(major, minor int) bool { return slices.Compare(progs[:], []int{major, minor}) >= 0 }
	sizeBytes, sameSize := f.SizeBytes, true
	if opts.SizeBytes != 0 {
		sizeBytes = opts.SizeBytes / f.BlockBytes * f.BlockBytes
		sameSize = sizeBytes == f.SizeBytes
	}

	var recipe Recipe
	recipe.Notes = x.differences(sameSize)
	argv := []string{"mkfs.xfs", "-q", "-f", "-b", "size=" + itoa(f.BlockBytes), "-s", "size=" + itoa(int64(x.SectorBytes))}
	argv = append(argv, "-m", f.xfsMetaArgument(atLeast))
	argv = append(argv, "-d", f.xfsDataArgument(sizeBytes, sameSize))
	argv = append(argv, "-i", x.inodeArgument(atLeast))
	argv = append(argv, "-n", x.namingArgument())
	argv = append(argv, "-l", f.xfsLogArgument(sameSize))
	if x.RealtimeExtent > 1 {
		argv = append(argv, "-r", "extsize="+itoa(x.RealtimeExtent*f.BlockBytes))
	}
	if f.Label != "" {
		argv = append(argv, "-L", f.Label)
	}
	recipe.Commands = [][]string{append(argv, Device)}
	if sizeBytes < xfsLeastBytes || x.AGCount < 2 || x.LogBlocks*f.BlockBytes < xfsLeastLogBytes {
		recipe.Env = xfsTinyEnv
	}
	return recipe, nil
}

func (f *Filesystem) xfsMetaArgument(atLeast func(major, minor int) bool) string {
	x := f.XFS
	settings := []string{
		"crc=" + onOff(x.Version == 5),
		"finobt=" + onOff(x.ROCompat&xfsROFinobt != 0),
		"rmapbt=" + onOff(x.ROCompat&xfsRORmapbt != 0),
		"reflink=" + onOff(x.ROCompat&xfsROReflink != 0),
	}
	if bit := x.Incompat & xfsIncompatBigtime; bit != 0 || atLeast(5, 10) {
		settings = append(settings, "bigtime="+onOff(bit != 0))
	}
	if bit := x.ROCompat & xfsROInobtCount; bit != 0 || atLeast(5, 10) {
		settings = append(settings, "inobtcount="+onOff(bit != 0))
	}
	if bit := x.Incompat & xfsIncompatMetadir; bit != 0 || atLeast(6, 13) {
		settings = append(settings, "metadir="+onOff(bit != 0))
	}
	if f.UUID != "" {
		settings = append(settings, "uuid="+f.UUID)
	}
	return strings.Join(settings, ",")
}

func (f *Filesystem) xfsDataArgument(sizeBytes int64, sameSize bool) string {
	x := f.XFS
	settings := []string{"size=" + itoa(sizeBytes)}
	if sameSize {
		settings = append(settings, "agsize="+itoa(x.AGBlocks*f.BlockBytes))
	}
	if x.StripeUnitBlocks > 0 && x.StripeBlocks%x.StripeUnitBlocks == 0 {
		// su is in bytes, sw counts units.
		settings = append(settings, "su="+itoa(int64(x.StripeUnitBlocks)*f.BlockBytes),
			"sw="+itoa(int64(x.StripeBlocks/x.StripeUnitBlocks)))
	} else {
		settings = append(settings, "noalign")
	}
	return strings.Join(settings, ",")
}

func (x *XFS) inodeArgument(atLeast func(major, minor int) bool) string {
	attr := "1"
	if x.Features2&xfs2Attr2 != 0 || x.Version == 5 {
		attr = "2"
	}
	settings := []string{
		"size=" + itoa(int64(x.InodeBytes)),
		"maxpct=" + itoa(int64(x.InodeMaxPercent)),
		"attr=" + attr,
		"projid32bit=" + onOff(x.Features2&xfs2Projid32 != 0 || x.Version == 5),
		"sparse=" + onOff(x.Incompat&xfsIncompatSparse != 0),
	}
	if x.VersionFlags&xfsFlagInodeAlign == 0 {
		settings = append(settings, "align=0")
	}
	if bit := x.Incompat & xfsIncompatNrext64; bit != 0 || atLeast(5, 19) {
		settings = append(settings, "nrext64="+onOff(bit != 0))
	}
	if bit := x.Incompat & xfsIncompatExch; bit != 0 || atLeast(6, 10) {
		settings = append(settings, "exchange="+onOff(bit != 0))
	}
	return strings.Join(settings, ",")
}

func (x *XFS) namingArgument() string {
	version := "version=2"
	if x.VersionFlags&xfsFlagASCIICI != 0 {
		version = "version=ci"
	}
	settings := []string{"size=" + itoa(x.DirBlockBytes), version,
		"ftype=" + onOff(x.Incompat&xfsIncompatFtype != 0 || x.Features2&xfs2Ftype != 0)}
	if x.Incompat&xfsIncompatParent != 0 {
		settings = append(settings, "parent=1")
	}
	return strings.Join(settings, ",")
}

func (f *Filesystem) xfsLogArgument(sameSize bool) string {
	x := f.XFS
	settings := []string{"internal=1"}
	if sameSize && x.LogStart != 0 {
		settings = append(settings, "size="+itoa(x.LogBlocks*f.BlockBytes))
	}
	version := "version=1"
	if x.VersionFlags&xfsFlagLogV2 != 0 {
		version = "version=2"
	}
	settings = append(settings, version, "lazy-count="+onOff(x.Features2&xfs2LazySB != 0))
	if x.LogStripeBytes > 1 && x.VersionFlags&xfsFlagLogV2 != 0 {
		settings = append(settings, "su="+itoa(int64(x.LogStripeBytes)))
	}
	return strings.Join(settings, ",")
}

// differences says what mkfs.xfs cannot make as it was.
func (x *XFS) differences(sameSize bool) []string {
	var notes []string
	if x.VersionFlags&xfsFlagDirV2 == 0 {
		notes = append(notes, "the original has directories of version 1; mkfs.xfs makes version 2")
	}
	if x.LogStart == 0 {
		notes = append(notes, "the original has its log on another device; the new one has it inside")
	}
	if x.RealtimeBlocks > 0 {
		notes = append(notes, "the original has a realtime device; the new one has none")
	}
	if x.HasMetaUUID {
		notes = append(notes, "the UUID of the original was changed after it was made; the new one has it from the beginning")
	}
	if lost := x.Incompat &^ xfsIncompatKnown; lost != 0 {
		notes = append(notes, "features that are not known: "+strings.Join(bitNames(nil, lost, xfsIncompatNames, 'I'), ", "))
	}
	if rest := x.ROCompat &^ 0xf; rest != 0 {
		notes = append(notes, fmt.Sprintf("%d read-only compatible features that are not known (%#x)", bits.OnesCount32(rest), rest))
	}
	if x.StripeUnitBlocks > 0 && x.StripeBlocks%x.StripeUnitBlocks != 0 {
		notes = append(notes, "the stripe width is no multiple of the stripe unit and is left out")
	}
	if x.Quotas {
		notes = append(notes, quotaNote)
	}
	if !sameSize {
		notes = append(notes, "allocation groups and log are sized by mkfs.xfs for the new size")
	}
	return notes
}
