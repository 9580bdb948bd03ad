package probe

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"unicode/utf16"
)

// ExFAT is the boot sector of exFAT, as in Microsoft's "exFAT file system specification", section 3.1.
type ExFAT struct {
	SectorBytes       uint32 `param:"sector_bytes"`
	Sectors           int64  `param:"sectors"`
	SectorsPerCluster uint32 `param:"sectors_per_cluster"`
	FATOffset         uint32 `param:"fat_offset_sectors"`
	FATLength         uint32 `param:"fat_length_sectors"`
	HeapOffset        uint32 `param:"heap_offset_sectors"` // where cluster 2 begins
	Clusters          uint32 `param:"clusters"`
	RootCluster       uint32 `param:"root_cluster"`
	Serial            uint32 `param:"volume_serial"`
	Revision          uint32 `param:"revision"` // major in the high byte, minor in the low one
	FATs              uint32 `param:"fats"`     // 2 is TexFAT
}

const (
	exfatName        = "EXFAT   "
	exfatEntryBytes  = 32
	exfatLabelChars  = 11
	exfatLabelEntry  = 0x83 // one without a label has bit 7 unset
	exfatDirty       = 0x2
	exfatMaxCluster  = 32 << 20
	exfatBootSectors = 24 // the boot region and its copy
	exfatSumSector   = 11 // the last of the region: the sum of those before it, again and again
)

func readExFAT(r io.ReaderAt) (*Filesystem, error) {
	bs := make([]byte, 512)
	if _, err := r.ReadAt(bs, 0); err != nil {
		return nil, err
	}
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(bs[at:]) }
	if string(bs[3:11]) != exfatName {
		return nil, invalid("name %q in the boot sector", bs[3:11])
	}
	if bs[108] < 9 || bs[108] > 12 || bs[109] > 25-bs[108] {
		return nil, invalid("sectors of 2^%d bytes, clusters of 2^%d sectors", bs[108], bs[109])
	}
	x := &ExFAT{
		SectorBytes: 1 << bs[108], SectorsPerCluster: 1 << bs[109], FATs: uint32(bs[110]),
		Sectors:   int64(min(binary.LittleEndian.Uint64(bs[72:]), 1<<50)),
		FATOffset: le32(80), FATLength: le32(84), HeapOffset: le32(88), Clusters: le32(92), RootCluster: le32(96),
		Serial: le32(100), Revision: uint32(binary.LittleEndian.Uint16(bs[104:])),
	}
	if err := x.validate(); err != nil {
		return nil, err
	}
	fs := &Filesystem{
		UUID: fmt.Sprintf("%04X-%04X", x.Serial>>16, x.Serial&0xffff), BlockBytes: x.clusterBytes(),
		SizeBytes: x.Sectors * int64(x.SectorBytes), FreeBytes: -1, State: StateClean, ExFAT: x,
	}
	if bs[106]&exfatDirty != 0 {
		fs.State = StateDirty
	}
	if percent := int64(bs[112]); percent <= 100 {
		fs.FreeBytes = int64(x.Clusters) * x.clusterBytes() / 100 * (100 - percent)
	}
	label, err := x.readLabel(r)
	if err != nil {
		return nil, fmt.Errorf("read root directory: %w", err)
	}
	fs.Label = label
	return fs, nil
}

func (x *ExFAT) clusterBytes() int64 { return int64(x.SectorsPerCluster) * int64(x.SectorBytes) }

func (x *ExFAT) validate() error {
	cluster := x.clusterBytes()
	switch {
	case !isPowerOfTwo(int64(x.SectorBytes), 512, 4096) || !isPowerOfTwo(cluster, int64(x.SectorBytes), exfatMaxCluster):
		return invalid("sectors of %d bytes, clusters of %d", x.SectorBytes, cluster)
	case x.Sectors <= 0 || x.Sectors >= 1<<50:
		return invalid("%d sectors", x.Sectors)
	case x.FATOffset < exfatBootSectors || int64(x.HeapOffset) < int64(x.FATOffset)+int64(x.FATs)*int64(x.FATLength):
		return invalid("tables of %d sectors at %d, data at %d", x.FATLength, x.FATOffset, x.HeapOffset)
	case x.Clusters == 0 || int64(x.HeapOffset)+int64(x.Clusters)*int64(x.SectorsPerCluster) > x.Sectors:
		return invalid("%d clusters in %d sectors", x.Clusters, x.Sectors)
	case x.FATs != 1 && x.FATs != 2:
		return invalid("%d tables", x.FATs)
	case x.Revision > 0xffff:
		return invalid("revision %#x", x.Revision)
	}
	return nil
}

