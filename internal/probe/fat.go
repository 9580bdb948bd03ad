package probe

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// FAT is the boot sector of FAT12, FAT16 or FAT32, as in Microsoft's "FAT: General Overview of On-Disk Format" (fatgen103)
// and struct fat_boot_sector in the kernel's include/uapi/linux/msdos_fs.h.
type FAT struct {
	Bits              uint32 `param:"fat_bits"` // 12, 16, 32
	SectorBytes       uint32 `param:"sector_bytes"`
	Sectors           int64  `param:"sectors"`
	SectorsPerCluster uint32 `param:"sectors_per_cluster"`
	ReservedSectors   uint32 `param:"reserved_sectors"`
	FATs              uint32 `param:"fats"`
	SectorsPerFAT     uint32 `param:"sectors_per_fat"`
	RootEntries       uint32 `param:"root_entries"` // 0 in FAT32
	Clusters          int64  `param:"clusters"`
	Media             uint32 `param:"media"`
	SectorsPerTrack   uint32 `param:"sectors_per_track"`
	Heads             uint32 `param:"heads"`
	HiddenSectors     uint32 `param:"hidden_sectors"`
	Drive             uint32 `param:"drive"`
	VolumeID          uint32 `param:"volume_id"`
	BootLabel         string `param:"boot_label"` // in the boot sector; Label is that of the root directory, if there is one
	RootCluster       uint32 `param:"root_cluster"`
	InfoSector        uint32 `param:"info_sector"`
	BackupBootSector  uint32 `param:"backup_boot_sector"` // 0 without
}

const (
	fatNoName      = "NO NAME"
	fatLabelBytes  = 11
	fatEntryBytes  = 32
	fatRootMost    = 512 << 10 // bytes of a root directory that are searched for the label
	fatMaxFAT12    = 4084
	fatMaxFAT16    = 65524
	fatClusterMask = 0x0fffffff
)

func readFAT(r io.ReaderAt) (*Filesystem, error) {
	bs := make([]byte, 512)
	if _, err := r.ReadAt(bs, 0); err != nil {
		return nil, err
	}
	le16 := func(at int) uint32 { return uint32(binary.LittleEndian.Uint16(bs[at:])) }
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(bs[at:]) }
	f := &FAT{
		SectorBytes: le16(11), SectorsPerCluster: uint32(bs[13]), ReservedSectors: le16(14), FATs: uint32(bs[16]),
		RootEntries: le16(17), Sectors: int64(le16(19)), Media: uint32(bs[21]), SectorsPerFAT: le16(22),
		SectorsPerTrack: le16(24), Heads: le16(26), HiddenSectors: le32(28),
	}
	if f.Sectors == 0 {
		f.Sectors = int64(le32(32))
	}
	extended := 36 // the part that is behind the FAT32 fields when there are any
	if f.SectorsPerFAT == 0 {
		f.Bits, extended = 32, 64
		f.SectorsPerFAT, f.RootCluster = le32(36), le32(44)
		f.InfoSector, f.BackupBootSector = le16(48), le16(50)
		if f.BackupBootSector == 0xffff {
			f.BackupBootSector = 0
		}
	}
	f.Drive = uint32(bs[extended])
	dirty := bs[extended+1]&1 != 0 // what Linux sets while it is mounted for writing
	signature := bs[extended+2]
	if signature == 0x28 || signature == 0x29 {
		f.VolumeID = le32(extended + 3)
	}
	if signature == 0x29 {
		f.BootLabel = fatLabel(bs[extended+7 : extended+7+fatLabelBytes])
	}
	if err := f.setClusters(); err != nil {
		return nil, err
	}
	fs := &Filesystem{
		UUID: fmt.Sprintf("%04X-%04X", f.VolumeID>>16, f.VolumeID&0xffff), Label: f.BootLabel,
		SizeBytes: f.Sectors * int64(f.SectorBytes), BlockBytes: int64(f.SectorsPerCluster) * int64(f.SectorBytes),
		FreeBytes: f.readFree(r), State: StateClean, FAT: f,
	}
	if dirty {
		fs.State = StateDirty
	}
	label, found, err := f.readRootLabel(r)
	if err != nil {
		return nil, fmt.Errorf("read root directory: %w", err)
	}
	if found {
		fs.Label = label
	}
	return fs, nil
}

