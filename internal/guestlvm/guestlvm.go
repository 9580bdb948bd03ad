// Package guestlvm reads the volume groups that guests have made on their disks, from the disks' bytes alone: the host's
// LVM is not asked, and nothing is activated. It follows the layout in lib/format_text/layout.h and the metadata text
// that lib/format_text/export.c of LVM2 writes, "format = lvm2" as every LVM2 since 2002 makes it.
//
// A guest wrote what is read here. Whatever does not fit the disks, overlaps, or is of a form that is not known makes the
// group unusable, with the reason; its physical volumes can still be stored as images.
package guestlvm

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxPVs        = 1000
	maxLVs        = 10_000
	maxSegments   = 100_000
	maxNameBytes  = 127
	maxSectors    = 1 << 53 // 4 EiB
	maxExtents    = 1<<32 - 1
	maxStripes    = 128
	minExtentSize = 2 // sectors
)

// Disk is one extent of a host's volume that holds a physical volume.
type Disk struct {
	Reader    io.ReaderAt // of the extent, from its first byte on
	SizeBytes int64
}

// VG is a volume group whose physical volumes are all there.
type VG struct {
	Name, UUID  string
	Seqno       int64 // of its metadata
	ExtentBytes int64
	PVs         []PV
	LVs         []LV // those that lie on physical volumes directly, by name

	// Composed are logical volumes that consist of others: thin volumes and pools, mirrors, RAID, caches, snapshots. All
	// that they hold is in their parts, which are LVs.
	Composed []Composed
}

// PV is a physical volume.
type PV struct {
	Disk       int    // its place in the list that Read was given
	UUID       string // with hyphens, as LVM2 shows it
	StartBytes int64  // of its extents; before lie label and metadata
	EndBytes   int64  // of its extents
	HasTail    bool   // metadata lie behind the extents too
}

// LV is a logical volume that lies on physical volumes directly.
type LV struct {
	Name, UUID string
	Visible    bool // to users of the guest; others are parts of LVM's own making
	SizeBytes  int64
	Segments   []Segment
	// PartOf names the logical volume that this is a part of, with its type; "" for one that stands alone. What a part
	// holds makes sense only together with the others.
	PartOf string
}

// Segment is a contiguous part of an LV, on one area or striped over several of the same size.
type Segment struct {
	SizeBytes   int64
	StripeBytes int64 // of one stripe, where there are several areas
	Areas       []Area
}

// Area is where a segment, or a stripe of it, begins.
type Area struct {
	PV          int   // in VG.PVs
	OffsetBytes int64 // on the PV's disk
}

// AreaBytes is how much of each of its areas a segment takes.
func (s Segment) AreaBytes() int64 { return s.SizeBytes / int64(len(s.Areas)) }

// Composed is a logical volume that consists of others.
type Composed struct{ Name, UUID, Type string }

// Problem is why a disk is in none of the groups that Read returns.
type Problem struct {
	Disk    int
	Reason  string // one clause, fit for a report
	Lacking bool   // a physical volume of its group is on none of the disks
}

// errLacking is why a group is not whole.
var errLacking = errors.New("a physical volume is on none of the disks")

// lackingError says which.
type lackingError struct{ reason string }

func (e *lackingError) Error() string { return e.reason }
func (*lackingError) Unwrap() error   { return errLacking }

// Read finds the volume groups on the disks of one guest. Each disk is a PV of one of the groups, or has a Problem.
func Read(disks []Disk) ([]VG, []Problem) {
	r := &reader{
		disks: disks, labels: make([]label, len(disks)), reasons: make([]string, len(disks)), lacking: make([]bool, len(disks)),
		texts: map[string]*metadata{},
	}
	for i := range disks {
		if err := r.readDisk(i); err != nil {
			r.reasons[i] = err.Error()
		}
	}
	r.checkTwins()
	var vgs []VG
	for _, name := range r.order {
		m := r.texts[name]
		vg, err := r.group(m)
		if err == nil {
			vgs = append(vgs, vg)
			continue
		}
		for i, l := range r.labels {
			if r.reasons[i] == "" && slices.Contains(m.pvUUIDs(), l.uuid) {
				r.reasons[i] = fmt.Sprintf("volume group %s: %v", m.name, err)
				r.lacking[i] = errors.Is(err, errLacking)
			}
		}
	}
	vgs = r.dropShared(vgs)
	return vgs, r.problems(vgs)
}

