package partmap

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// image is a disk in memory that tests write tables to.
type image []byte

func newImage(sizeBytes int) image { return make(image, sizeBytes) }

func (im image) reader() *bytes.Reader { return bytes.NewReader(im) }

// mbrEntry writes an entry of a boot record at a sector offset in bytes.
func (im image) mbrEntry(recordAt int64, slot int, flag, kind byte, start, size uint32) {
	b := im[recordAt:]
	b[510], b[511] = 0x55, 0xaa
	e := b[446+16*slot:]
	e[0], e[4] = flag, kind
	binary.LittleEndian.PutUint32(e[8:], start)
	binary.LittleEndian.PutUint32(e[12:], size)
}

// gptPart is a partition of a GPT to be built.
type gptPart struct {
	slot        int // from 0
	first, last uint64
	name        string
	units       []uint16 // instead of name
	attrs       uint64
	uuid        byte // its first byte; 0 means slot+1
}

// gptSpec is a GPT to be built; zero fields have the usual values.
type gptSpec struct {
	sectorBytes            int
	entryCount, entryBytes int
	parts                  []gptPart
	noProtective           bool
	noPrimary, noBackup    bool
	edit                   func(h []byte) // of each header before its checksum
}

var linuxType = []byte{0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4}

func (im image) gpt(spec gptSpec) {
	le := binary.LittleEndian
	if spec.sectorBytes == 0 {
		spec.sectorBytes = 512
	}
	if spec.entryCount == 0 {
		spec.entryCount = 128
	}
	if spec.entryBytes == 0 {
		spec.entryBytes = 128
	}
	unit := spec.sectorBytes
	sectors := uint64(len(im) / unit)
	entries := make([]byte, spec.entryCount*spec.entryBytes)
	for _, p := range spec.parts {
		e := entries[p.slot*spec.entryBytes:]
		copy(e, linuxType)
		e[16] = p.uuid
		if p.uuid == 0 {
			e[16] = byte(p.slot + 1)
		}
		le.PutUint64(e[32:], p.first)
		le.PutUint64(e[40:], p.last)
		le.PutUint64(e[48:], p.attrs)
		units := p.units
		if units == nil {
			units = utf16.Encode([]rune(p.name))
		}
		for i, u := range units {
			le.PutUint16(e[56+2*i:], u)
		}
	}
	length := uint64((len(entries) + unit - 1) / unit)
	header := func(mine, other, at uint64) {
		h := make([]byte, 92)
		copy(h, "EFI PART\x00\x00\x01\x00\x5c")
		le.PutUint64(h[24:], mine)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], 2+length)
		le.PutUint64(h[48:], sectors-2-length)
		h[56] = 0x11
		le.PutUint64(h[72:], at)
		le.PutUint32(h[80:], uint32(spec.entryCount))
		le.PutUint32(h[84:], uint32(spec.entryBytes))
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		if spec.edit != nil {
			spec.edit(h)
		}
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		copy(im[mine*uint64(unit):], h)
		copy(im[at*uint64(unit):], entries)
	}
	if !spec.noProtective {
		im.mbrEntry(0, 0, 0, 0xee, 1, uint32(sectors-1))
	}
	if !spec.noPrimary {
		header(1, sectors-1, 2)
	}
	if !spec.noBackup {
		header(sectors-1, 1, sectors-1-length)
	}
}

// fat writes a boot sector as mkfs.fat does.
func (im image) fat(at int64) {
	b := im[at:]
	copy(b, "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x04\x00\x02\x00\x02\x00\x40\xf8\x10\x00")
	b[510], b[511] = 0x55, 0xaa
}

// ext writes as much of a superblock as is looked at.
func (im image) ext(at int64) {
	b := im[at+1024:]
	b[0], b[4], b[32], b[56], b[57], b[76] = 16, 16, 16, 0x53, 0xef, 1
}
