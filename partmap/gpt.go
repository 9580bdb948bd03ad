package partmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"unicode/utf16"
)

const (
	gptSignature    = "EFI PART"
	gptHeaderBytes  = 92      // of revision 1.0, and of all since
	minEntryBytes   = 128     // of one entry; larger ones are multiples
	maxEntryBytes   = 4096    // of one entry that is accepted
	maxEntriesBytes = 1 << 20 // of all entries: 8192 of the usual size
	nameUnits       = 36      // UTF-16 code units of a partition's name
)

// gptHeader is one of the two headers, and the entries that it speaks for.
type gptHeader struct {
	sectorBytes             int
	mine, other             uint64 // sectors where this header and the other one are
	firstUsable, lastUsable uint64
	id                      string
	entriesAt               uint64 // sector
	entryCount, entryBytes  int
	entriesCRC              uint32
	entries                 []byte
}

// entriesSectors returns the sectors that the entries take up.
func (h *gptHeader) entriesSectors() uint64 {
	return (uint64(h.entryCount)*uint64(h.entryBytes) + uint64(h.sectorBytes) - 1) / uint64(h.sectorBytes)
}

// headerProblem says why a header, or what it speaks for, cannot be used.
type headerProblem struct {
	absent bool // no signature: nothing says that there ever was a header
	other  uint64
	text   string
}

func problemf(format string, args ...any) *headerProblem {
	return &headerProblem{text: fmt.Sprintf(format, args...)}
}

// gptDisk is a GPT that was found.
type gptDisk struct {
	table *Table
	stale bool // the backup is all that is left of it
}

// findGPT looks for a GPT in all sector sizes. It returns nil and no error when there is no trace of one.
func (s *scan) findGPT() (*gptDisk, error) {
	var backup *gptDisk
	var invalid error
	for _, sectorBytes := range s.sizes() {
		found, err := s.readGPT(sectorBytes)
		switch {
		case err != nil && invalid == nil:
			invalid = err
		case found == nil:
		case !found.stale:
			return found, nil
		case backup == nil:
			backup = found
		}
	}
	if backup != nil {
		return backup, nil
	}
	return nil, invalid
}

// readGPT reads the GPT of a disk that counts in sectors of a size: the primary one at sector 1, or else the backup, which
// belongs in the last sector but stays behind when a disk grows.
func (s *scan) readGPT(sectorBytes int) (*gptDisk, error) {
	sectors := uint64(s.disk.sizeBytes) / uint64(sectorBytes)
	if sectors < 4 {
		return nil, nil
	}
	last := sectors - 1
	primary, primaryProblem := s.readHeader(sectorBytes, 1)
	places := []uint64{last}
	if primary != nil {
		places = []uint64{primary.other}
	} else if primaryProblem.other > 1 && primaryProblem.other < last {
		places = append(places, primaryProblem.other)
	}
	var backup *gptHeader
	var backupProblem *headerProblem
	for _, place := range places {
		var problem *headerProblem
		if backup, problem = s.readHeader(sectorBytes, place); backup != nil {
			break
		}
		if backupProblem == nil || backupProblem.absent {
			backupProblem = problem
		}
	}

	used := primary
	switch {
	case primary == nil && backup == nil:
		if primaryProblem.absent && backupProblem.absent {
			return nil, nil
		}
		return nil, invalidf(LabelGPT, "neither header can be used: the primary one %s; the backup %s",
			primaryProblem.text, backupProblem.text)
	case primary == nil:
		used = backup
	}
	t, err := used.table(s.disk.sizeBytes)
	if err != nil {
		return nil, err
	}
	switch {
	case primary == nil:
		t.note("the primary GPT cannot be used (it %s): the backup is used", primaryProblem.text)
	case backup == nil:
		t.note("the backup GPT cannot be used (it %s): the primary one is used", backupProblem.text)
	case backup.id != primary.id || !bytes.Equal(primary.entries, backup.entries):
		t.note("the two GPTs differ: the primary one is used")
	}
	if backup != nil && backup.mine != last {
		t.note("the backup GPT is at sector %d, not at the end of the disk (sector %d): the disk has grown",
			backup.mine, last)
	}
	if other := backup; other != nil && other != used {
		// The other table's place is no partition's either; where it is claimed, that is noted rather than refused.
		for _, r := range other.structures() {
			if slices.ContainsFunc(t.Partitions, func(p Partition) bool {
				return p.OffsetBytes() < r.end() && r.OffsetBytes < p.OffsetBytes()+p.SizeBytes()
			}) {
				return nil, invalidf(LabelGPT, "a partition lies over the backup GPT")
			}
			t.Structures = append(t.Structures, r)
		}
	}
	return &gptDisk{table: t, stale: primary == nil}, nil
}

