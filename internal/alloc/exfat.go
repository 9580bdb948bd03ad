package alloc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	exfatEntryBytes   = 32
	exfatEntryBitmap  = 0x81
	exfatVolumeDirty  = 0x2
	exfatFirstCluster = 2
	exfatChainEnd     = 0xffffffff
	exfatMostRoot     = 1 << 20 // bytes of the root directory that are searched for the map
)

// exfat is what the boot sector says.
type exfat struct {
	r            *io.SectionReader
	fatBytes     int64 // where the table begins
	fatEntries   int64
	heapBytes    int64
	clusterBytes int64
	clusters     int64
}

// readExFAT finds the map of an exFAT that was unmounted. While it is mounted, folders, table and map reach the disk in any
// order.
func readExFAT(r *io.SectionReader) (*bitmap, error) {
	x, root, err := readExFATBoot(r)
	if err != nil {
		return nil, err
	}
	first, sizeBytes, rootPieces, err := x.findMap(root)
	if err != nil {
		return nil, fmt.Errorf("look for the map of clusters: %w", err)
	}
	wanted := (x.clusters + 7) / 8
	if sizeBytes < uint64(wanted) {
		return nil, fmt.Errorf("its map of clusters has %d bytes for %d of them", sizeBytes, x.clusters)
	}
	pieces, err := x.chain(first, wanted)
	if err != nil {
		return nil, fmt.Errorf("follow the map of clusters: %w", err)
	}
	return &bitmap{r: r, pieces: pieces, heapBytes: x.heapBytes, clusterBytes: x.clusterBytes, clusters: x.clusters, needed: rootPieces}, nil
}

func readExFATBoot(r *io.SectionReader) (x *exfat, root uint32, err error) {
	bs := make([]byte, 512)
	if _, err := r.ReadAt(bs, 0); err != nil {
		return nil, 0, err
	}
	if string(bs[3:11]) != "EXFAT   " {
		return nil, 0, fmt.Errorf("the boot sector has the name %q", bs[3:11])
	}
	if bs[108] < 9 || bs[108] > 12 || bs[109] > 25-bs[108] {
		return nil, 0, fmt.Errorf("the boot sector has sectors of 2^%d bytes and clusters of 2^%d sectors", bs[108], bs[109])
	}
	le32 := func(at int) uint32 { return binary.LittleEndian.Uint32(bs[at:]) }
	sectorBytes := int64(1) << bs[108]
	sectors := binary.LittleEndian.Uint64(bs[72:])
	x = &exfat{
		r: r, fatBytes: int64(le32(80)) * sectorBytes, fatEntries: int64(le32(84)) * sectorBytes / 4,
		heapBytes: int64(le32(88)) * sectorBytes, clusterBytes: sectorBytes << bs[109], clusters: int64(le32(92)),
	}
	switch {
	case bs[105] != 1:
		return nil, 0, fmt.Errorf("it is of revision %d.%02d", bs[105], bs[104])
	case bs[110] != 1:
		return nil, 0, fmt.Errorf("it has %d tables", bs[110])
	case binary.LittleEndian.Uint16(bs[106:])&exfatVolumeDirty != 0:
		return nil, 0, errors.New("it is marked as dirty: it was not unmounted")
	case sectors > uint64(r.Size()/sectorBytes):
		return nil, 0, fmt.Errorf("the boot sector has %d sectors", sectors)
	case x.clusters == 0 || x.heapBytes > r.Size() || x.clusters > (r.Size()-x.heapBytes)/x.clusterBytes:
		return nil, 0, fmt.Errorf("the boot sector has %d clusters of %d bytes from byte %d on", x.clusters, x.clusterBytes, x.heapBytes)
	}
	return x, le32(96), nil
}

// findMap looks for the map of clusters in the root directory.
func (x *exfat) findMap(root uint32) (first uint32, sizeBytes uint64, rootPieces []Range, err error) {
	searched := int64(0)
	for cluster := root; searched < exfatMostRoot; {
		at, err := x.offset(cluster)
		if err != nil {
			return 0, 0, nil, err
		}
		rootPieces = append(rootPieces, Range{at, x.clusterBytes})
		entries := make([]byte, min(x.clusterBytes, exfatMostRoot))
		if _, err := x.r.ReadAt(entries, at); err != nil {
			return 0, 0, nil, err
		}
		searched += int64(len(entries))
		for ; len(entries) > 0 && entries[0] != 0; entries = entries[exfatEntryBytes:] {
			if entries[0] == exfatEntryBitmap && entries[1]&1 == 0 {
				return binary.LittleEndian.Uint32(entries[20:]), binary.LittleEndian.Uint64(entries[24:]), rootPieces, nil
			}
		}
		if len(entries) > 0 {
			break
		}
		if cluster, err = x.next(cluster); err != nil {
			return 0, 0, nil, err
		}
		if cluster == exfatChainEnd {
			break
		}
	}
	return 0, 0, nil, errors.New("the root directory has none")
}

// chain returns where the first wanted bytes of a chain of clusters lie, which has to be in one piece: drivers take it for
// that.
func (x *exfat) chain(first uint32, wanted int64) ([]Range, error) {
	begin, err := x.offset(first)
	if err != nil {
		return nil, err
	}
	cluster := first
	for left := wanted - x.clusterBytes; left > 0; left -= x.clusterBytes {
		next, err := x.next(cluster)
		if err != nil {
			return nil, err
		}
		if next != cluster+1 {
			return nil, fmt.Errorf("cluster %d is followed by %d", cluster, next)
		}
		if _, err := x.offset(next); err != nil {
			return nil, err
		}
		cluster = next
	}
	return []Range{{begin, wanted}}, nil
}

// offset returns where a cluster lies.
func (x *exfat) offset(cluster uint32) (int64, error) {
	number := int64(cluster) - exfatFirstCluster
	if number < 0 || number >= x.clusters {
		return 0, fmt.Errorf("there is no cluster %d", cluster)
	}
	return x.heapBytes + number*x.clusterBytes, nil
}

// next returns what follows a cluster, by the table.
func (x *exfat) next(cluster uint32) (uint32, error) {
	if int64(cluster) >= x.fatEntries {
		return 0, fmt.Errorf("the table has no entry %d", cluster)
	}
	entry := make([]byte, 4)
	if _, err := x.r.ReadAt(entry, x.fatBytes+4*int64(cluster)); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(entry), nil
}
