package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
)

// NTFS is what the boot sector and the files $Volume and $LogFile of an NTFS tell. The layout is that of the kernel's
// fs/ntfs3/ntfs.h (struct NTFS_BOOT, MFT_REC, ATTRIB) and fslog.c (struct RESTART_HDR, RESTART_AREA).
type NTFS struct {
	SectorBytes     uint32 `param:"sector_bytes"`
	ClusterBytes    int64  `param:"cluster_bytes"`
	Sectors         int64  `param:"sectors"` // the last one of the extent is not among them: it has the boot sector once more
	RecordBytes     int64  `param:"mft_record_bytes"`
	MFTCluster      int64  `param:"mft_cluster"`
	SectorsPerTrack uint32 `param:"sectors_per_track"`
	Heads           uint32 `param:"heads"`
	HiddenSectors   uint32 `param:"hidden_sectors"` // that lie before the partition
	Serial          string `param:"volume_serial"`  // 16 hexadecimal digits
	Version         uint32 `param:"version"`        // major in the high byte, minor in the low one
	Dirty           bool   `param:"dirty"`          // Windows would check it
	LogOpen         bool   `param:"log_open"`       // it was not unmounted
}

const (
	ntfsName        = "NTFS    "
	ntfsRecordLog   = 2 // of the MFT
	ntfsRecordVol   = 3
	ntfsMostRecord  = 64 << 10
	ntfsAttrName    = 0x60 // the label
	ntfsAttrInfo    = 0x70 // version and flags
	ntfsAttrData    = 0x80
	ntfsAttrEnd     = 0xffffffff
	ntfsVolumeDirty = 0x1
	ntfsLogClean    = 0x2    // RESTART_VOLUME_IS_CLEAN
	ntfsNoClient    = 0xffff // nobody has the log open
	ntfsMostCluster = 2 << 20
	// ntfsBootBytes is the size of the file $Boot, whatever the sectors: boot sector and the loader that it reads.
	ntfsBootBytes = 16 * 512
)

func readNTFS(r io.ReaderAt) (*Filesystem, error) {
	bs := make([]byte, 512)
	if _, err := r.ReadAt(bs, 0); err != nil {
		return nil, err
	}
	if string(bs[3:11]) != ntfsName {
		return nil, invalid("name %q in the boot sector", bs[3:11])
	}
	le16 := func(at int) uint32 { return uint32(binary.LittleEndian.Uint16(bs[at:])) }
	n := &NTFS{
		SectorBytes: le16(11), SectorsPerTrack: le16(24), Heads: le16(26), HiddenSectors: binary.LittleEndian.Uint32(bs[28:]),
		Sectors:    int64(min(binary.LittleEndian.Uint64(bs[40:]), 1<<50)),
		MFTCluster: int64(min(binary.LittleEndian.Uint64(bs[48:]), 1<<50)),
		Serial:     fmt.Sprintf("%016X", binary.LittleEndian.Uint64(bs[72:])),
	}
	// Numbers above 128 are negative powers of two.
	n.ClusterBytes = int64(bs[13]) * int64(n.SectorBytes)
	if bs[13] > 128 {
		n.ClusterBytes = int64(n.SectorBytes) << min(-int8(bs[13]), 32)
	}
	n.RecordBytes = int64(bs[64]) * n.ClusterBytes
	if bs[64] > 128 {
		n.RecordBytes = 1 << min(-int8(bs[64]), 32)
	}
	if err := n.validate(); err != nil {
		return nil, err
	}
	fs := &Filesystem{UUID: n.Serial, BlockBytes: n.ClusterBytes, SizeBytes: (n.Sectors + 1) * int64(n.SectorBytes),
		FreeBytes: -1, State: StateClean, NTFS: n}
	if err := n.readVolume(r, fs); err != nil {
		return nil, fmt.Errorf("read $Volume: %w", err)
	}
	if err := n.readLog(r); err != nil {
		return nil, fmt.Errorf("read $LogFile: %w", err)
	}
	if n.Dirty || n.LogOpen {
		fs.State = StateDirty
	}
	return fs, nil
}