// setClusters checks the geometry, counts the clusters and, as the kernel does, takes the width of the FAT's entries from
// their number.
func (f *FAT) setClusters() error {
	if err := f.validateGeometry(); err != nil {
		return err
	}
	data := f.Sectors - f.dataSector()
	if data < int64(f.SectorsPerCluster) {
		return invalid("no space for data in %d sectors", f.Sectors)
	}
	f.Clusters = data / int64(f.SectorsPerCluster)
	if f.Bits != 32 {
		f.Bits = 12
		if f.Clusters > fatMaxFAT12 {
			f.Bits = 16
		}
	}
	return f.validate()
}

func (f *FAT) validateGeometry() error {
	switch {
	case !isPowerOfTwo(int64(f.SectorBytes), 512, 4096):
		return invalid("sectors of %d bytes", f.SectorBytes)
	case !isPowerOfTwo(int64(f.SectorsPerCluster), 1, 128):
		return invalid("clusters of %d sectors", f.SectorsPerCluster)
	case f.ReservedSectors == 0 || f.FATs == 0 || f.SectorsPerFAT == 0:
		return invalid("%d reserved sectors, %d tables of %d", f.ReservedSectors, f.FATs, f.SectorsPerFAT)
	case f.ReservedSectors > 0xffff || f.FATs > 0xff || f.RootEntries > 0xffff || f.Sectors > 1<<32:
		return invalid("numbers that no boot sector holds")
	case f.Media < 0xf0:
		return invalid("media type %#x", f.Media)
	}
	return nil
}

func (f *FAT) validate() error {
	if f.Bits != 12 && f.Bits != 16 && f.Bits != 32 {
		return invalid("FAT%d", f.Bits)
	}
	return f.validateGeometry()
}

func (f *FAT) rootSectors() int64 {
	return ceilDiv(int64(f.RootEntries)*fatEntryBytes, int64(f.SectorBytes))
}

// dataSector is the first sector of cluster 2.
func (f *FAT) dataSector() int64 {
	return int64(f.ReservedSectors) + int64(f.FATs)*int64(f.SectorsPerFAT) + f.rootSectors()
}

// bootCodeRanges are the jump and the name before the parameters of the boot sector, the code behind them, and those
// reserved sectors that have no use of their own.
func (f *FAT) bootCodeRanges() []Range {
	const nameEnd, signature = 11, 510
	parameters := int64(62)
	if f.Bits == 32 {
		parameters = 90
	}
	ranges := []Range{{0, nameEnd}, {parameters, signature - parameters}}
	sector := int64(f.SectorBytes)
	if sector > 512 {
		ranges = append(ranges, Range{512, sector - 512})
	}
	used := map[uint32]bool{0: true}
	if f.Bits == 32 {
		used[f.InfoSector] = true
		if f.BackupBootSector != 0 {
			used[f.BackupBootSector], used[f.BackupBootSector+f.InfoSector] = true, true
		}
	}
	for n := uint32(1); n < f.ReservedSectors; n++ {
		last := &ranges[len(ranges)-1]
		at := int64(n) * sector
		switch {
		case used[n]:
		case !used[n-1] && last.OffsetBytes+last.SizeBytes == at:
			last.SizeBytes += sector
		default:
			ranges = append(ranges, Range{at, sector})
		}
	}
	return ranges
}

// readFree returns what the information sector of FAT32 has for free space, or -1.
func (f *FAT) readFree(r io.ReaderAt) int64 {
	if f.Bits != 32 || f.InfoSector == 0 || f.InfoSector >= f.ReservedSectors {
		return -1
	}
	info := make([]byte, 512)
	if _, err := r.ReadAt(info, int64(f.InfoSector)*int64(f.SectorBytes)); err != nil {
		return -1
	}
	free := int64(binary.LittleEndian.Uint32(info[488:]))
	if string(info[:4]) != "RRaA" || string(info[484:488]) != "rrAa" || free > f.Clusters {
		return -1
	}
	return free * int64(f.SectorsPerCluster) * int64(f.SectorBytes)
}

