package partmap

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	maxNumber     = 255 // of a partition: Linux has no more minors for one disk
	maxEmptyLinks = 100 // extended boot records in a row without a partition, as in Linux
	maxSfdiskDOS  = 60  // highest number that sfdisk reads or writes
)

// bootRecord is an MBR or an extended boot record.
type bootRecord struct {
	valid   bool // it bears the mark, and its boot flags are 0 or 0x80
	id      uint32
	entries [4]bootEntry
}

// bootEntry is one of the four entries of a boot record; start counts from whatever the record's place says.
type bootEntry struct {
	flag        byte
	kind        byte
	start, size uint32 // sectors
}

func (e bootEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

func parseBootRecord(sector []byte) bootRecord {
	le := binary.LittleEndian
	rec := bootRecord{valid: bootSector(sector), id: le.Uint32(sector[440:])}
	if le.Uint32(sector) == 0xc1d4c2c9 { // "IBMA" in EBCDIC: the boot record of AIX, which has no such entries
		rec.valid = false
	}
	for i := range rec.entries {
		e := sector[446+16*i:]
		rec.entries[i] = bootEntry{flag: e[0], kind: e[4], start: le.Uint32(e[8:]), size: le.Uint32(e[12:])}
		if e[0] != 0 && e[0] != 0x80 {
			rec.valid = false
		}
	}
	return rec
}

// used counts the entries that have a size: like Linux and sfdisk, not looking at the type.
func (m bootRecord) used() int {
	n := 0
	for _, e := range m.entries {
		if e.size > 0 {
			n++
		}
	}
	return n
}

// protective returns the slot of the entry that announces a GPT, or -1.
func (m bootRecord) protective() int {
	for i, e := range m.entries {
		if e.kind == 0xee {
			return i
		}
	}
	return -1
}

func (m bootRecord) idString() string { return fmt.Sprintf("0x%08x", m.id) }

// findDOS reads the MBR's partitions. It wraps ErrNoTable when what looks like an MBR is the boot sector of a filesystem.
//
// Nothing in an MBR says how large its sectors are. What is found where its partitions begin does, mostly.
func (s *scan) findDOS() (*Table, error) {
	var best *Table
	var bestErr error
	bestEvidence := -1
	for _, sectorBytes := range s.sizes() {
		evidence := s.evidence(sectorBytes)
		better := evidence > bestEvidence
		even := evidence == bestEvidence && bestErr != nil
		if !better && !even {
			continue
		}
		t, err := s.readDOS(sectorBytes)
		var invalid *InvalidError
		if err != nil && !errors.As(err, &invalid) {
			return nil, err
		}
		if better || err == nil {
			best, bestErr, bestEvidence = t, err, evidence
		}
	}
	if s.content.name != "" && s.content.offsetBytes < 512 {
		if bestErr != nil || !s.content.parameters {
			return nil, fmt.Errorf("%w: the disk as a whole holds %s", ErrNoTable, s.content.name)
		}
		best.note("the boot sector also has the parameters of %s; its partitions count", s.content.name)
	} else if bestErr == nil && s.content.name != "" && !best.claims(s.content.offsetBytes) {
		best.note("what looks like %s lies outside all partitions", s.content.name)
	}
	if bestErr != nil {
		return nil, bestErr
	}
	return s.finish(best), nil
}

// evidence counts the MBR's partitions that begin with something known when sectors have a size.
func (s *scan) evidence(sectorBytes int) int {
	n := 0
	for _, e := range s.mbr.entries {
		offset := int64(e.start) * int64(sectorBytes)
		size := int64(e.size) * int64(sectorBytes)
		if size == 0 || offset == 0 || offset > s.disk.sizeBytes-512 {
			continue
		}
		if !e.extended() {
			if s.disk.signature(offset, size).name != "" {
				n++
			}
			continue
		}
		switch sector, err := s.disk.read(offset, 512); {
		case err != nil:
			s.disk.failed(err)
		case bootSector(sector):
			n++
		}
	}
	return n
}

// readDOS reads the MBR's primary and logical partitions in sectors of a size, numbered as Linux does.
func (s *scan) readDOS(sectorBytes int) (*Table, error) {
	t := &Table{Label: LabelDOS, ID: s.mbr.idString(), SectorBytes: sectorBytes, SizeBytes: s.disk.sizeBytes}
	t.Structures = []Range{{0, 512}}
	containers := 0
	for slot, e := range s.mbr.entries {
		if e.size == 0 {
			continue
		}
		p := t.dosPartition(slot+1, uint64(e.start), e)
		p.Extended = e.extended()
		t.Partitions = append(t.Partitions, p)
		if name := nestedLabel(e.kind); name != "" {
			t.note("partition %d holds a %s of its own, which is not looked into", p.Number, name)
		}
		if p.Extended {
			containers++
		}
	}
	if containers > 1 {
		t.note("%d partitions are extended ones; sfdisk reads the first alone", containers)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	number := 5
	for _, p := range t.Partitions[:len(t.Partitions):len(t.Partitions)] {
		if !p.Extended {
			continue
		}
		if err := s.readChain(t, p, &number); err != nil {
			return nil, err
		}
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Table) dosPartition(number int, start uint64, e bootEntry) Partition {
	return Partition{
		Number: number, StartSectors: start, SizeSectors: uint64(e.size), SectorBytes: t.SectorBytes,
		Type: fmt.Sprintf("%x", e.kind), Bootable: e.flag == 0x80,
	}
}

// nestedLabel names the tables that some systems keep inside a partition.
func nestedLabel(kind byte) string {
	switch kind {
	case 0xa5, 0xa6, 0xa9:
		return "BSD disk label"
	case 0xbf:
		return "Solaris disk label"
	case 0x63:
		return "UnixWare disk label"
	case 0x81:
		return "Minix partition table"
	}
	return ""
}

// readChain follows the extended boot records of a container. Each has a partition, counted from the record, and a
// link to the next, counted from the container. Links may lead backwards, but never in a circle.
func (s *scan) readChain(t *Table, container Partition, number *int) error {
	unit := int64(t.SectorBytes)
	recordStart, recordSize := container.StartSectors, container.SizeSectors
	seen := map[uint64]bool{}
	for empty := 0; ; empty++ {
		if seen[recordStart] {
			return invalidf(LabelDOS, "the chain of logical partitions leads back to sector %d", recordStart)
		}
		if empty > maxEmptyLinks {
			return invalidf(LabelDOS, "the chain of logical partitions has more than %d empty links in a row", maxEmptyLinks)
		}
		seen[recordStart] = true
		sector, err := s.disk.read(int64(recordStart)*unit, 512)
		if err != nil {
			return fmt.Errorf("read the chain of logical partitions: %w", err)
		}
		if !bootSector(sector) {
			t.note("the chain of logical partitions ends at sector %d, where no boot record is", recordStart)
			return nil
		}
		record := parseBootRecord(sector)
		t.Structures = append(t.Structures, Range{int64(recordStart) * unit, 512})

		next := bootEntry{}
		for i, e := range record.entries {
			if e.size == 0 {
				continue
			}
			if e.extended() {
				if next.size == 0 {
					next = e
				}
				continue
			}
			p := t.dosPartition(*number, recordStart+uint64(e.start), e)
			p.Logical = true
			// OS/2 uses all four entries, others leave old bytes in the last two.
			if i >= 2 && (uint64(e.start)+uint64(e.size) > recordSize || !inside(p, container)) {
				continue
			}
			if !inside(p, container) {
				return invalidf(LabelDOS, "logical partition %d reaches out of its container", p.Number)
			}
			if p.Number > maxNumber {
				return invalidf(LabelDOS, "there are more than %d partitions", maxNumber)
			}
			t.Partitions = append(t.Partitions, p)
			*number++
			empty = -1
		}
		if next.size == 0 {
			return nil
		}
		recordStart, recordSize = container.StartSectors+uint64(next.start), uint64(next.size)
		if recordStart >= container.StartSectors+container.SizeSectors {
			return invalidf(LabelDOS, "the chain of logical partitions leaves its container at sector %d", recordStart)
		}
	}
}