func (n *NTFS) validate() error {
	switch {
	case !isPowerOfTwo(int64(n.SectorBytes), 256, 4096) || !isPowerOfTwo(n.ClusterBytes, int64(n.SectorBytes), ntfsMostCluster):
		return invalid("sectors of %d bytes, clusters of %d", n.SectorBytes, n.ClusterBytes)
	case n.Sectors <= 0 || n.Sectors >= 1<<50:
		return invalid("%d sectors", n.Sectors)
	case !isPowerOfTwo(n.RecordBytes, 512, ntfsMostRecord):
		return invalid("records of %d bytes", n.RecordBytes)
	case n.MFTCluster <= 0 || n.MFTCluster > n.Sectors*int64(n.SectorBytes)/n.ClusterBytes:
		return invalid("the MFT at cluster %d", n.MFTCluster)
	case n.SectorsPerTrack > 0xffff || n.Heads > 0xffff || n.Version > 0xffff:
		return invalid("numbers that no boot sector holds")
	}
	if _, err := strconv.ParseUint(n.Serial, 16, 64); err != nil || len(n.Serial) != 16 {
		return invalid("serial number %q", n.Serial)
	}
	return nil
}

// readVolume reads label, version and dirty bit.
func (n *NTFS) readVolume(r io.ReaderAt, fs *Filesystem) error {
	record, err := n.record(r, ntfsRecordVol)
	if err != nil {
		return err
	}
	if name, ok := residentValue(record, ntfsAttrName); ok {
		fs.Label = utf16Text(name)
	}
	info, ok := residentValue(record, ntfsAttrInfo)
	if !ok || len(info) < 12 {
		return invalid("no information on the volume")
	}
	n.Version = uint32(info[8])<<8 | uint32(info[9])
	n.Dirty = binary.LittleEndian.Uint16(info[10:])&ntfsVolumeDirty != 0
	return nil
}

// readLog learns from the two restart pages at the beginning of $LogFile whether the volume was unmounted: the newer one
// says so. A log that is filled with ones is empty. One that cannot be understood counts as open.
func (n *NTFS) readLog(r io.ReaderAt) error {
	record, err := n.record(r, ntfsRecordLog)
	if err != nil {
		return err
	}
	cluster, ok := firstCluster(record)
	if !ok {
		n.LogOpen = true
		return nil
	}
	const pageBytes = 4096
	pages := make([]byte, 2*pageBytes)
	if _, err := r.ReadAt(pages, cluster*n.ClusterBytes); err != nil {
		return invalid("the log at cluster %d: %v", cluster, err)
	}
	if bytes.Count(pages, []byte{0xff}) == len(pages) {
		return nil
	}
	newest := uint64(0)
	n.LogOpen = true
	for _, page := range [][]byte{pages[:pageBytes], pages[pageBytes:]} {
		at := int(binary.LittleEndian.Uint16(page[24:]))
		if string(page[:4]) != "RSTR" || at < 30 || at > 400 { // where no fix-up reaches
			continue
		}
		area := page[at:]
		if lsn := binary.LittleEndian.Uint64(area); lsn >= newest {
			inUse, flags := binary.LittleEndian.Uint16(area[12:]), binary.LittleEndian.Uint16(area[14:])
			newest, n.LogOpen = lsn, inUse != ntfsNoClient && flags&ntfsLogClean == 0
		}
	}
	return nil
}

// record reads one of the first records of the MFT, which always lie together, and undoes what protects it from being
// written in part: the last two bytes of each 512 are kept in its head.
func (n *NTFS) record(r io.ReaderAt, number int64) ([]byte, error) {
	record := make([]byte, n.RecordBytes)
	if _, err := r.ReadAt(record, n.MFTCluster*n.ClusterBytes+number*n.RecordBytes); err != nil {
		return nil, err
	}
	le16 := func(at int) int { return int(binary.LittleEndian.Uint16(record[at:])) }
	fixups, count := le16(4), le16(6)
	if string(record[:4]) != "FILE" || count < 1 || int64(count-1)*512 != n.RecordBytes || fixups+2*count > 510 {
		return nil, invalid("record %d is none", number)
	}
	for i := 1; i < count; i++ {
		end := i*512 - 2
		if le16(end) != le16(fixups) {
			return nil, invalid("record %d was written in part", number)
		}
		copy(record[end:i*512], record[fixups+2*i:][:2])
	}
	return record, nil
}

// attribute finds an attribute without a name in a record; nil when there is none.
func attribute(record []byte, kind uint32) []byte {
	for at := int64(binary.LittleEndian.Uint16(record[20:])); at+24 <= int64(len(record)); {
		attr := record[at:]
		size := int64(binary.LittleEndian.Uint32(attr[4:]))
		found := binary.LittleEndian.Uint32(attr)
		if found == ntfsAttrEnd || size < 24 || at+size > int64(len(record)) {
			return nil
		}
		if found == kind && attr[9] == 0 {
			return attr[:size]
		}
		at += size
	}
	return nil
}

