package partmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// maxReadBytes bounds what one Read takes from the disk. The largest table that is accepted needs a tenth of it.
const maxReadBytes = 64 << 20

var (
	errPastEnd = errors.New("past the end of the disk")
	errTooMuch = errors.New("the table asks for too much to be read")
)

// disk reads within the bounds of a disk and of what may be read in all.
type disk struct {
	r         io.ReaderAt
	sizeBytes int64
	readBytes int64
	failures  []string // reads that failed where the table could be read without
}

// read returns exactly n bytes at an offset.
func (d *disk) read(offset int64, n int) ([]byte, error) {
	if offset < 0 || int64(n) > d.sizeBytes || offset > d.sizeBytes-int64(n) {
		return nil, fmt.Errorf("read %d bytes at byte %d: %w", n, offset, errPastEnd)
	}
	if d.readBytes += int64(n); d.readBytes > maxReadBytes {
		return nil, fmt.Errorf("read %d bytes at byte %d: %w", n, offset, errTooMuch)
	}
	buf := make([]byte, n)
	if got, err := d.r.ReadAt(buf, offset); got < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at byte %d: %w", n, offset, err)
	}
	return buf, nil
}

// signature is a format recognised by its magic.
type signature struct {
	name        string // empty when nothing was recognised
	offsetBytes int64  // of the magic on the disk
	parameters  bool   // a BIOS parameter block, which boot loaders leave in place when they write an MBR
}

// magic is what a format is known by.
type magic struct {
	name   string
	offset int64
	n      int // bytes to look at
	match  func(b []byte) bool

	parameters bool
}

func is(want string) func([]byte) bool {
	return func(b []byte) bool { return bytes.HasPrefix(b, []byte(want)) }
}

// magics returns the formats that take a whole disk or partition and can be told from their first 64 KiB.
func magics() []magic {
	list := []magic{
		{"an XFS filesystem", 0, 4, is("XFSB"), false},
		{"a LUKS container", 0, 6, is("LUKS\xba\xbe"), false},
		{"a BitLocker volume", 3, 8, is("-FVE-FS-"), false},
		{"a squashfs filesystem", 0, 4, is("hsqs"), false},
		{"an NTFS filesystem", 0, 512, func(b []byte) bool { return is("NTFS    ")(b[3:]) && bootSector(b) }, true},
		{"an exFAT filesystem", 0, 512, func(b []byte) bool { return is("EXFAT   ")(b[3:]) && bootSector(b) }, true},
		{"a FAT filesystem", 0, 512, isFAT, true},
		{"an ext filesystem", 1024, 1024, isExt, false},
		{"a btrfs filesystem", 65536 + 64, 8, is("_BHRfS_M"), false},
		{"an F2FS filesystem", 1024, 4, is("\x10\x20\xf5\xf2"), false},
		{"swap space", 4096 - 10, 10, is("SWAPSPACE2"), false},
		{"swap space", 65536 - 10, 10, is("SWAPSPACE2"), false},
	}
	for sector := int64(0); sector < 4; sector++ {
		list = append(list, magic{"an LVM physical volume", sector * 512, 32, func(b []byte) bool {
			return is("LABELONE")(b) && is("LVM2 001")(b[24:])
		}, false})
	}
	return list
}

// signature recognises what begins at an offset and has a size. A read that fails is noted, not returned: the table may
// be readable all the same.
func (d *disk) signature(offset, size int64) signature {
	for _, m := range magics() {
		if m.offset+int64(m.n) > size {
			continue
		}
		b, err := d.read(offset+m.offset, m.n)
		if errors.Is(err, errPastEnd) {
			continue
		}
		if err != nil {
			d.failed(err)
			continue
		}
		if m.match(b) {
			return signature{m.name, offset + m.offset, m.parameters}
		}
	}
	return signature{}
}

// failed keeps one note of reads that failed, however many did.
func (d *disk) failed(err error) {
	if len(d.failures) == 0 {
		d.failures = append(d.failures, "part of the disk cannot be read: "+err.Error())
	}
}

// bootSector tells the mark at the end of a boot sector, be it an MBR's or a filesystem's.
func bootSector(sector []byte) bool { return sector[510] == 0x55 && sector[511] == 0xaa }

// isFAT looks for a plausible BIOS parameter block, as libblkid and Linux do. An MBR may carry an old one, left by a boot
// loader's installer: whoever asks looks at the partition entries too.
func isFAT(b []byte) bool {
	le := binary.LittleEndian
	sectorBytes, clusterSectors, media := le.Uint16(b[11:]), b[13], b[21]
	switch sectorBytes {
	case 512, 1024, 2048, 4096:
	default:
		return false
	}
	sectors := uint64(le.Uint16(b[19:])) + uint64(le.Uint32(b[32:]))
	fatSectors := uint64(le.Uint16(b[22:])) + uint64(le.Uint32(b[36:]))
	if le.Uint16(b[22:]) != 0 {
		fatSectors = uint64(le.Uint16(b[22:])) // FAT12 and FAT16 have other things at 36
	}
	return bootSector(b) && bits.OnesCount8(clusterSectors) == 1 && (media == 0xf0 || media >= 0xf8) &&
		le.Uint16(b[14:]) != 0 && (b[16] == 1 || b[16] == 2) && sectors > 0 && fatSectors > 0
}

// isExt takes the superblock of ext2, ext3 and ext4. Its magic has two bytes, so a few more fields must make sense.
func isExt(b []byte) bool {
	le := binary.LittleEndian
	return le.Uint16(b[56:]) == 0xef53 && le.Uint32(b[0:]) > 0 && le.Uint32(b[4:]) > 0 &&
		le.Uint32(b[24:]) <= 6 && le.Uint32(b[32:]) > 0 && le.Uint32(b[76:]) <= 1
}