// dropShared drops groups that lay claim to the same physical volume: what was left of an older group is on its disks.
func (r *reader) dropShared(vgs []VG) []VG {
	owners := map[int]int{}
	for _, vg := range vgs {
		for _, pv := range vg.PVs {
			owners[pv.Disk]++
		}
	}
	return slices.DeleteFunc(vgs, func(vg VG) bool {
		if !slices.ContainsFunc(vg.PVs, func(pv PV) bool { return owners[pv.Disk] > 1 }) {
			return false
		}
		for _, pv := range vg.PVs {
			r.reasons[pv.Disk] = fmt.Sprintf("more than one volume group lays claim to physical volumes of %s", vg.Name)
		}
		return true
	})
}

// reader collects what the disks say.
type reader struct {
	disks   []Disk
	labels  []label
	reasons []string
	lacking []bool
	texts   map[string]*metadata // the newest of each group, by UUID
	order   []string
}

// metadata is one text.
type metadata struct {
	name string
	uuid string
	seq  int64
	body *section
}

func (r *reader) readDisk(i int) error {
	l, err := readLabel(r.disks[i])
	if err != nil {
		return err
	}
	r.labels[i] = l
	for _, area := range l.areas {
		text, err := readText(r.disks[i], area)
		if err != nil {
			return err
		}
		if text == "" {
			continue
		}
		m, err := parseMetadata(text)
		if err != nil {
			return err
		}
		older := r.texts[m.uuid]
		switch {
		case older == nil:
			r.texts[m.uuid] = m
			r.order = append(r.order, m.uuid)
		case older.seq < m.seq:
			r.texts[m.uuid] = m
		}
	}
	return nil
}

// parseMetadata reads a text as far as it says whose it is.
func parseMetadata(text string) (*metadata, error) {
	top, err := parseText(text)
	if err != nil {
		return nil, err
	}
	if len(top.order) != 1 {
		return nil, fmt.Errorf("%w: it describes %d groups", errText, len(top.order))
	}
	m := &metadata{name: top.order[0], body: top.sections[top.order[0]]}
	if err := checkName(m.name); err != nil {
		return nil, err
	}
	if m.uuid, err = checkUUID(m.body.text("id")); err != nil {
		return nil, err
	}
	if m.seq, err = m.body.number("seqno", 0, maxExtents); err != nil {
		return nil, err
	}
	if format := m.body.text("format"); format != "" && format != "lvm2" {
		return nil, fmt.Errorf("%w: format %.40q", errText, format)
	}
	return m, nil
}

func (m *metadata) pvUUIDs() []string {
	var uuids []string
	if pvs := m.body.sections["physical_volumes"]; pvs != nil {
		for _, pv := range pvs.sections {
			uuids = append(uuids, pv.text("id"))
		}
	}
	return uuids
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || name[0] == '-' || len(name) > maxNameBytes {
		return fmt.Errorf("%w: the name %.200q", errText, name)
	}
	return nil
}

// checkUUID wants 32 characters with hyphens between.
func checkUUID(s string) (string, error) {
	raw := strings.ReplaceAll(s, "-", "")
	if len(raw) != maxUUIDBytes {
		return "", fmt.Errorf("%w: the UUID %.60q", errText, s)
	}
	formatted, err := formatUUID([]byte(raw))
	if err != nil || formatted != s {
		return "", fmt.Errorf("%w: the UUID %.60q", errText, s)
	}
	return s, nil
}

// checkTwins refuses disks that claim to be the same physical volume.
func (r *reader) checkTwins() {
	seen := map[string]int{}
	for i, l := range r.labels {
		if l.uuid == "" {
			continue
		}
		if first, found := seen[l.uuid]; found {
			const reason = "two disks have the same UUID of a physical volume"
			r.reasons[first], r.reasons[i] = reason, reason
			continue
		}
		seen[l.uuid] = i
	}
}

// problems gives every disk that is in no group a reason.
func (r *reader) problems(vgs []VG) []Problem {
	used := map[int]bool{}
	for _, vg := range vgs {
		for _, pv := range vg.PVs {
			used[pv.Disk] = true
		}
	}
	var list []Problem
	for i, reason := range r.reasons {
		if !used[i] {
			list = append(list, Problem{i, cmp.Or(reason, "the physical volume is in no volume group"), r.lacking[i]})
		}
	}
	return list
}

