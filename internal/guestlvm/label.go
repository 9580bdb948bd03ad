package guestlvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	sectorBytes    = 512
	labelSectors   = 4 // the label is in one of the first
	labelHeadBytes = 32
	mdaHeadBytes   = 512
	mdaMagic       = " LVM2 x[5A%r0N*>"
	maxAreas       = 16
	maxTextBytes   = 32 << 20
	maxUUIDBytes   = 32
	ignoredFlag    = 1 // of a location in an area's header
	initialCRC     = 0xf597a6cf
)

var errLabel = errors.New("there is no valid label of a physical volume")

// byteRange is a part of a disk.
type byteRange struct{ offset, size int64 }

func (r byteRange) end() int64 { return r.offset + r.size }

// label is what the head of a physical volume says.
type label struct {
	uuid  string
	areas []byteRange // of metadata
}

// checksum is LVM2's CRC-32: that of gzip with another beginning and without the inversion at the end.
func checksum(data []byte) uint32 {
	return ^crc32.Update(^uint32(initialCRC), crc32.IEEETable, data)
}

// readLabel reads struct label_header and struct pv_header (lib/format_text/layout.h in LVM2's source).
func readLabel(disk Disk) (label, error) {
	head := make([]byte, labelSectors*sectorBytes)
	if _, err := disk.Reader.ReadAt(head, 0); err != nil && !(errors.Is(err, io.EOF) && disk.SizeBytes >= int64(len(head))) {
		return label{}, fmt.Errorf("cannot read the label: %w", err)
	}
	for n := range labelSectors {
		sector := head[n*sectorBytes:][:sectorBytes]
		if !bytes.HasPrefix(sector, []byte("LABELONE")) || !bytes.Equal(sector[24:labelHeadBytes], []byte("LVM2 001")) {
			continue
		}
		if binary.LittleEndian.Uint64(sector[8:]) != uint64(n) || checksum(sector[20:]) != binary.LittleEndian.Uint32(sector[16:]) {
			continue
		}
		at := binary.LittleEndian.Uint32(sector[20:])
		if at < labelHeadBytes || at > sectorBytes-maxUUIDBytes-8 {
			return label{}, fmt.Errorf("%w: its content is at byte %d", errLabel, at)
		}
		return parsePVHeader(sector[at:], disk.SizeBytes)
	}
	return label{}, errLabel
}

func parsePVHeader(p []byte, sizeBytes int64) (label, error) {
	uuid, err := formatUUID(p[:maxUUIDBytes])
	if err != nil {
		return label{}, err
	}
	l := label{uuid: uuid}
	rest := p[maxUUIDBytes+8:] // the size, which need not be that of the disk
	if _, rest, err = areaList(rest); err != nil {
		return l, err // of data
	}
	if l.areas, _, err = areaList(rest); err != nil {
		return l, err
	}
	for _, a := range l.areas {
		if a.offset < 0 || a.size < mdaHeadBytes || a.size > sizeBytes || a.offset > sizeBytes-a.size {
			return l, fmt.Errorf("%w: a metadata area of %d bytes at %d", errLabel, a.size, a.offset)
		}
	}
	return l, nil
}

// areaList reads struct disk_locn up to one that is zero.
func areaList(p []byte) (list []byteRange, rest []byte, err error) {
	for len(p) >= 16 {
		area := byteRange{int64(binary.LittleEndian.Uint64(p)), int64(binary.LittleEndian.Uint64(p[8:]))}
		p = p[16:]
		if area.offset == 0 {
			return list, p, nil
		}
		if list = append(list, area); len(list) > maxAreas {
			break
		}
	}
	return nil, nil, fmt.Errorf("%w: its list of areas has no end", errLabel)
}

// formatUUID puts hyphens into a UUID as LVM2 shows it.
func formatUUID(raw []byte) (string, error) {
	for _, c := range raw {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '!' || c == '#') {
			return "", fmt.Errorf("%w: the UUID %q", errLabel, raw)
		}
	}
	s := string(raw)
	return s[:6] + "-" + s[6:10] + "-" + s[10:14] + "-" + s[14:18] + "-" + s[18:22] + "-" + s[22:26] + "-" + s[26:], nil
}

// readText reads the metadata text that is in force in one area: struct mda_header and struct raw_locn. An area that
// holds none, or is marked as one to be ignored, returns "".
func readText(disk Disk, area byteRange) (string, error) {
	head := make([]byte, mdaHeadBytes)
	if err := readAt(disk, head, area.offset); err != nil {
		return "", err
	}
	le := binary.LittleEndian
	switch {
	case checksum(head[4:]) != le.Uint32(head):
		return "", errors.New("the header of a metadata area has a wrong checksum")
	case string(head[4:20]) != mdaMagic || le.Uint32(head[20:]) != 1:
		return "", errors.New("the header of a metadata area is of a form that is not known")
	case le.Uint64(head[24:]) != uint64(area.offset) || le.Uint64(head[32:]) != uint64(area.size):
		return "", errors.New("the header of a metadata area belongs elsewhere")
	}
	where := byteRange{int64(le.Uint64(head[40:])), int64(le.Uint64(head[48:]))}
	sum, flags := le.Uint32(head[56:]), le.Uint32(head[60:])
	if where.offset == 0 || flags&ignoredFlag != 0 {
		return "", nil
	}
	if where.offset < mdaHeadBytes || where.offset >= area.size || where.size <= 0 || where.size > min(area.size-mdaHeadBytes, maxTextBytes) {
		return "", fmt.Errorf("a metadata text of %d bytes at %d does not fit its area", where.size, where.offset)
	}
	text := make([]byte, where.size)
	first := min(where.size, area.size-where.offset) // the area is used in the round
	if err := readAt(disk, text[:first], area.offset+where.offset); err != nil {
		return "", err
	}
	if err := readAt(disk, text[first:], area.offset+mdaHeadBytes); err != nil {
		return "", err
	}
	if checksum(text) != sum {
		return "", errors.New("a metadata text has a wrong checksum")
	}
	return string(text), nil
}

func readAt(disk Disk, p []byte, offset int64) error {
	if len(p) == 0 {
		return nil
	}
	if n, err := disk.Reader.ReadAt(p, offset); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("cannot read %d bytes at %d: %w", len(p), offset, err)
	}
	return nil
}
