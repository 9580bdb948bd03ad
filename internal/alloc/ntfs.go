package alloc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	ntfsRecordLog    = 2 // of the MFT
	ntfsRecordVol    = 3
	ntfsRecordBitmap = 6
	ntfsMostRecord   = 64 << 10
	ntfsMostRuns     = 10_000
	ntfsAttrInfo     = 0x70 // version and flags of the volume
	ntfsAttrData     = 0x80
	ntfsAttrEnd      = 0xffffffff
	ntfsVolumeDirty  = 0x1
	ntfsLogClean     = 0x2    // RESTART_VOLUME_IS_CLEAN
	ntfsNoClient     = 0xffff // nobody has the log open
	ntfsLogPageBytes = 4096
	ntfsBootBytes    = 16 * 512 // of $Boot, whatever the sectors: boot sector and the loader that it reads
)

// ntfs is what the boot sector says.
type ntfs struct {
	r            *io.SectionReader
	clusterBytes int64
	clusters     int64
	recordBytes  int64
	mft          int64 // its first cluster
}

// readNTFS finds the map of an NTFS whose log is clean. While a log is open the map on the disk lags behind it: what it
// calls free may be in use once the log was replayed, and its data may be on the disk already.
func readNTFS(r *io.SectionReader) (*bitmap, error) {
	n, err := readNTFSBoot(r)
	if err != nil {
		return nil, err
	}
	if err := n.checkVolume(); err != nil {
		return nil, err
	}
	if err := n.checkLog(); err != nil {
		return nil, err
	}
	record, err := n.record(ntfsRecordBitmap)
	if err != nil {
		return nil, fmt.Errorf("read $Bitmap: %w", err)
	}
	pieces, err := n.pieces(record, (n.clusters+7)/8)
	if err != nil {
		return nil, fmt.Errorf("read $Bitmap: %w", err)
	}
	return &bitmap{
		r: r, pieces: pieces, headBytes: ntfsBootBytes, clusterBytes: n.clusterBytes, clusters: n.clusters,
		needed: []Range{{0, n.clusterBytes}, {n.mft * n.clusterBytes, n.clusterBytes}},
	}, nil
}

func readNTFSBoot(r *io.SectionReader) (*ntfs, error) {
	bs := make([]byte, 512)
	if _, err := r.ReadAt(bs, 0); err != nil {
		return nil, err
	}
	if string(bs[3:11]) != "NTFS    " {
		return nil, fmt.Errorf("the boot sector has the name %q", bs[3:11])
	}
	sectorBytes := int64(binary.LittleEndian.Uint16(bs[11:]))
	sectors, mft := binary.LittleEndian.Uint64(bs[40:]), binary.LittleEndian.Uint64(bs[48:])
	n := &ntfs{r: r}
	// Numbers above 128 are negative powers of two.
	n.clusterBytes = int64(bs[13]) * sectorBytes
	if bs[13] > 128 {
		n.clusterBytes = sectorBytes << min(-int8(bs[13]), 32)
	}
	n.recordBytes = int64(bs[64]) * n.clusterBytes
	if bs[64] > 128 {
		n.recordBytes = 1 << min(-int8(bs[64]), 32)
	}
	switch {
	case !isPowerOfTwo(sectorBytes, 256, 4096) || !isPowerOfTwo(n.clusterBytes, sectorBytes, 2<<20):
		return nil, fmt.Errorf("the boot sector has sectors of %d bytes and clusters of %d", sectorBytes, n.clusterBytes)
	case !isPowerOfTwo(n.recordBytes, 512, ntfsMostRecord):
		return nil, fmt.Errorf("the boot sector has records of %d bytes", n.recordBytes)
	case sectors == 0 || sectors > uint64(r.Size()/sectorBytes):
		return nil, fmt.Errorf("the boot sector has %d sectors", sectors)
	}
	n.clusters = int64(sectors) * sectorBytes / n.clusterBytes
	if mft == 0 || mft >= uint64(n.clusters) {
		return nil, fmt.Errorf("the boot sector has the MFT at cluster %d", mft)
	}
	n.mft = int64(mft)
	return n, nil
}

// checkVolume wants a volume that its system does not want to check.
func (n *ntfs) checkVolume() error {
	record, err := n.record(ntfsRecordVol)
	if err != nil {
		return fmt.Errorf("read $Volume: %w", err)
	}
	attr := attribute(record, ntfsAttrInfo)
	if attr == nil || attr[8] != 0 {
		return errors.New("$Volume says nothing of its state")
	}
	size, at := int64(binary.LittleEndian.Uint32(attr[16:])), int64(binary.LittleEndian.Uint16(attr[20:]))
	if size < 12 || at+size > int64(len(attr)) {
		return errors.New("$Volume says nothing of its state")
	}
	if binary.LittleEndian.Uint16(attr[at+10:])&ntfsVolumeDirty != 0 {
		return errors.New("it is marked as dirty")
	}
	return nil
}

