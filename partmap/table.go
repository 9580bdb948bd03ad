package partmap

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Label is the kind of a partition table, in sfdisk's words.
type Label string

// Kinds of tables.
const (
	LabelDOS Label = "dos"
	LabelGPT Label = "gpt"
)

// ErrNoTable is wrapped by Read's error for a volume that has no partition table. The error says what was seen
// instead, where anything was.
var ErrNoTable = errors.New("no partition table")

// InvalidError says why a partition table cannot be used. The volume can still be stored as one image.
type InvalidError struct {
	Label   Label
	Problem string // one clause, fit for a report
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("cannot use the %s partition table: %s", e.Label, e.Problem)
}

func invalidf(label Label, format string, args ...any) error {
	return &InvalidError{Label: label, Problem: fmt.Sprintf(format, args...)}
}

// Table is a partition table. A valid one has no two partitions that overlap, but logical ones inside their container,
// and none that reaches past the end of the disk or over the table itself.
type Table struct {
	Label       Label
	ID          string // disk identifier as sfdisk writes it: "0x1234abcd", or a GUID in upper case
	SectorBytes int    // of the table's own unit, which need not be the device's
	SizeBytes   int64  // of the disk
	Partitions  []Partition
	Notes       []string // what is odd about the table, for the report
	Structures  []Range  // where the table itself lies: boot records, headers, entries; by offset

	FirstUsable uint64 // GPT: first sector that a partition may use
	LastUsable  uint64 // GPT: last sector that a partition may use
	EntryCount  int    // GPT: entries that the table has room for
	EntryBytes  int    // GPT: size of one entry

	hybrid bool // GPT: the MBR has partitions of its own
}

// Partition is one partition, by the number that Linux gives it.
type Partition struct {
	Number       int
	StartSectors uint64 // in sectors of Table.SectorBytes, as all sectors here
	SizeSectors  uint64
	SectorBytes  int
	Type         string   // two hexadecimal digits at most without a leading zero (dos), or a GUID (gpt), as sfdisk writes it
	UUID         string   // GPT only
	Name         string   // GPT only; valid UTF-8, with U+FFFD for what is not valid UTF-16
	NameUTF16    []uint16 // the name as it is stored, without trailing zeros
	Attrs        uint64   // GPT only
	Bootable     bool     // MBR only
	Extended     bool     // MBR only: a container of logical partitions, which holds no data of its own
	Logical      bool     // MBR only: lies in a container
}

// OffsetBytes returns where the partition begins on its disk.
func (p Partition) OffsetBytes() int64 { return int64(p.StartSectors) * int64(p.SectorBytes) }

// SizeBytes returns the length of the partition.
func (p Partition) SizeBytes() int64 { return int64(p.SizeSectors) * int64(p.SectorBytes) }

// Range is a part of a disk.
type Range struct {
	OffsetBytes int64
	SizeBytes   int64
}

func (r Range) end() int64 { return r.OffsetBytes + r.SizeBytes }

// Gaps returns the ranges of the disk that no partition claims, by offset. The first begins at 0 where there is a
// boot area before the first partition. Partitions and gaps together are the whole disk; an extended container claims
// nothing, so its boot records are in gaps.
func (t *Table) Gaps() []Range {
	var claimed []Range
	for _, p := range t.Partitions {
		if !p.Extended {
			claimed = append(claimed, Range{p.OffsetBytes(), p.SizeBytes()})
		}
	}
	slices.SortFunc(claimed, byOffset)
	var gaps []Range
	next := int64(0)
	for _, c := range append(claimed, Range{OffsetBytes: t.SizeBytes}) {
		if c.OffsetBytes > next {
			gaps = append(gaps, Range{next, c.OffsetBytes - next})
		}
		next = max(next, c.end())
	}
	return gaps
}

func byOffset(a, b Range) int {
	switch {
	case a.OffsetBytes < b.OffsetBytes:
		return -1
	case a.OffsetBytes > b.OffsetBytes:
		return 1
	}
	return 0
}

// Options of Read.
type Options struct {
	// SectorBytes is the logical sector size of the device: 512, 1024, 2048 or 4096. 0 means 512. Tables written in
	// units of 512 or 4096 bytes are recognised by content whatever the device has; this decides where content does not.
	SectorBytes int
}

// Read reads the partition table of a disk of sizeBytes. It fails with an error that wraps ErrNoTable when there is
// none, with an *InvalidError when there is one that cannot be used, and with the error of r when r cannot be read
// where a table is needed.
func Read(r io.ReaderAt, sizeBytes int64, opts Options) (*Table, error) {
	own := opts.SectorBytes
	switch own {
	case 0:
		own = 512
	case 512, 1024, 2048, 4096:
	default:
		return nil, fmt.Errorf("cannot read a table in sectors of %d bytes", own)
	}
	if sizeBytes < 512 {
		return nil, fmt.Errorf("%w: %d bytes hold no sector", ErrNoTable, sizeBytes)
	}
	d := &disk{r: r, sizeBytes: sizeBytes}
	sector, err := d.read(0, 512)
	if err != nil {
		return nil, err
	}
	s := &scan{disk: d, own: own, mbr: parseBootRecord(sector), content: d.signature(0, sizeBytes)}
	return s.table()
}

// scan is what one look at a disk has found so far.
type scan struct {
	disk    *disk
	own     int // sector size of the device
	mbr     bootRecord
	content signature // of the disk as a whole
}