// group makes a VG of its metadata.
func (r *reader) group(m *metadata) (VG, error) {
	vg := VG{Name: m.name, UUID: m.uuid, Seqno: m.seq}
	sectors, err := m.body.number("extent_size", minExtentSize, 1<<32)
	if err != nil {
		return vg, err
	}
	vg.ExtentBytes = sectors * sectorBytes
	b := &builder{reader: r, vg: &vg, pvs: map[string]pvExtents{}}
	if err := b.addPVs(m.body.sections["physical_volumes"]); err != nil {
		return vg, err
	}
	if lvs := m.body.sections["logical_volumes"]; lvs != nil {
		if err := b.addLVs(lvs); err != nil {
			return vg, err
		}
	}
	return vg, b.checkOverlap()
}

// builder fills a VG.
type builder struct {
	*reader
	vg       *VG
	pvs      map[string]pvExtents // by their keys in the text
	names    map[string]bool      // of all logical volumes
	segments int
}

// pvExtents is a PV as the text counts it.
type pvExtents struct {
	index int
	count int64
}

func (b *builder) addPVs(pvs *section) error {
	if pvs == nil || len(pvs.order) == 0 || len(pvs.order) > maxPVs {
		return fmt.Errorf("%w: it lists no physical volumes, or too many", errText)
	}
	for _, key := range pvs.order {
		s := pvs.sections[key]
		uuid := s.text("id")
		if slices.Contains(s.strings("flags"), "MISSING") {
			return fmt.Errorf("its physical volume %s was missing when the guest used it last", key)
		}
		disk := slices.IndexFunc(b.labels, func(l label) bool { return l.uuid != "" && l.uuid == uuid })
		if disk < 0 {
			return &lackingError{fmt.Sprintf("its physical volume %s (%.60s) is not on this volume", key, uuid)}
		}
		if b.reasons[disk] != "" {
			return errors.New(b.reasons[disk])
		}
		start, err := s.number("pe_start", 0, maxSectors)
		if err != nil {
			return err
		}
		count, err := s.number("pe_count", 0, maxExtents)
		if err != nil {
			return err
		}
		size := b.disks[disk].SizeBytes
		pv := PV{Disk: disk, UUID: uuid, StartBytes: start * sectorBytes}
		if pv.StartBytes < labelSectors*sectorBytes || pv.StartBytes > size || count > (size-pv.StartBytes)/b.vg.ExtentBytes {
			return fmt.Errorf("%w: %d extents of %d bytes from byte %d on do not fit the disk of %d",
				errText, count, b.vg.ExtentBytes, pv.StartBytes, size)
		}
		pv.EndBytes = pv.StartBytes + count*b.vg.ExtentBytes
		for _, area := range b.labels[disk].areas {
			switch {
			case area.offset >= pv.EndBytes:
				pv.HasTail = true
			case area.end() > pv.StartBytes:
				return fmt.Errorf("%w: metadata and extents of %s overlap", errText, key)
			}
		}
		b.vg.PVs = append(b.vg.PVs, pv)
		b.pvs[key] = pvExtents{index: len(b.vg.PVs) - 1, count: count}
	}
	return nil
}

func (b *builder) addLVs(lvs *section) error {
	if len(lvs.order) > maxLVs {
		return fmt.Errorf("%w: more than %d logical volumes", errText, maxLVs)
	}
	b.names = map[string]bool{}
	for _, name := range lvs.order {
		b.names[name] = true
	}
	partOf := map[string]string{}
	for _, name := range lvs.order {
		if err := b.addLV(name, lvs.sections[name], partOf); err != nil {
			return fmt.Errorf("logical volume %s: %w", name, err)
		}
	}
	for i := range b.vg.LVs {
		b.vg.LVs[i].PartOf = partOf[b.vg.LVs[i].Name]
	}
	slices.SortFunc(b.vg.LVs, func(x, y LV) int { return strings.Compare(x.Name, y.Name) })
	return nil
}