// readHeader reads the header at a sector and the entries that it points to, and checks all that it says of them.
func (s *scan) readHeader(sectorBytes int, at uint64) (*gptHeader, *headerProblem) {
	unit := uint64(sectorBytes)
	sectors := uint64(s.disk.sizeBytes) / unit
	if at >= sectors {
		return nil, problemf("should be at sector %d of a disk of %d", at, sectors)
	}
	b, err := s.disk.read(int64(at*unit), sectorBytes)
	if err != nil {
		s.disk.failed(err)
		return nil, &headerProblem{absent: true, text: "cannot be read"}
	}
	if string(b[:8]) != gptSignature {
		return nil, &headerProblem{absent: true, text: "is missing"}
	}
	le := binary.LittleEndian
	headerBytes := le.Uint32(b[12:])
	if headerBytes < gptHeaderBytes || headerBytes > uint32(sectorBytes) {
		return nil, problemf("claims a length of %d bytes", headerBytes)
	}
	sum := le.Uint32(b[16:])
	clear(b[16:20])
	if crc32.ChecksumIEEE(b[:headerBytes]) != sum {
		return nil, problemf("has a wrong checksum")
	}
	h := &gptHeader{
		sectorBytes: sectorBytes, mine: le.Uint64(b[24:]), other: le.Uint64(b[32:]),
		firstUsable: le.Uint64(b[40:]), lastUsable: le.Uint64(b[48:]), id: guid(b[56:]), entriesAt: le.Uint64(b[72:]),
		entriesCRC: le.Uint32(b[88:]),
	}
	count, size := uint64(le.Uint32(b[80:])), uint64(le.Uint32(b[84:]))
	problem := func(format string, args ...any) *headerProblem {
		p := problemf(format, args...)
		p.other = h.other
		return p
	}
	switch {
	case h.mine != at:
		return nil, problem("says that it is at sector %d, but is at %d", h.mine, at)
	case size < minEntryBytes || size > maxEntryBytes || size%minEntryBytes != 0:
		return nil, problem("has entries of %d bytes", size)
	case count == 0 || count*size > maxEntriesBytes:
		return nil, problem("has %d entries, which is beyond reason", count)
	case h.lastUsable >= sectors:
		return nil, problem("reaches up to sector %d of a disk of %d sectors: the disk was cut short", h.lastUsable, sectors)
	case h.firstUsable > h.lastUsable:
		return nil, problem("leaves no space for partitions: sectors %d to %d", h.firstUsable, h.lastUsable)
	}
	h.entryCount, h.entryBytes = int(count), int(size)
	length := h.entriesSectors()
	if h.entriesAt < 2 || h.entriesAt >= sectors || length > sectors-h.entriesAt {
		return nil, problem("has its entries outside the disk, at sector %d", h.entriesAt)
	}
	if h.entriesAt <= h.lastUsable && h.entriesAt+length > h.firstUsable {
		return nil, problem("has its entries among the partitions, at sector %d", h.entriesAt)
	}
	h.entries, err = s.disk.read(int64(h.entriesAt*unit), h.entryCount*h.entryBytes)
	if errors.Is(err, errTooMuch) {
		return nil, problem("asks for too much to be read")
	}
	if err != nil {
		s.disk.failed(err)
		return nil, problem("has entries that cannot be read")
	}
	if crc32.ChecksumIEEE(h.entries) != h.entriesCRC {
		return nil, problem("has entries with a wrong checksum")
	}
	return h, nil
}

// structures returns where the header and its entries are.
func (h *gptHeader) structures() []Range {
	unit := int64(h.sectorBytes)
	return []Range{
		{int64(h.mine) * unit, unit},
		{int64(h.entriesAt) * unit, int64(h.entriesSectors()) * unit},
	}
}

// table makes a Table of the entries.
func (h *gptHeader) table(diskBytes int64) (*Table, error) {
	t := &Table{
		Label: LabelGPT, ID: h.id, SectorBytes: h.sectorBytes, SizeBytes: diskBytes,
		FirstUsable: h.firstUsable, LastUsable: h.lastUsable, EntryCount: h.entryCount, EntryBytes: h.entryBytes,
	}
	t.Structures = append(h.structures(), Range{0, 512})
	le := binary.LittleEndian
	byUUID := map[string]int{}
	for i := range h.entryCount {
		e := h.entries[i*h.entryBytes:][:h.entryBytes]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		number := i + 1
		if last < first {
			return nil, invalidf(LabelGPT, "partition %d ends at sector %d, before it begins at %d", number, last, first)
		}
		if last >= uint64(diskBytes)/uint64(h.sectorBytes) {
			return nil, invalidf(LabelGPT, "partition %d (sectors %d to %d) reaches past the end of the disk (%d sectors)",
				number, first, last, uint64(diskBytes)/uint64(h.sectorBytes))
		}
		p := Partition{
			Number: number, StartSectors: first, SizeSectors: last - first + 1, SectorBytes: h.sectorBytes,
			Type: guid(e), UUID: guid(e[16:]), Attrs: le.Uint64(e[48:]),
		}
		p.NameUTF16, p.Name = entryName(e[56:])
		if first < h.firstUsable || last > h.lastUsable {
			t.note("partition %d lies outside the sectors that the table calls usable", number)
		}
		if twin, ok := byUUID[p.UUID]; ok {
			t.note("partitions %d and %d have the same UUID", twin, number)
		}
		byUUID[p.UUID] = number
		t.Partitions = append(t.Partitions, p)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// entryName reads the name of an entry: up to 36 code units of UTF-16, to the first zero.
func entryName(b []byte) (stored []uint16, name string) {
	stored = make([]uint16, nameUnits)
	for i := range stored {
		stored[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	used := len(stored)
	for used > 0 && stored[used-1] == 0 {
		used--
	}
	if used == 0 {
		return nil, ""
	}
	stored = stored[:used]
	return stored, string(utf16.Decode(untilZero(stored)))
}

func untilZero(units []uint16) []uint16 {
	if i := slices.Index(units, 0); i >= 0 {
		return units[:i]
	}
	return units
}

// guid writes a GUID as it is printed: its first three fields are stored with the least byte first.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08X-%04X-%04X-%04X-%012X", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}