// readRootLabel looks for the volume label in the root directory, which is where systems read it and change it.
func (f *FAT) readRootLabel(r io.ReaderAt) (label string, found bool, err error) {
	if f.Bits != 32 {
		at := (int64(f.ReservedSectors) + int64(f.FATs)*int64(f.SectorsPerFAT)) * int64(f.SectorBytes)
		label, found, _, err = searchRoot(r, at, int64(f.RootEntries)*fatEntryBytes)
		return label, found, err
	}
	clusterBytes := int64(f.SectorsPerCluster) * int64(f.SectorBytes)
	cluster := int64(f.RootCluster)
	for left := int64(fatRootMost); left > 0 && cluster >= 2 && cluster < f.Clusters+2; left -= clusterBytes {
		at := (f.dataSector() + (cluster-2)*int64(f.SectorsPerCluster)) * int64(f.SectorBytes)
		label, found, end, err := searchRoot(r, at, clusterBytes)
		if err != nil || found || end {
			return label, found, err
		}
		entry := make([]byte, 4)
		if _, err := r.ReadAt(entry, int64(f.ReservedSectors)*int64(f.SectorBytes)+cluster*4); err != nil {
			return "", false, err
		}
		cluster = int64(binary.LittleEndian.Uint32(entry) & fatClusterMask)
	}
	return "", false, nil
}

// searchRoot looks through one piece of a directory; end says that the directory ends in it.
func searchRoot(r io.ReaderAt, at, sizeBytes int64) (label string, found, end bool, err error) {
	piece := make([]byte, min(sizeBytes, fatRootMost))
	if _, err := r.ReadAt(piece, at); err != nil {
		return "", false, false, err
	}
	for ; len(piece) >= fatEntryBytes; piece = piece[fatEntryBytes:] {
		attributes := piece[11]
		switch {
		case piece[0] == 0:
			return "", false, true, nil
		case piece[0] == 0xe5 || attributes&0x3f == 0x0f: // deleted; part of a long name
		case attributes&0x18 == 0x08:
			name := [fatLabelBytes]byte(piece[:fatLabelBytes])
			if name[0] == 0x05 { // stands for 0xe5, which would mean deleted
				name[0] = 0xe5
			}
			return fatLabel(name[:]), true, true, nil
		}
	}
	return "", false, false, nil
}

// fatLabel returns a label without its padding; "" for the text that means none.
func fatLabel(b []byte) string {
	label := strings.TrimRight(cString(b), " ")
	if label == fatNoName {
		return ""
	}
	return label
}

// fatWidth is a type of FAT with the numbers of clusters that it may have.
type fatWidth struct {
	bits        uint32
	least, most int64
}

var fatWidths = []fatWidth{{12, 1, fatMaxFAT12}, {16, fatMaxFAT12 + 1, fatMaxFAT16}, {32, fatMaxFAT16 + 1, 0x0ffffff0}}

// fitFAT finds type and cluster size for another number of sectors: the original's if possible, else the same type with
// other clusters, else another type. (FAT32 may have few clusters: mkfs.fat makes such when asked.)
func (f *FAT) fitFAT(sectors int64) (bits, perCluster uint32, err error) {
	fits := func(w fatWidth, perCluster uint32) bool {
		n := (sectors - int64(f.ReservedSectors)) / int64(perCluster) // an upper bound, the tables being small
		lower := w.least + w.least/50
		if w.bits == 32 && f.Bits == 32 {
			lower = 1
		}
		return n >= lower && n <= w.most
	}
	for _, w := range fatWidths {
		if w.bits == f.Bits && fits(w, f.SectorsPerCluster) {
			return f.Bits, f.SectorsPerCluster, nil
		}
	}
	for _, same := range []bool{true, false} {
		for _, w := range fatWidths {
			for perCluster := uint32(1); perCluster <= 128 && perCluster*f.SectorBytes <= 32<<10; perCluster *= 2 {
				if (w.bits == f.Bits) == same && fits(w, perCluster) {
					return w.bits, perCluster, nil
				}
			}
		}
	}
	return 0, 0, fmt.Errorf("cannot make a FAT filesystem of %d sectors", sectors)
}