// addLV reads one logical volume, and enters in partOf what it says of others.
func (b *builder) addLV(name string, s *section, partOf map[string]string) error {
	if err := checkName(name); err != nil {
		return err
	}
	uuid, err := checkUUID(s.text("id"))
	if err != nil {
		return err
	}
	count, err := s.number("segment_count", 0, maxSegments)
	if err != nil {
		return err
	}
	if b.segments += int(count); b.segments > maxSegments || int(count) != len(s.order) {
		return fmt.Errorf("%w: %d segments, of which %d are described", errText, count, len(s.order))
	}
	lv := LV{Name: name, UUID: uuid, Visible: slices.Contains(s.strings("status"), "VISIBLE")}
	composed, next := "", int64(0)
	for n := range count {
		segment := s.sections[fmt.Sprintf("segment%d", n+1)]
		if segment == nil {
			return fmt.Errorf("%w: there is no segment %d", errText, n+1)
		}
		start, err := segment.number("start_extent", next, next)
		if err != nil {
			return err
		}
		extents, err := segment.number("extent_count", 1, maxExtents)
		if err != nil {
			return err
		}
		next = start + extents
		kind := segment.text("type")
		onPVs, refers := b.namesPV(segment), kind == "zero" || kind == "error" // which hold nothing
		for _, word := range segment.words() {
			_, isPV := b.pvs[word] // which has the name first
			if b.names[word] && !isPV {
				partOf[word] = fmt.Sprintf("%s (%.40s)", name, kind)
				refers = true
			}
		}
		if kind == "striped" && onPVs {
			mapped, err := b.striped(segment, extents)
			if err != nil {
				return err
			}
			lv.Segments = append(lv.Segments, mapped)
			lv.SizeBytes += mapped.SizeBytes
			continue
		}
		switch {
		case onPVs:
			return fmt.Errorf("a segment of the type %.40q lies on physical volumes directly", kind)
		case !refers:
			return fmt.Errorf("%w: a segment of the type %.40q lies nowhere", errText, kind)
		}
		composed = cmp.Or(composed, kind, "unknown")
	}
	switch {
	case composed != "" && len(lv.Segments) > 0:
		return errors.New("it lies partly on physical volumes and partly on other logical volumes")
	case composed != "":
		b.vg.Composed = append(b.vg.Composed, Composed{Name: name, UUID: uuid, Type: composed})
	case len(lv.Segments) > 0:
		b.vg.LVs = append(b.vg.LVs, lv)
	}
	return nil
}

// namesPV tells whether a segment of a type that is not known names a physical volume.
func (b *builder) namesPV(segment *section) bool {
	return slices.ContainsFunc(segment.words(), func(word string) bool {
		_, found := b.pvs[word]
		return found
	})
}

// striped reads a segment of the type that stands for linear ones too: `stripes = [ "pv0", 0, "pv1", 100 ]`.
func (b *builder) striped(s *section, extents int64) (Segment, error) {
	count, err := s.number("stripe_count", 1, maxStripes)
	if err != nil {
		return Segment{}, err
	}
	segment := Segment{SizeBytes: extents * b.vg.ExtentBytes}
	if count > 1 {
		sectors, err := s.number("stripe_size", 1, 1<<32)
		if err != nil {
			return segment, err
		}
		segment.StripeBytes = sectors * sectorBytes
		if extents%count != 0 || (segment.SizeBytes/count)%segment.StripeBytes != 0 {
			return segment, fmt.Errorf("%w: %d extents in %d stripes", errText, extents, count)
		}
	}
	areas := s.values["stripes"].list
	if int64(len(areas)) != 2*count {
		return segment, fmt.Errorf("%w: %d stripes are described by %d words", errText, count, len(areas))
	}
	for i := 0; i < len(areas); i += 2 {
		pv, found := b.pvs[areas[i].text]
		first := areas[i+1]
		if !found || areas[i].kind != kindString || first.kind != kindNumber || first.number < 0 ||
			extents/count > pv.count || first.number > pv.count-extents/count {
			return segment, fmt.Errorf("%w: a stripe of %d extents at %d of %.40q", errText, extents/count, first.number, areas[i].text)
		}
		offset := b.vg.PVs[pv.index].StartBytes + first.number*b.vg.ExtentBytes
		segment.Areas = append(segment.Areas, Area{PV: pv.index, OffsetBytes: offset})
	}
	return segment, nil
}

// checkOverlap refuses a group in which two areas share a byte.
func (b *builder) checkOverlap() error {
	type claim struct {
		pv int
		byteRange
		name string
	}
	var claims []claim
	for _, lv := range b.vg.LVs {
		for _, s := range lv.Segments {
			for _, a := range s.Areas {
				claims = append(claims, claim{a.PV, byteRange{a.OffsetBytes, s.AreaBytes()}, lv.Name})
			}
		}
	}
	slices.SortFunc(claims, func(x, y claim) int {
		return cmp.Or(cmp.Compare(x.pv, y.pv), cmp.Compare(x.offset, y.offset))
	})
	for i := 1; i < len(claims); i++ {
		x, y := claims[i-1], claims[i]
		if x.pv == y.pv && y.offset < x.end() {
			return fmt.Errorf("%w: %s and %s overlap", errText, x.name, y.name)
		}
	}
	return nil
}
