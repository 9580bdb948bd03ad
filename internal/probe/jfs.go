package probe

import (
	"encoding/binary"
	"fmt"
	"io"
)

// JFS is the superblock of IBM's JFS: struct jfs_superblock in the kernel's fs/jfs/jfs_superblock.h; flags and states are
// those of jfs_filsys.h.
type JFS struct {
	Version     uint32 `param:"version"`
	Flags       uint32 `param:"flags"`
	LogState    uint32 `param:"log_state"`
	LogBlock    int64  `param:"log_block"`
	LogBlocks   int64  `param:"log_blocks"`
	TotalBlocks int64  `param:"total_blocks"` // those of the log and of fsck's work space among them
}

const (
	jfsSuperOffset   = 32 << 10
	jfsMagic         = "JFS1"
	jfsBlockBytes    = 4096 // the only size that Linux knows
	jfsFlagInlineLog = 0x800
	jfsFlagLinux     = 0x10000000
	jfsFlagOS2       = 0x40000000 // names without regard to case
)

func readJFS(r io.ReaderAt) (*Filesystem, error) {
	sb := make([]byte, 512)
	if _, err := r.ReadAt(sb, jfsSuperOffset); err != nil {
		return nil, err
	}
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(sb[at:]) }
	// A pxd: 24 bits of length and 40 bits of address, in blocks.
	pxd := func(at int) (address, length int64) {
		return int64(le32(at)>>24)<<32 | int64(le32(at+4)), int64(le32(at) & 0xffffff)
	}
	if string(sb[:4]) != jfsMagic {
		return nil, invalid("magic number %q", sb[:4])
	}
	if le32(16) != jfsBlockBytes {
		return nil, invalid("blocks of %d bytes, of which Linux knows only those of %d", le32(16), jfsBlockBytes)
	}
	physical := int64(le32(24))
	if !isPowerOfTwo(physical, 512, jfsBlockBytes) {
		return nil, invalid("physical blocks of %d bytes", physical)
	}
	j := &JFS{Version: le32(4), Flags: le32(36), LogState: le32(40)}
	j.LogBlock, j.LogBlocks = pxd(72)
	fsck, fsckBlocks := pxd(80)
	size := int64(min(binary.LittleEndian.Uint64(sb[8:]), 1<<52)) / (jfsBlockBytes / physical)
	j.TotalBlocks = max(size, fsck+fsckBlocks)
	if j.Flags&jfsFlagInlineLog != 0 {
		j.TotalBlocks = max(j.TotalBlocks, j.LogBlock+j.LogBlocks)
	}
	fs := &Filesystem{
		UUID: uuidString(sb[136:152]), Label: cString(sb[152:168]), BlockBytes: jfsBlockBytes,
		SizeBytes: j.TotalBlocks * jfsBlockBytes, FreeBytes: -1, State: StateClean, JFS: j,
	}
	if j.LogState != 0 {
		fs.State = StateDirty
	}
	return fs, j.validate()
}

func (j *JFS) validate() error {
	switch {
	case j.Version > 2:
		return invalid("version %d", j.Version)
	case j.TotalBlocks <= 0 || j.TotalBlocks > 1<<50:
		return invalid("%d blocks", j.TotalBlocks)
	case j.LogBlocks < 0 || j.LogBlocks > j.TotalBlocks:
		return invalid("a log of %d blocks among %d", j.LogBlocks, j.TotalBlocks)
	}
	return nil
}

func (j *JFS) whyNotMountable() string {
	switch {
	case j.Flags&jfsFlagInlineLog == 0:
		return "its log is on another device"
	case j.LogState != 0:
		// The kernel would mount it read-only, without the log.
		return "its log is to be replayed, which only fsck.jfs does; a guest that is frozen for the snapshot closes it"
	}
	return ""
}

// mkfsJFS follows mkfs.jfs(8) and jfs_tune(8) of jfsutils 1.1.15.
func (f *Filesystem) mkfsJFS(opts MkfsOptions) (Recipe, error) {
	const leastBytes, mib = 16 << 20, 1 << 20
	blocks := f.JFS.TotalBlocks
	if opts.SizeBytes != 0 {
		blocks = opts.SizeBytes / jfsBlockBytes
	}
	if blocks*jfsBlockBytes < leastBytes {
		return Recipe{}, fmt.Errorf("cannot make JFS in %d bytes", blocks*jfsBlockBytes)
	}
	argv := []string{"mkfs.jfs", "-q"}
	if f.JFS.Flags&jfsFlagOS2 != 0 {
		argv = append(argv, "-O")
	}
	if f.Label != "" {
		argv = append(argv, "-L", f.Label)
	}
	// In MiB, and beside it lies what fsck needs; mkfs.jfs refuses a tenth of the whole.
	if log := ceilDiv(f.JFS.LogBlocks*jfsBlockBytes, mib); opts.SizeBytes == 0 && log > 0 {
		argv = append(argv, "-s", itoa(log))
	}
	recipe := Recipe{Commands: [][]string{append(argv, Device, itoa(blocks))}}
	if f.UUID != "" {
		recipe.Commands = append(recipe.Commands, []string{"jfs_tune", "-U", f.UUID, Device})
	}
	return recipe, nil
}