// mkfsFAT follows mkfs.fat(8) of dosfstools 4.2.
func (f *Filesystem) mkfsFAT(opts MkfsOptions) (Recipe, error) {
	fat := *f.FAT
	var recipe Recipe
	sameSize := opts.SizeBytes == 0 || opts.SizeBytes/int64(fat.SectorBytes) == fat.Sectors
	if !sameSize {
		fat.Sectors = min(opts.SizeBytes/int64(fat.SectorBytes), 1<<32-1)
		bits, perCluster, err := fat.fitFAT(fat.Sectors)
		if err != nil {
			return Recipe{}, err
		}
		if bits != fat.Bits || perCluster != fat.SectorsPerCluster {
			recipe.Notes = append(recipe.Notes, fmt.Sprintf("FAT%d with clusters of %d sectors becomes FAT%d with %d, for the new size",
				fat.Bits, fat.SectorsPerCluster, bits, perCluster))
		}
		if bits == 32 && fat.Bits != 32 {
			fat.ReservedSectors, fat.BackupBootSector = 32, 6
		} else if bits != 32 && fat.Bits == 32 {
			fat.RootEntries, fat.BackupBootSector = 512, 0
		}
		fat.Bits, fat.SectorsPerCluster = bits, perCluster
	}
	argv := []string{"mkfs.vfat", "-I", "--mbr=n", "-F", itoa(int64(fat.Bits)), "-S", itoa(int64(fat.SectorBytes)),
		"-s", itoa(int64(fat.SectorsPerCluster)), "-R", itoa(int64(fat.ReservedSectors)), "-f", itoa(int64(fat.FATs))}
	if !fat.aligned() {
		argv = append(argv, "-a")
	}
	if fat.Bits == 32 {
		argv = append(argv, "-b", itoa(int64(fat.BackupBootSector)))
	} else {
		argv = append(argv, "-r", itoa(int64(fat.RootEntries)))
	}
	argv = append(argv, "-i", fmt.Sprintf("%08x", fat.VolumeID), "-h", itoa(int64(fat.HiddenSectors)),
		"-M", fmt.Sprintf("0x%02x", fat.Media), "-D", itoa(int64(fat.Drive)))
	if fat.Heads > 0 && fat.SectorsPerTrack > 0 {
		argv = append(argv, "-g", fmt.Sprintf("%d/%d", fat.Heads, fat.SectorsPerTrack))
	}
	argv = append(argv, fat.labelArguments(f.Label, &recipe)...)
	argv = append(argv, Device)
	if sizeKiB, rest := fat.Sectors*int64(fat.SectorBytes)/1024, fat.Sectors*int64(fat.SectorBytes)%1024; rest == 0 {
		argv = append(argv, itoa(sizeKiB))
	} // else only "all of the device" can be said: the unit of the argument is 1 KiB
	recipe.Commands = [][]string{argv}
	return recipe, nil
}

// aligned says whether the layout is one that mkfs.fat makes when it aligns to tracks and clusters (clusters only beyond
// 8,192 sectors). It cannot be named in other words: the length of the tables is no option.
func (f *FAT) aligned() bool {
	per := int64(f.SectorsPerCluster)
	switch {
	case f.SectorsPerTrack > 0 && f.Sectors%int64(f.SectorsPerTrack) != 0:
		return false
	case f.Sectors <= 8192:
		return true
	}
	return int64(f.ReservedSectors)%per == 0 && int64(f.SectorsPerFAT)%per == 0 && f.rootSectors()%per == 0
}

// labelArguments name the label, as far as mkfs.fat lets itself be told: it refuses some punctuation, and everything beyond
// ASCII, which it takes for control characters.
func (f *FAT) labelArguments(label string, recipe *Recipe) []string {
	if label == "" {
		return nil
	}
	const refused = "*?.,;:/\\|+=<>[]\""
	clean := []byte(strings.TrimLeft(label, " "))
	for i, b := range clean {
		if b < 0x20 || b > 0x7e || strings.IndexByte(refused, b) >= 0 {
			clean[i] = '_'
		}
	}
	if string(clean) != label {
		recipe.Notes = append(recipe.Notes, fmt.Sprintf("mkfs.fat refuses the label %q; it becomes %q", label, clean))
	}
	return []string{"-n", string(clean)}
}