// sizes returns the sector sizes to try, the device's own first.
func (s *scan) sizes() []int {
	sizes := []int{s.own}
	for _, n := range []int{512, 4096} {
		if n != s.own {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// table decides which table the disk has.
//
// Linux and sfdisk take a GPT only behind a protective MBR. Here one without is taken too, as long as nothing else
// claims the disk: an MBR with partitions of its own, or a filesystem on all of it, both of which were written later.
func (s *scan) table() (*Table, error) {
	gpt, gptErr := s.findGPT()
	protective := s.mbr.valid && s.mbr.protective() >= 0

	if gpt == nil && protective {
		if gptErr == nil {
			gptErr = invalidf(LabelGPT, "the MBR is a protective one, but there is no GPT header")
		}
		return nil, gptErr
	}
	if !protective && s.mbr.valid && s.mbr.used() > 0 {
		dos, err := s.findDOS()
		if err == nil && (gpt != nil || gptErr != nil) {
			dos.note("a GPT, too, is on the disk; the MBR does not announce it, and counts")
		}
		if !errors.Is(err, ErrNoTable) {
			return dos, err
		}
	}
	if name := s.contentOutside(gpt); name != "" && (gpt == nil || !protective || gpt.stale) {
		return nil, fmt.Errorf("%w: the disk as a whole holds %s", ErrNoTable, name)
	} else if name != "" {
		gpt.table.note("what looks like %s lies outside all partitions", name)
	}
	if gpt != nil {
		s.noteMBR(gpt.table)
		return s.finish(gpt.table), nil
	}
	if gptErr != nil {
		return nil, gptErr
	}
	if s.mbr.valid && s.mbr.id != 0 && s.content.name == "" {
		t := &Table{Label: LabelDOS, ID: s.mbr.idString(), SectorBytes: s.own, SizeBytes: s.disk.sizeBytes}
		t.Structures = []Range{{0, 512}}
		t.note("the table has no partitions")
		return s.finish(t), nil
	}
	return nil, ErrNoTable
}

// contentOutside names what the disk as a whole seems to hold, unless it lies in a partition of the GPT.
func (s *scan) contentOutside(gpt *gptDisk) string {
	if gpt == nil {
		return s.content.name
	}
	if gpt.table.claims(s.content.offsetBytes) {
		return ""
	}
	return s.content.name
}

// claims tells whether a byte of the disk lies in a partition.
func (t *Table) claims(offsetBytes int64) bool {
	return slices.ContainsFunc(t.Partitions, func(p Partition) bool {
		return offsetBytes >= p.OffsetBytes() && offsetBytes < p.OffsetBytes()+p.SizeBytes()
	})
}

// noteMBR notes how the MBR before a GPT differs from what it should be, and remembers a hybrid one.
func (s *scan) noteMBR(t *Table) {
	slot := -1
	if s.mbr.valid {
		slot = s.mbr.protective()
	}
	switch {
	case slot < 0:
		t.note("the protective MBR is missing")
	case s.mbr.entries[slot].start != 1:
		t.note("the protective MBR is wrong: it begins at sector %d instead of 1", s.mbr.entries[slot].start)
	}
	if slot >= 0 && s.mbr.used() > 1 {
		t.hybrid = true
		t.note("the MBR is a hybrid: its own partitions are ignored")
	}
}

// finish adds what reading the disk brought to light.
func (s *scan) finish(t *Table) *Table {
	if t.SectorBytes != s.own {
		t.note("the table counts in sectors of %d bytes, the device in %d", t.SectorBytes, s.own)
	}
	t.Notes = append(t.Notes, s.disk.failures...)
	slices.SortFunc(t.Structures, byOffset)
	return t
}

func (t *Table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

// check holds the partitions against the disk, the table's own structures and each other.
func (t *Table) check() error {
	type claim struct {
		Range
		what string
	}
	var claims []claim
	for _, r := range t.Structures {
		claims = append(claims, claim{r, "the table itself"})
	}
	sectors := uint64(t.SizeBytes) / uint64(t.SectorBytes)
	for _, p := range t.Partitions {
		if p.StartSectors >= sectors || p.SizeSectors > sectors-p.StartSectors {
			return invalidf(t.Label, "partition %d (sector %d, %d sectors) reaches past the end of the disk (%d sectors)",
				p.Number, p.StartSectors, p.SizeSectors, sectors)
		}
		r := Range{p.OffsetBytes(), p.SizeBytes()}
		if p.Extended {
			// What a container may overlap are its own records and logical partitions alone.
			for _, q := range t.Partitions {
				if q.Number == p.Number || q.Logical && inside(q, p) {
					continue
				}
				if r.OffsetBytes < q.OffsetBytes()+q.SizeBytes() && q.OffsetBytes() < r.end() {
					return invalidf(t.Label, "partitions %d and %d overlap", p.Number, q.Number)
				}
			}
			if r.OffsetBytes < 512 {
				return invalidf(t.Label, "partition %d lies over the table itself", p.Number)
			}
			continue
		}
		claims = append(claims, claim{r, fmt.Sprintf("partition %d", p.Number)})
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return byOffset(a.Range, b.Range) })
	for i := 1; i < len(claims); i++ {
		a, b := claims[i-1], claims[i]
		if b.OffsetBytes < a.end() {
			return invalidf(t.Label, "%s and %s overlap", a.what, b.what)
		}
	}
	return nil
}

func inside(p, container Partition) bool {
	return p.StartSectors >= container.StartSectors &&
		p.StartSectors+p.SizeSectors <= container.StartSectors+container.SizeSectors
}