// residentValue returns the value of an attribute that lies within its record.
func residentValue(record []byte, kind uint32) (value []byte, ok bool) {
	attr := attribute(record, kind)
	if attr == nil || attr[8] != 0 {
		return nil, false
	}
	size, at := int64(binary.LittleEndian.Uint32(attr[16:])), int64(binary.LittleEndian.Uint16(attr[20:]))
	if at+size > int64(len(attr)) {
		return nil, false
	}
	return attr[at : at+size], true
}

// firstCluster returns where the data of a record begins that lies outside of it: the first run of its list, whose first
// byte has the lengths of the two numbers behind it.
func firstCluster(record []byte) (cluster int64, ok bool) {
	attr := attribute(record, ntfsAttrData)
	if attr == nil || attr[8] != 1 || len(attr) < 64 {
		return 0, false
	}
	at := int(binary.LittleEndian.Uint16(attr[32:]))
	if at >= len(attr) {
		return 0, false
	}
	length, offset := int(attr[at]&0xf), int(attr[at]>>4)
	at += 1 + length
	if length == 0 || offset == 0 || offset > 6 || at+offset > len(attr) {
		return 0, false
	}
	for i := range offset {
		cluster |= int64(attr[at+i]) << (8 * i)
	}
	return cluster, true
}

// bootCodeRanges are the jump and the name, the code behind the parameters, and the loader: all that Windows brings in
// $Boot. The copy of the boot sector at the end stays that of mkfs, and is for repairs.
func (n *NTFS) bootCodeRanges() []Range {
	const parameters, code, signature = 3, 84, 510
	return []Range{{0, parameters}, {code, signature - code}, {512, ntfsBootBytes - 512}}
}

func (n *NTFS) whyNotMountable() string {
	switch {
	case n.Dirty:
		return "Windows has marked it as damaged; check it in the guest (chkdsk /f)"
	case n.LogOpen:
		// The kernel's driver would mount it read-only, without what is in the log.
		return "it was not unmounted, and its log is replayed for writing only"
	case n.Version>>8 != 3:
		return fmt.Sprintf("it is NTFS of version %d.%d, and can be made again only as 3.1", n.Version>>8, n.Version&0xff)
	}
	return ""
}

// mkfsNTFS follows mkntfs(8) and ntfslabel(8) of ntfs-3g 2022.10.3. mkntfs takes labels in the encoding of the locale.
func (f *Filesystem) mkfsNTFS(opts MkfsOptions) (Recipe, error) {
	n := f.NTFS
	sizeBytes := f.SizeBytes
	if opts.SizeBytes != 0 {
		sizeBytes = opts.SizeBytes
	}
	const leastBytes = 2 << 20
	if sizeBytes < leastBytes || sizeBytes/n.ClusterBytes > 0xffffffff {
		return Recipe{}, fmt.Errorf("cannot make NTFS with clusters of %d bytes in %d bytes", n.ClusterBytes, sizeBytes)
	}
	argv := []string{"mkfs.ntfs", "--quick", "--quiet", "--force", "--sector-size", itoa(int64(n.SectorBytes)),
		"--cluster-size", itoa(n.ClusterBytes), "--partition-start", itoa(int64(n.HiddenSectors)),
		"--heads", itoa(int64(n.Heads)), "--sectors-per-track", itoa(int64(n.SectorsPerTrack))}
	if f.Label != "" {
		argv = append(argv, "--label", f.Label)
	}
	recipe := Recipe{
		Commands: [][]string{
			append(argv, Device, itoa(sizeBytes/int64(n.SectorBytes))),
			{"ntfslabel", "--force", "--quiet", "--new-serial=" + n.Serial, Device},
		},
		Env: []string{"LC_ALL=C.UTF-8"},
		Notes: []string{"alternate data streams, short names, compression, object ids and quotas are not in the archive; " +
			"access rights and attributes come back with voltar alone"},
	}
	if n.RecordBytes != max(1024, int64(n.SectorBytes)) {
		recipe.Notes = append(recipe.Notes, fmt.Sprintf("records of the MFT had %d bytes and get another size", n.RecordBytes))
	}
	return recipe, nil
}