// checkLog learns from the two restart pages at the beginning of $LogFile whether the log is clean: the newer one says so.
// A log that is filled with ones is empty. One that cannot be understood counts as open.
func (n *ntfs) checkLog() error {
	record, err := n.record(ntfsRecordLog)
	if err != nil {
		return fmt.Errorf("read $LogFile: %w", err)
	}
	pages := make([]byte, 2*ntfsLogPageBytes)
	pieces, err := n.pieces(record, int64(len(pages)))
	if err != nil {
		return fmt.Errorf("read $LogFile: %w", err)
	}
	if err := (&bitmap{r: n.r, pieces: pieces}).read(pages, 0); err != nil {
		return fmt.Errorf("read $LogFile: %w", err)
	}
	if bytes.Count(pages, []byte{0xff}) == len(pages) {
		return nil
	}
	newest, clean := uint64(0), false
	for _, page := range [][]byte{pages[:ntfsLogPageBytes], pages[ntfsLogPageBytes:]} {
		at := int(binary.LittleEndian.Uint16(page[24:]))
		if string(page[:4]) != "RSTR" || binary.LittleEndian.Uint32(page[16:]) != ntfsLogPageBytes ||
			at < 30 || at > 400 { // where no fix-up reaches
			continue
		}
		area := page[at:]
		if lsn := binary.LittleEndian.Uint64(area); lsn >= newest {
			inUse, flags := binary.LittleEndian.Uint16(area[12:]), binary.LittleEndian.Uint16(area[14:])
			newest, clean = lsn, inUse == ntfsNoClient || flags&ntfsLogClean != 0
		}
	}
	if !clean {
		return errors.New("its log is open, and its map of clusters lags behind")
	}
	return nil
}

// record reads one of the first records of the MFT, which always lie together, and undoes what protects it from being
// written in part: the last two bytes of each 512 are kept in its head.
func (n *ntfs) record(number int64) ([]byte, error) {
	record := make([]byte, n.recordBytes)
	if _, err := n.r.ReadAt(record, n.mft*n.clusterBytes+number*n.recordBytes); err != nil {
		return nil, err
	}
	le16 := func(at int) int { return int(binary.LittleEndian.Uint16(record[at:])) }
	fixups, count := le16(4), le16(6)
	if string(record[:4]) != "FILE" || count < 1 || int64(count-1)*512 != n.recordBytes || fixups+2*count > 510 {
		return nil, fmt.Errorf("record %d is none", number)
	}
	for i := 1; i < count; i++ {
		end := i*512 - 2
		if le16(end) != le16(fixups) {
			return nil, fmt.Errorf("record %d was written in part", number)
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

// pieces returns where the first wanted bytes of a record's data lie, all of which must have been written.
func (n *ntfs) pieces(record []byte, wanted int64) ([]Range, error) {
	const header = 64
	attr := attribute(record, ntfsAttrData)
	if len(attr) < header || attr[8] != 1 {
		return nil, errors.New("its data lie in no runs, or are listed elsewhere")
	}
	le64 := func(at int) uint64 { return binary.LittleEndian.Uint64(attr[at:]) }
	switch {
	case binary.LittleEndian.Uint16(attr[12:]) != 0:
		return nil, errors.New("its data are compressed, sparse or encrypted")
	case le64(16) != 0:
		return nil, errors.New("its first run is elsewhere")
	case le64(48) < uint64(wanted) || le64(56) < uint64(wanted):
		return nil, fmt.Errorf("it holds %d bytes, of which %d are written, and %d are wanted", le64(48), le64(56), wanted)
	}
	var pieces []Range
	cluster := int64(0)
	runs := attr[min(int(binary.LittleEndian.Uint16(attr[32:])), len(attr)):]
	for wanted > 0 {
		if len(runs) == 0 || runs[0] == 0 || len(pieces) == ntfsMostRuns {
			return nil, fmt.Errorf("its runs lack %d bytes", wanted)
		}
		sizeOfLength, sizeOfOffset := int(runs[0]&0xf), int(runs[0]>>4)
		end := 1 + sizeOfLength + sizeOfOffset
		if sizeOfLength == 0 || sizeOfLength > 8 || sizeOfOffset == 0 || sizeOfOffset > 8 || end > len(runs) {
			return nil, errors.New("its runs make no sense")
		}
		length := littleEndian(runs[1 : 1+sizeOfLength])
		cluster += littleEndian(runs[1+sizeOfLength : end]) // which wraps around at worst
		if length <= 0 || cluster <= 0 || cluster >= n.clusters || length > n.clusters-cluster {
			return nil, fmt.Errorf("it has a run of %d clusters at %d", length, cluster)
		}
		piece := Range{cluster * n.clusterBytes, min(length*n.clusterBytes, wanted)}
		pieces = append(pieces, piece)
		wanted -= piece.LengthBytes
		runs = runs[end:]
	}
	return pieces, nil
}

// littleEndian reads a signed number of as many bytes as there are, up to eight.
func littleEndian(b []byte) int64 {
	number := uint64(0)
	for i, digit := range b {
		number |= uint64(digit) << (8 * i)
	}
	unused := 64 - 8*len(b)
	return int64(number<<unused) >> unused
}

// isPowerOfTwo says whether v is one and lies within the limits.
func isPowerOfTwo(v, least, most int64) bool { return v >= least && v <= most && v&(v-1) == 0 }