// readLabel finds the label in the first cluster of the root directory, where every formatter puts it.
func (x *ExFAT) readLabel(r io.ReaderAt) (string, error) {
	if x.RootCluster < 2 || x.RootCluster-2 >= x.Clusters {
		return "", invalid("the root directory at cluster %d", x.RootCluster)
	}
	at := (int64(x.HeapOffset) + int64(x.RootCluster-2)*int64(x.SectorsPerCluster)) * int64(x.SectorBytes)
	entries := make([]byte, min(x.clusterBytes(), 128<<10))
	if _, err := r.ReadAt(entries, at); err != nil {
		return "", err
	}
	for ; len(entries) >= exfatEntryBytes && entries[0] != 0; entries = entries[exfatEntryBytes:] {
		if entries[0] == exfatLabelEntry {
			return utf16Text(entries[2:][:2*min(int(entries[1]), exfatLabelChars)]), nil
		}
	}
	return "", nil
}

// utf16Text reads little-endian UTF-16, up to a NUL.
func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		unit := binary.LittleEndian.Uint16(b)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return string(utf16.Decode(units))
}

func (x *ExFAT) whyNotMountable() string {
	switch {
	case x.Revision>>8 != 1:
		return fmt.Sprintf("it is exFAT of the unknown revision %d.%02d", x.Revision>>8, x.Revision&0xff)
	case x.FATs != 1:
		return "it is TexFAT, with two tables"
	}
	return ""
}

// mkfsExFAT follows mkfs.exfat(8) and tune.exfat(8) of exfatprogs 1.2. Both take labels in the encoding of the locale.
func (f *Filesystem) mkfsExFAT(opts MkfsOptions) (Recipe, error) {
	x := f.ExFAT
	recipe := Recipe{Env: []string{"LC_ALL=C.UTF-8"}}
	cluster := x.clusterBytes()
	const leastClusters = 16
	if opts.SizeBytes != 0 && opts.SizeBytes < 2<<20+leastClusters*cluster {
		return Recipe{}, fmt.Errorf("cannot make exFAT with clusters of %d bytes in %d bytes", cluster, opts.SizeBytes)
	}
	argv := []string{"mkfs.exfat", "-c", itoa(cluster)}
	if align := x.alignment(); align > 0 && opts.SizeBytes == 0 {
		argv = append(argv, "-b", itoa(align))
	}
	if f.Label != "" {
		argv = append(argv, "-L", f.Label)
	}
	recipe.Commands = [][]string{append(argv, Device), {"tune.exfat", "-I", fmt.Sprintf("0x%08x", x.Serial), Device}}
	if x.SectorBytes != 512 {
		recipe.Notes = append(recipe.Notes, fmt.Sprintf("exFAT had sectors of %d bytes; the new one has those of its device, "+
			"and no boot code when they differ", x.SectorBytes))
	}
	return recipe, nil
}

// alignment finds the boundary to which mkfs.exfat has to align for table and data to lie where they lay; 0 when there is
// none, and its own will do.
func (x *ExFAT) alignment() int64 {
	sector := int64(x.SectorBytes)
	for align := int64(16 << 20); align >= sector; align /= 2 {
		table := ceilDiv(exfatBootSectors*sector, align) * align
		data := ceilDiv(table+int64(x.FATLength)*sector, align) * align
		if table == int64(x.FATOffset)*sector && data == int64(x.HeapOffset)*sector {
			return align
		}
	}
	return 0
}

// WriteBootCode writes the boot code of an exFAT over the one that mkfs has just made on a device: area is the beginning of
// the old one, with at least the boot region. That is the jump, the code behind the parameters, the extended boot sectors
// and what the maker of the medium noted behind them (sections 3.1 to 3.3 of the specification). The region has a sum,
// without which nobody mounts it, and a copy: both are written anew. The code is for sectors of one size, and a new exFAT
// with other sectors gets none. The device is not flushed.
func (x *ExFAT) WriteBootCode(device readerWriterAt, area []byte) error {
	fs, err := readExFAT(device)
	if err != nil {
		return err
	}
	if fs.ExFAT.SectorBytes != x.SectorBytes {
		return nil
	}
	region := make([]byte, exfatBootSectors/2*x.SectorBytes)
	if len(area) < len(region) {
		return fmt.Errorf("cannot find boot code in %d bytes: exFAT has it in the first %d", len(area), len(region))
	}
	if _, err := device.ReadAt(region, 0); err != nil {
		return err
	}
	const code, signature, extended, noted = 120, 510, 1, 9
	sector := int(x.SectorBytes)
	copy(region[:3], area)
	copy(region[code:signature], area[code:])
	copy(region[extended*sector:(noted+1)*sector], area[extended*sector:])
	sum := exfatBootSum(region[:exfatSumSector*sector])
	for at := exfatSumSector * sector; at < len(region); at += 4 {
		binary.LittleEndian.PutUint32(region[at:], sum)
	}
	for _, at := range []int{0, len(region)} {
		if _, err := device.WriteAt(region, int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// exfatBootSum is the sum of a boot region, as in section 3.4: without the flags and how full it is, which change.
func exfatBootSum(sectors []byte) (sum uint32) {
	for i, b := range sectors {
		if i != 106 && i != 107 && i != 112 {
			sum = bits.RotateLeft32(sum, -1) + uint32(b)
		}
	}
	return sum
}
